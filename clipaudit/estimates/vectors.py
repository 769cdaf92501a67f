"""Embeddings as estimates and solvers see them: n, d, chunks and samples of rows, wherever the vectors lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class Vectors(Protocol):
    """n embeddings of d dimensions: in memory, in files, on a device, in many parts.

    What is handed out is float32 and lies on the device that computes, where the labels are, too.
    """

    def __len__(self) -> int:
        """The number of embeddings, n."""
        ...

    @property
    def dimension(self) -> int:
        """The length of an embedding, d."""
        ...

    def chunks(self, rows: int) -> Iterator[tuple[slice, Tensor]]:
        """All embeddings once, in their order: the rows of a chunk, and the (m, d) embeddings in it.

        Args:
            rows: The largest number of rows a chunk; at least 1.
        """
        ...

    def take(self, rows: Tensor) -> Tensor:
        """(m, d) embeddings, few enough for memory, of the (m,) int64 `rows`, which ascend."""
        ...

    def subset(self, rows: Tensor) -> Vectors:
        """The embeddings of the (m,) int64 `rows`, which ascend; they are numbered 0 to m - 1."""
        ...


class InMemory:
    """Vectors in one tensor."""

    def __init__(self, tensor: Tensor) -> None:
        """Wrap (n, d) float16 or float32 embeddings, which are not copied."""
        self._tensor = tensor

    def __len__(self) -> int:
        """The number of embeddings, n."""
        return len(self._tensor)

    @property
    def dimension(self) -> int:
        """The length of an embedding, d."""
        return self._tensor.shape[1]

    def chunks(self, rows: int) -> Iterator[tuple[slice, Tensor]]:
        """All embeddings once, in their order; see Vectors."""
        for start in range(0, len(self), rows):
            part = slice(start, min(start + rows, len(self)))
            yield part, self._tensor[part].float()

    def take(self, rows: Tensor) -> Tensor:
        """(m, d) embeddings of the (m,) int64 `rows`; see Vectors."""
        return self._tensor[rows].float()

    def subset(self, rows: Tensor) -> InMemory:
        """A copy of the (m,) int64 `rows`: a fit reads them some twenty times, and then gathers them once."""
        return InMemory(self._tensor[rows])
