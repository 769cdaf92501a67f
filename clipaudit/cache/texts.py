"""Text embeddings on disk: `text/<prompts>.<checksum>.npy` in an embeddings cache."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipaudit.cache.parts import checksum
from clipaudit.errors import CacheError
from clipaudit.files import read_bounded, write_atomically

_MAX_BYTES = 1 << 33
# How far the length of an embedding may be from 1.
_UNIT = 1e-3


def read_texts(folder: Path, key: str, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """What `write_texts` kept under a key, (P, d) float32 unit rows; None where nothing is, or where it is damaged.

    Raises:
        CacheError: a file may not be opened.
    """
    empty = _npy(np.zeros(shape, np.float32))
    head = len(empty) - 4 * shape[0] * shape[1]
    for file in sorted(folder.glob(f"{key}*.npy")):
        data = read_bounded(file, _MAX_BYTES, CacheError)
        # Names that were given before have no checksum.
        named = file.stem in (key, f"{key}.{checksum(data)}")
        if named and len(data) == len(empty) and data[:head] == empty[:head]:
            texts = np.frombuffer(data, np.float32, offset=head).reshape(shape).copy()
            if np.allclose(np.linalg.norm(texts, axis=1), 1, atol=_UNIT):
                return texts
    return None


def write_texts(folder: Path, key: str, texts: NDArray[np.float32]) -> None:
    """Keep text embeddings, (P, d) float32 unit rows, under a key; what was kept under it before goes."""
    data = _npy(texts)
    file = folder / f"{key}.{checksum(data)}.npy"
    write_atomically(file, data)
    for other in folder.glob(f"{key}*.npy"):
        if other != file:
            other.unlink(missing_ok=True)


def _npy(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()
