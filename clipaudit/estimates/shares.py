"""Embeddings whose passes a group of processes shares: each adds up over its own rows, then the sums are added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from clipaudit.estimates.vectors import Vectors

Sums = tuple[Tensor, Tensor, float]
"""Of some samples: (K, d+1) gradient, (K,) curvature and the loss, by themselves, without a penalty."""
Summing = Callable[[Tensor], Sums]
"""A pass over some samples at (K, d+1) parameters."""
Maker = Callable[[Vectors, Tensor, Tensor, int], Summing]
"""Makes a pass of embeddings, (m,) labels, (K,) class weights and the rows a chunk; processes find it by its name."""


class Group(Protocol):
    """Processes of which each holds the embeddings of consecutive rows; this one is the first and leads the others."""

    @property
    def bounds(self) -> Sequence[int]:
        """Where the rows of each process begin, and where the last one's end."""
        ...

    def summing(
        self,
        make: Maker,
        rows: Sequence[Tensor] | None,
        labels: Sequence[Tensor],
        class_weights: Tensor,
        chunk_rows: int,
    ) -> Summing:
        """A pass that all processes share, until another one is made.

        Args:
            make: What makes the pass of each.
            rows: For each process (m,) int64, those of its own rows that count, ascending; None where all rows do.
            labels: For each process (m,) int64.
            class_weights: (K,) float32.
            chunk_rows: Rows a chunk.
        """
        ...


class SharedVectors:
    """Vectors that this process holds as a whole, and the processes of a group in parts. Only passes are shared."""

    def __init__(self, whole: Vectors, group: Group, rows: Tensor | None = None) -> None:
        """Wrap embeddings.

        Args:
            whole: n embeddings.
            group: Processes that hold N embeddings together.
            rows: (n,) int64, which of the N the n are, ascending; None where they are all.
        """
        self._whole, self._group, self._rows = whole, group, rows

    def __len__(self) -> int:
        """The number of embeddings, n."""
        return len(self._whole)

    @property
    def dimension(self) -> int:
        """The length of an embedding, d."""
        return self._whole.dimension

    def chunks(self, rows: int) -> Iterator[tuple[slice, Tensor]]:
        """All embeddings once, in their order; see Vectors."""
        return self._whole.chunks(rows)

    def take(self, rows: Tensor) -> Tensor:
        """(m, d) embeddings of the (m,) int64 `rows`; see Vectors."""
        return self._whole.take(rows)

    def subset(self, rows: Tensor) -> SharedVectors:
        """The (m,) int64 `rows`, each still with the process that holds it."""
        mine = rows if self._rows is None else self._rows[rows.to(self._rows.device)]
        return SharedVectors(self._whole.subset(rows), self._group, mine)

    def summing(self, make: Maker, labels: Tensor, class_weights: Tensor, chunk_rows: int) -> Summing:
        """A pass over the n embeddings, (n,) labels in their order, that the group shares; see Group."""
        bounds = self._group.bounds
        if self._rows is None:
            return self._group.summing(make, None, _cut(labels, bounds), class_weights, chunk_rows)
        places = torch.searchsorted(self._rows, torch.tensor(bounds, device=self._rows.device)).tolist()
        rows = [mine - start for mine, start in zip(_cut(self._rows, places), bounds[:-1], strict=True)]
        return self._group.summing(make, rows, _cut(labels, places), class_weights, chunk_rows)


def _cut(values: Tensor, places: Sequence[int]) -> list[Tensor]:
    """The parts between each place and the next."""
    return [values[start:stop] for start, stop in pairwise(places)]


def summing(make: Maker, vectors: Vectors, labels: Tensor, class_weights: Tensor, chunk_rows: int) -> Summing:
    """A pass over embeddings, which a group of processes shares where it holds them.

    Args:
        make: What makes the pass over some of them.
        vectors: n embeddings of d dimensions.
        labels: (n,) int64 in [0, K), on the device that computes.
        class_weights: (K,) float32, on the same device.
        chunk_rows: Rows a chunk.
    """
    if isinstance(vectors, SharedVectors):
        return vectors.summing(make, labels, class_weights, chunk_rows)
    return make(vectors, labels, class_weights, chunk_rows)
