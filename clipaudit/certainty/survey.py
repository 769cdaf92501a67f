"""From marks on drawn samples to the number of wrong labels among all of them, as draws from its posterior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipaudit.certainty.curve import Posterior, fit_curve, positions
from clipaudit.certainty.sampling import chances, strata, systematic

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

DRAWS = 1000
# The ranking is cut into bins: half of them of as many samples each, half as wide as each other.
BINS = 400


@dataclass(frozen=True)
class Bins:
    """The ranking in B bins, which keep its order; equal scores share one.

    Attributes:
        of: (n,) int64, the bin of each sample.
        x: (B,) float64, the mean position of each bin, ascending.
        size: (B,) int64, samples in each; none is empty.
    """

    of: Counts
    x: Floats
    size: Counts

    def count(self, samples: NDArray[np.bool_]) -> Counts:
        """(B,) of (n,) flags, how many are true in each bin."""
        return np.bincount(self.of[samples], minlength=len(self.x))


def binned(ranking: Floats, most: int = BINS) -> Bins:
    """Cut a ranking, (n,) scores in [0, 1] that are higher where a label looks cleaner, into at most `most` bins."""
    x = positions(ranking)
    even = np.linspace(0, 1, most // 2 + 1)[1:-1]
    edges = np.unique(np.concatenate([np.quantile(x, even, method="higher"), x.min() + even * np.ptp(x)]))
    _, of, size = np.unique(np.searchsorted(edges, x, side="right"), return_inverse=True, return_counts=True)
    return Bins(of, np.bincount(of, x) / size, size)


@dataclass(frozen=True)
class Marks:
    """What persons said of n samples; each flag array is (n,) bool.

    Attributes:
        wrong, right: Of samples that were drawn by chance.
        known_wrong, known_right: Of others: they tell about themselves only.
        unsure: The person could not tell.
    """

    wrong: NDArray[np.bool_]
    right: NDArray[np.bool_]
    known_wrong: NDArray[np.bool_]
    known_right: NDArray[np.bool_]
    unsure: NDArray[np.bool_]

    @property
    def open(self) -> NDArray[np.bool_]:
        """(n,) bool: nobody has said whether the label is wrong."""
        return ~(self.wrong | self.right | self.known_wrong | self.known_right)

    def once(self, same: Counts) -> Marks:
        """The marks with each image and label counted once: copies would count as several witnesses of one fact.

        Of the marks on drawn copies, the first is evidence. What is said of one copy is known of the others, unless
        they contradict each other.

        Args:
            same: (n,) the first row with the same image and the same label; its own where there is no copy.
        """
        drawn = np.flatnonzero(self.wrong | self.right)
        first = np.zeros(len(same), bool)
        first[drawn[np.unique(same[drawn], return_index=True)[1]]] = True
        said_wrong, said_right = (
            np.bincount(same, said, len(same))[same] > 0
            for said in (self.wrong | self.known_wrong, self.right | self.known_right)
        )
        return Marks(
            wrong=self.wrong & first,
            right=self.right & first,
            known_wrong=self.known_wrong | (self.wrong & ~first) | (self.open & said_wrong & ~said_right),
            known_right=self.known_right | (self.right & ~first) | (self.open & said_right & ~said_wrong),
            unsure=self.unsure,
        )

    def unseen(self, same: Counts) -> Counts:
        """Rows that nobody has marked, of copies the first; `same` as `once` takes it."""
        rows = np.flatnonzero(self.open & ~self.unsure)
        return np.sort(rows[np.unique(same[rows], return_index=True)[1]])


@dataclass(frozen=True)
class Surveyed:
    """What is known of the wrong labels.

    Attributes:
        bins: The bins of the ranking.
        curve: P(wrong) in each bin.
        marks: What it was learnt from.
    """

    bins: Bins
    curve: Posterior
    marks: Marks

    @property
    def spread(self) -> Floats:
        """(n,) float64, how uncertain it is whether each label is wrong: the expected sqrt(p (1 - p))."""
        p = self.curve.p_wrong
        return np.asarray(np.sqrt(p * (1 - p)).mean(axis=0)[self.bins.of])

    @property
    def p_wrong(self) -> Floats:
        """(n,) float64, the posterior mean of P(wrong), made monotone: it never rises along the ranking."""
        from sklearn.isotonic import isotonic_regression

        mean = self.curve.p_wrong.mean(axis=0)
        falling = isotonic_regression(mean, sample_weight=self.bins.size, increasing=False)
        return np.asarray(np.clip(falling, 0, 1)[self.bins.of])


def survey(ranking: Floats, marks: Marks, generator: np.random.Generator, n_draws: int = DRAWS) -> Surveyed:
    """Learn P(wrong) along a ranking from marks.

    Args:
        ranking: (n,) scores in [0, 1], higher where a label looks cleaner.
        marks: On these samples.
        generator: Draws.
        n_draws: S.
    """
    bins = binned(ranking)
    wrong, right = bins.count(marks.wrong).astype(float), bins.count(marks.right).astype(float)
    return Surveyed(bins, fit_curve(bins.x, wrong, right, n_draws, generator), marks)


def draw(
    found: Surveyed,
    rows: Counts,
    ranking: Floats,
    labels: Counts,
    n_classes: int,
    budget: int,
    generator: np.random.Generator,
) -> tuple[Counts, Floats]:
    """Choose the samples that a person should look at next.

    Args:
        found: What is known so far; without marks, what is thought beforehand.
        rows: Those to choose from.
        ranking: (n,) scores.
        labels: (n,) classes.
        n_classes: K.
        budget: Number of samples to draw, at most all of the rows.
        generator: Draws.

    Returns:
        The rows that were drawn, ascending, and the chance that each had.
    """
    chance = chances(found.spread[rows], min(budget, len(rows)))
    drawn = systematic(chance, strata(ranking[rows], labels[rows], chance, n_classes), generator)
    return rows[drawn], chance[drawn]


def wrong_by_bin(found: Surveyed, among: NDArray[np.bool_], generator: np.random.Generator) -> Counts:
    """(S, B) draws of the number of wrong labels in each bin.

    Args:
        found: From `survey`.
        among: (n,) bool, the samples to count.
        generator: Draws.
    """
    bins, marks, p = found.bins, found.marks, found.curve.p_wrong
    mistaken = found.curve.mistaken[:, None]
    said_wrong = mistaken + (1 - 2 * mistaken) * p
    counts = np.tile(bins.count(among & marks.known_wrong), (len(p), 1))
    for samples, truly in (
        (marks.open, p),
        (marks.wrong, (1 - mistaken) * p / np.maximum(said_wrong, 1e-300)),
        (marks.right, mistaken * p / np.maximum(1 - said_wrong, 1e-300)),
    ):
        counted = bins.count(among & samples)
        at = np.flatnonzero(counted)
        counts[:, at] += generator.binomial(counted[at], np.clip(truly[:, at], 0, 1))
    return counts
