"""Which samples the steps of an epoch see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw(
    rows: NDArray[np.int64], labels: NDArray[np.int64], count: int, balanced: bool, generator: np.random.Generator
) -> NDArray[np.int64]:
    """`count` of the rows in random order, each about equally often.

    Args:
        rows: (m,) row numbers, m >= 1.
        labels: (m,) their current labels.
        count: How many to draw; where it exceeds what there is, the rows repeat.
        balanced: Every class that occurs comes equally often (to within one), whatever its size.
        generator: Of all randomness.
    """
    if not balanced:
        return _repeated(rows, count, generator)
    classes = generator.permutation(np.unique(labels))
    shares = [len(share) for share in np.array_split(np.arange(count), len(classes))]
    drawn = [_repeated(rows[labels == k], share, generator) for k, share in zip(classes, shares, strict=True)]
    return generator.permutation(np.concatenate(drawn))


def _repeated(rows: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Whole shuffles of the rows one after the other, so that none comes twice before all came once."""
    shuffles = [generator.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate(shuffles)[:count] if shuffles else rows[:0]
