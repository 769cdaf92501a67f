"""The matrix of all embeddings: where it lies, and some of its rows without a copy."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipaudit.remote import is_remote

Vectors = NDArray[np.float16]


class ChosenRows:
    """Some rows of an (n, d) array as if they were one; a slice of it copies these rows, and nothing else does."""

    def __init__(self, array: Vectors, rows: NDArray[np.int64]) -> None:
        self._array, self._rows = array, rows
        self.shape = (len(rows), array.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: slice | NDArray[np.int64]) -> Vectors:
        """(m, d) of a part of the rows."""
        return self._array[self._rows[part]]


def allocate(n_samples: int, dimension: int, folder: Path) -> Vectors:
    """An (n, d) float16 array: in memory up to a quarter of the machine's, else in an unnamed temporary file."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 33
    if n_samples * dimension * 2 <= memory // 4:
        return np.zeros((n_samples, dimension), np.float16)
    with tempfile.TemporaryFile(dir=None if is_remote(folder) else folder) as file:
        return np.memmap(file, np.float16, "w+", shape=(n_samples, dimension))
