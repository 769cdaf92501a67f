"""What is asked of vectors from elsewhere, wherever they come from: finite numbers, not all zero, of length 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.cache.info import MAX_DIMENSION
from clipaudit.errors import SourceError

# Of a vector: a single number has no direction but forth and back.
MIN_DIMENSION = 2
# Numbers of a vector's type take at most this many bytes; a batch of them, in double precision, so many.
BYTES_A_NUMBER, BATCH_BYTES = 8, 1 << 23
# How far the length of a unit vector may be from 1 in half precision; a nearer one stays as it is, bit by bit.
UNIT = 1e-3


def unit_rows(values: NDArray[Any], where: Callable[[int], str], first: int = 0) -> tuple[NDArray[np.float32], int]:
    """The same directions with length 1.

    Args:
        values: (m, d) float16, float32 or float64.
        where: What an error calls a row, by its number.
        first: The number of the first one.

    Returns:
        (m, d) float32 unit rows; how many of them had another length before.

    Raises:
        SourceError: a row has a number that is not finite, or is all zeros.
    """
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = first + int(np.argmin(finite))
        raise SourceError(
            f"{where(row)}: the vector has a number that is not finite (NaN or infinity). Compute it again."
        )
    rows = values.astype(np.float64)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    if not largest.all():
        row = first + int(np.argmin(largest))
        raise SourceError(f"{where(row)}: the vector is all zeros, which has no direction. Remove the row.")
    # Squares of very large or very small numbers would overflow or vanish.
    scaled = rows / largest
    lengths = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
    other = np.abs(lengths[:, 0] * largest[:, 0] - 1) > UNIT
    rows[other] = scaled[other] / lengths[other]
    return rows.astype(np.float32), int(other.sum())


def check_dimension(dimension: int, where: str) -> None:
    """Refuse vectors of a number of dimensions that no encoder has.

    Raises:
        SourceError: it is out of range.
    """
    if not MIN_DIMENSION <= dimension <= MAX_DIMENSION:
        raise SourceError(
            f"{where}: the vectors have {dimension:,} number(s). clipaudit takes {MIN_DIMENSION} to {MAX_DIMENSION:,}."
        )


def rows_at_once(dimension: int) -> int:
    """How many rows make a batch."""
    return max(1, BATCH_BYTES // (BYTES_A_NUMBER * dimension))
