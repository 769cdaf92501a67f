"""The readable samples of a cache as estimates take them: vectors that nobody copies, and what their folds follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from clipaudit.cache.embeddings import Embeddings
from clipaudit.config import AuditConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clipaudit.estimates import InMemory, Vectors


def readable_on(embeddings: Embeddings, device: torch.device) -> InMemory:
    """The m readable samples' vectors, whose chunks come on the device."""
    import torch

    from clipaudit.estimates import placed

    rows = embeddings.readable_rows
    return placed(torch.from_numpy(embeddings.vectors), None if rows is None else torch.from_numpy(rows), device)


@contextmanager
def readable_on_all(embeddings: Embeddings, devices: Sequence[torch.device]) -> Iterator[tuple[Vectors, Vectors]]:
    """Inside, the m readable samples' vectors: as a whole on the first device, and shared by a process for each device.

    Raises:
        UsageError, ClipAuditError: see `clipaudit.processes.group.shared`.
    """
    whole = readable_on(embeddings, devices[0])
    if len(devices) == 1:
        yield whole, whole
        return
    from clipaudit.processes.group import shared

    with shared(whole, embeddings.vectors, embeddings.readable_rows, devices) as vectors:
        yield whole, vectors


def keys_of(embeddings: Embeddings, config: AuditConfig, device: torch.device) -> Tensor | None:
    """(m,) int64 what is drawn by: a hash of each readable sample's id; None where nothing is drawn."""
    from clipaudit.estimates.induced import fold_keys

    readable = embeddings.readable
    if not config.folds and not 0 < config.fit_samples < readable.sum():
        return None
    ids = embeddings.table["id"].filter(pa.array(readable))
    return fold_keys((text for chunk in ids.chunks for text in chunk.to_pylist()), config.seed).to(device)
