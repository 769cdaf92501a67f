"""Embeddings as estimates and solvers see them: n, d, chunks and samples of rows, wherever the vectors lie."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

# Of a device's free memory, what the embeddings may take: the work on them needs some, too.
SHARE_OF_DEVICE = 0.5


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
    """Vectors in one tensor, all or some of its rows, wherever it lies: chunks go to the device one by one."""

    def __init__(self, tensor: Tensor, rows: Tensor | None = None, device: torch.device | None = None) -> None:
        """Wrap embeddings, which are not copied.

        Args:
            tensor: (N, d) float16 or float32; in memory, or mapped from a file.
            rows: (n,) int64, where the tensor lies: the rows that count, ascending; None for all.
            device: Where chunks are handed out; None for where the tensor lies.
        """
        self._tensor, self._rows, self._device = tensor, rows, device or tensor.device

    def __len__(self) -> int:
        """The number of embeddings, n."""
        return len(self._tensor if self._rows is None else self._rows)

    @property
    def dimension(self) -> int:
        """The length of an embedding, d."""
        return self._tensor.shape[1]

    def chunks(self, rows: int) -> Iterator[tuple[slice, Tensor]]:
        """All embeddings once, in their order; see Vectors."""
        parts = (slice(start, min(start + rows, len(self))) for start in range(0, len(self), rows))
        chosen = ((part, self._chosen(part)) for part in parts)
        if self._device.type == "cuda" and not self._tensor.is_cuda:
            yield from _sent_ahead(chosen, self._device)
        else:
            yield from ((part, chunk.to(self._device).float()) for part, chunk in chosen)

    def take(self, rows: Tensor) -> Tensor:
        """(m, d) embeddings of the (m,) int64 `rows`; see Vectors."""
        return self._chosen(rows.to(self._tensor.device)).to(self._device).float()

    def subset(self, rows: Tensor) -> InMemory:
        """The (m,) int64 `rows`, of which nothing but their numbers is kept."""
        rows = rows.to(self._tensor.device)
        return InMemory(self._tensor, rows if self._rows is None else self._rows[rows], self._device)

    def between(self, start: int, stop: int) -> InMemory:
        """The embeddings of consecutive rows, numbered from 0; nothing is copied."""
        if self._rows is None:
            return InMemory(self._tensor[start:stop], None, self._device)
        return InMemory(self._tensor, self._rows[start:stop], self._device)

    def _chosen(self, part: slice | Tensor) -> Tensor:
        return self._tensor[part if self._rows is None else self._rows[part]]


def placed(tensor: Tensor, rows: Tensor | None, device: torch.device) -> InMemory:
    """Vectors whose chunks lie on a device: the whole is sent there where it fits, else chunk by chunk.

    Args:
        tensor: (N, d) float16 or float32 in the host's memory, or mapped from a file.
        rows: (n,) int64, the rows that count, ascending; None for all.
        device: The one that computes.
    """
    if device.type == "cuda" and tensor.nbytes > SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]:
        return InMemory(tensor, rows, device)
    return InMemory(tensor.to(device), None if rows is None else rows.to(device))


def _sent_ahead(chunks: Iterable[tuple[slice, Tensor]], device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Chunks on a GPU: while it works on one, the next is on its way from pinned memory, on a stream of its own."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: deque[tuple[slice, Tensor, torch.cuda.Event]] = deque()
    for part, chunk in chunks:
        with torch.cuda.stream(stream):
            ahead.append((part, chunk.pin_memory().to(device, non_blocking=True), stream.record_event()))
        if len(ahead) == 2:
            yield _arrived(*ahead.popleft(), device)
    for last in ahead:
        yield _arrived(*last, device)


def _arrived(part: slice, chunk: Tensor, sent: torch.cuda.Event, device: torch.device) -> tuple[slice, Tensor]:
    """A chunk that the device's work may use: that work waits for it, and its memory for that work."""
    working = torch.cuda.current_stream(device)
    working.wait_event(sent)
    chunk.record_stream(working)
    return part, chunk.float()
