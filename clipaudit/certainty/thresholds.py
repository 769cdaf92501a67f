"""Thresholds that marks speak for: the best F1, a precision, a recall, each with what it is expected to reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A number that is not known exactly.

    Attributes:
        estimate: Its posterior mean.
        low, high: It lies between them with a probability of 95 %.
    """

    estimate: float
    low: float
    high: float


def interval(draws: NDArray[np.float64] | NDArray[np.int64]) -> Interval:
    """The interval that 95 % of (S,) draws lie in, with as many below as above."""
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(draws.mean()), float(low), float(high))


@dataclass(frozen=True)
class Cut:
    """Where to part clean from noisy along a ranking.

    Attributes:
        bin: Bins below this one are noisy.
        precision: Share of wrong labels among the noisy ones.
        recall: Share of the noisy ones among the wrong labels.
        f1: Harmonic mean of the two.
    """

    bin: int
    precision: Interval
    recall: Interval
    f1: Interval


@dataclass(frozen=True)
class Reach:
    """Draws of what every cut reaches: (S, B + 1), the last one calls all noisy."""

    precision: Floats
    recall: Floats
    f1: Floats

    def at(self, bin_: int) -> Cut:
        """One cut."""
        return Cut(bin_, *(interval(values[:, bin_]) for values in (self.precision, self.recall, self.f1)))


def reach(wrong: Counts, size: Counts) -> Reach:
    """What cuts reach.

    Args:
        wrong: (S, B) draws of the number of wrong labels in each bin of the ranking, lowest first.
        size: (B,) samples in each bin.
    """
    found = np.cumsum(np.pad(wrong, ((0, 0), (1, 0))), axis=1).astype(float)
    noisy = np.cumsum(np.pad(size, (1, 0))).astype(float)
    total = found[:, -1:]
    # Who calls nothing noisy makes no mistake, and misses nothing where no label is wrong.
    precision = np.divide(found, noisy, out=np.ones_like(found), where=noisy > 0)
    recall = np.divide(found, total, out=np.ones_like(found), where=total > 0)
    f1 = np.divide(2 * found, noisy + total, out=np.zeros_like(found), where=noisy + total > 0)
    return Reach(precision, recall, f1)


def best_f1(reached: Reach) -> Cut:
    """The cut with the highest expected F1."""
    return reached.at(int(reached.f1.mean(axis=0).argmax()))


@dataclass(frozen=True)
class Unshown:
    """No cut reaches the target as surely as 95 % intervals ask.

    Attributes:
        nearest: The cut that comes nearest.
        marks: About how many more marks would show it; None where the target is not expected to be reached at all.
    """

    nearest: Cut
    marks: int | None


def for_precision(reached: Reach, target: float, n_marks: int) -> Cut | Unshown:
    """The cut that finds most wrong labels of those whose precision is at least `target`, at the low end of 95 %.

    Args:
        reached: From `reach`.
        target: In (0, 1].
        n_marks: Marks so far.
    """
    return _most(reached.precision[:, 1:], target, n_marks, reached, first=False)


def for_recall(reached: Reach, target: float, n_marks: int) -> Cut | Unshown:
    """The cut that calls fewest labels noisy of those whose recall is at least `target`, at the low end of 95 %.

    Args:
        reached: From `reach`.
        target: In (0, 1].
        n_marks: Marks so far.
    """
    # To call everything noisy is no answer.
    return _most(reached.recall[:, 1:-1], target, n_marks, reached, first=True)


def _most(values: Floats, target: float, n_marks: int, reached: Reach, *, first: bool) -> Cut | Unshown:
    low = np.quantile(values, (1 - CONFIDENCE) / 2, axis=0)
    if len(shown := np.flatnonzero(low >= target)):
        return reached.at(1 + int(shown[0 if first else -1]))
    mean = values.mean(axis=0)
    # The width of an interval falls with the root of the number of marks.
    needed = n_marks * ((mean - low) / np.maximum(mean - target, 1e-9)) ** 2
    nearest = int(np.where(mean > target, needed, np.inf).argmin()) if (mean > target).any() else int(mean.argmax())
    more = int(np.ceil(needed[nearest] - n_marks)) if mean[nearest] > target else None
    return Unshown(reached.at(1 + nearest), more)
