"""What the marks of an index say about all of its labels: the survey behind `estimate`, `review` and `p_wrong`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.certainty.survey import Marks, Surveyed, survey, wrong_by_bin
from clipaudit.certainty.thresholds import Cut, Reach, reach
from clipaudit.copies.groups import first_rows
from clipaudit.errors import UsageError
from clipaudit.index.building import with_column
from clipaudit.index.check import P_WRONG
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.marks import kept_by

# From fewer marks on drawn samples nothing is estimated.
MARKS_NEEDED = 20
# The draws of the posterior are the same for the same marks.
SEED = 0


@dataclass(frozen=True)
class Survey:
    """The m readable samples of an index, and what is known of their given labels.

    Attributes:
        index: The index.
        ranking: (m,) float64, higher where the label looks cleaner.
        labels: (m,) int64, the given labels.
        in_doubt: (m,) bool, the verdict of the selectors is noisy, whatever a review says.
        same: (m,) int64, the first sample with the same image and the same given label.
        found: P(wrong) along the ranking.
    """

    index: CleanIndex
    ranking: NDArray[np.float64]
    labels: NDArray[np.int64]
    in_doubt: NDArray[np.bool_]
    same: NDArray[np.int64]
    found: Surveyed

    @property
    def n_marks(self) -> int:
        """Marks on drawn samples that say whether the label is wrong."""
        return int((self.found.marks.wrong | self.found.marks.right).sum())

    @cached_property
    def wrong(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(S, B) draws of the wrong labels in each bin of the ranking: of those in doubt, and of the others."""
        generator = np.random.default_rng(SEED)
        in_doubt = wrong_by_bin(self.found, self.in_doubt, generator)
        return in_doubt, wrong_by_bin(self.found, ~self.in_doubt, generator)

    @cached_property
    def reach(self) -> Reach:
        """What thresholds reach."""
        in_doubt, others = self.wrong
        return reach(in_doubt + others, self.found.bins.size)

    def threshold(self, cut: Cut) -> float:
        """The threshold, a number on the scale of the ranking, that a cut stands for."""
        clean = self.found.bins.of >= cut.bin
        if not clean.any():
            return 1.0
        above = float(self.ranking[clean].min())
        below = float(self.ranking[~clean].max()) if not clean.all() else 0.0
        middle = (above + below) / 2
        return middle if middle > below else above


def surveyed(index: CleanIndex) -> Survey:
    """What the marks of an index say; without any, what is thought beforehand. UsageError if no image is readable."""
    readable = index.readable
    if not readable.any():
        raise UsageError("no image of the index could be read, so that no mark can say anything.")
    ranking, same = index.ranking(), _same(index)
    found = survey(ranking, marks_of(index).once(same), np.random.default_rng(SEED))
    return Survey(index, ranking, index.scored_labels()[readable], ~index.selected[readable], same, found)


def _same(index: CleanIndex) -> NDArray[np.int64]:
    """(m,) of each readable sample the first one with the same image and the same given label."""
    first = index.first_copies
    if first is None:
        return np.arange(int(index.readable.sum()))
    return first_rows(first * len(index.class_names) + index.scored_labels()[index.readable])


def marks_of(index: CleanIndex) -> Marks:
    """The marks on the readable samples, about the labels that were given before any review; copies have their own."""
    nobody = np.zeros(len(index), bool)
    wrong, right, unsure, drawn = nobody, nobody, nobody, index.drawn
    if index.has_reviews:
        same = index.labels() == index.scored_labels()
        right = kept_by(index.table["reviewed"]) & same
        wrong = index.settled & ~right
        unsure = index.reviewed & ~index.settled
    flags = (wrong & drawn, right & drawn, wrong & ~drawn, right & ~drawn, unsure)
    return Marks(*(flag[index.readable] for flag in flags))


def has_estimate(index: CleanIndex) -> bool:
    """Whether enough drawn samples are marked for `estimate`, of copies one."""
    return n_evidence(index) >= MARKS_NEEDED


def n_evidence(index: CleanIndex) -> int:
    """Number of marks that speak for all labels: on samples drawn by chance, of copies one."""
    marks = marks_of(index).once(_same(index))
    return int((marks.wrong | marks.right).sum())


def calibrated(index: CleanIndex) -> CleanIndex:
    """The index with its `p_wrong` calibrated by the marks on drawn samples, once there are enough of them."""
    if not has_estimate(index):
        return index
    readable, p_wrong = index.readable, np.zeros(len(index), np.float32)
    p_wrong[readable] = surveyed(index).found.p_wrong
    table = with_column(index.table, P_WRONG, pa.array(p_wrong, mask=~readable))
    return CleanIndex(table, replace(index.metadata, calibrated=True), index.file)
