"""Which samples the report shows: a bounded number, however large the data set is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipaudit.images.quality import score_column
from clipaudit.report.columns import Columns, Truth

# Classes that get histograms and examples; all others share one table.
CLASSES_IN_DETAIL = 60
EXAMPLES_A_SIDE = 4
# A matrix of more classes is wider than any screen; above this, the most frequent pairs of classes are listed.
CLASSES_IN_MATRIX = 30
# Confusion cells whose images are embedded, at most so many each and so many together.
CELLS_WITH_IMAGES = 100
SAMPLES_A_CELL = 12
SAMPLES_OF_CELLS = 600
# Of each kind of the audit's own errors, where the truth is known.
ERRORS_SHOWN = 60
# Images least like any class, even where each of them rather shows one.
STRANGERS_SHOWN = 12
# Groups of copies with different labels, and images of each.
GROUPS_SHOWN, COPIES_A_GROUP = 50, 6
# Images of each kind of odd quality.
ODD_SHOWN = 12

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """In-doubt samples by given and suggested label, most frequent pairs first.

    Attributes:
        given, suggested: (m,) class indices.
        counts: (m,) samples of the whole data set.
    """

    given: NDArray[np.int64]
    suggested: NDArray[np.int64]
    counts: NDArray[np.int64]

    def between_classes(self) -> Confusion:
        """Without the pairs of a class with itself."""
        other = self.given != self.suggested
        return Confusion(self.given[other], self.suggested[other], self.counts[other])


@dataclass(frozen=True)
class Choice:
    """Rows of the index that appear in the report.

    Attributes:
        rows: All of them, ascending and each once.
        classes: Classes shown in detail, most labels in doubt first.
        examples: Of each of these, rows in doubt and rows called clean.
        confusion: All pairs.
        listed: Those that the page has a cell or a line for: with many classes, only pairs of two classes.
        cell_quota: How many rows of each of the largest cells are among `rows`, at most.
        n_top: How many of `rows` are there as the most doubtful of all.
        conflicts: Of the first groups of copies with different labels, the first rows.
        odd: Of each issue of quality that there is, the rows with the worst scores.
    """

    rows: Rows
    classes: list[int]
    examples: Mapping[int, tuple[Rows, Rows]]
    confusion: Confusion
    listed: Confusion
    cell_quota: int
    n_top: int
    conflicts: Sequence[Rows]
    odd: Mapping[str, Rows]


def choose(columns: Columns, top: int, truth: Truth | None) -> Choice:
    """Choose what to show.

    Args:
        columns: All samples.
        top: How many of the most doubtful ones; what a person has marked is settled.
        truth: Adds the errors of the audit.
    """
    most_doubtful = _lowest(columns, np.flatnonzero(columns.readable & ~columns.settled), top)
    classes = worst_classes(columns)[:CLASSES_IN_DETAIL]
    examples = {k: _examples(columns, k) for k in classes}
    confusion = confusions(columns)
    listed = confusion if len(columns.class_names) <= CLASSES_IN_MATRIX else confusion.between_classes()
    quota = min(SAMPLES_A_CELL, SAMPLES_OF_CELLS // max(1, min(len(listed.counts), CELLS_WITH_IMAGES)))
    conflicts = columns.copies.conflicts(GROUPS_SHOWN, COPIES_A_GROUP) if columns.copies else []
    odd = {issue: _oddest(columns, issue) for issue, found in columns.quality.items() if found.any()}
    parts = [
        most_doubtful,
        _of_cells(columns, listed, quota),
        _strangers(columns),
        *conflicts,
        *odd.values(),
        *(rows for pair in examples.values() for rows in pair),
    ]
    if truth is not None:
        parts += errors(columns, truth)
    rows = np.unique(np.concatenate(parts))
    return Choice(rows, classes, examples, confusion, listed, quota, len(most_doubtful), conflicts, odd)


def worst_classes(columns: Columns) -> list[int]:
    """Classes by labels in doubt, most first (then the larger share, then their order); empty ones are left out."""
    n_classes = len(columns.class_names)
    doubts = np.bincount(columns.labels[columns.in_doubt], minlength=n_classes)
    sizes = np.bincount(columns.labels, minlength=n_classes)
    order = np.lexsort((np.arange(n_classes), sizes, -doubts))
    worst: list[int] = order[sizes[order] > 0].tolist()
    return worst


def confusions(columns: Columns) -> Confusion:
    """How often each given label is in doubt for each suggested one."""
    n_classes, rows = len(columns.class_names), columns.in_doubt & (columns.suggested >= 0)
    pairs, counts = np.unique(columns.labels[rows] * n_classes + columns.suggested[rows], return_counts=True)
    order = np.lexsort((pairs, -counts))
    return Confusion(pairs[order] // n_classes, pairs[order] % n_classes, counts[order])


def errors(columns: Columns, truth: Truth) -> list[Rows]:
    """Rows where the audit is wrong: right labels called noisy, wrong ones called clean; the surest errors first."""
    settled = ~columns.readable | columns.settled
    accused = np.flatnonzero(~settled & ~columns.is_clean & truth.right)
    missed = np.flatnonzero(~settled & columns.is_clean & ~truth.right)
    surest = missed[np.argsort(-columns.score[missed], kind="stable")]
    return [_lowest(columns, accused, ERRORS_SHOWN), surest[:ERRORS_SHOWN]]


def _lowest(columns: Columns, rows: Rows, count: int) -> Rows:
    return rows[np.argsort(columns.score[rows], kind="stable")[:count]]


def _strangers(columns: Columns) -> Rows:
    """Rows that are least like any class."""
    rows = np.flatnonzero((columns.off_topic > 0) & ~columns.settled)
    rows = rows[np.argsort(-columns.off_topic[rows], kind="stable")]
    n_sure = int(columns.is_off_topic[rows].sum())
    return rows[: min(max(n_sure, STRANGERS_SHOWN), ERRORS_SHOWN)]


def _oddest(columns: Columns, issue: str) -> Rows:
    """Rows with an issue of quality, worst first."""
    rows = np.flatnonzero(columns.quality[issue])
    scores = columns.index.table[score_column(issue)].to_numpy()[rows]
    return rows[np.argsort(scores, kind="stable")[:ODD_SHOWN]]


def _examples(columns: Columns, k: int) -> tuple[Rows, Rows]:
    """Rows of class k on both sides, evenly through the order of their scores: neither the best nor the worst alone."""
    order, starts = columns.by_class
    mine = order[starts[k] : starts[k + 1]]
    doubted, clean = columns.in_doubt[mine], columns.is_clean[mine]

    def spread(rows: Rows) -> Rows:
        positions = np.linspace(0, len(rows) - 1, min(EXAMPLES_A_SIDE, len(rows))).round().astype(np.int64)
        return rows[positions]

    return spread(mine[doubted]), spread(mine[clean])


def _of_cells(columns: Columns, confusion: Confusion, quota: int) -> Rows:
    """The most doubtful rows of the largest confusion cells."""
    n_classes = len(columns.class_names)
    largest = (confusion.given * n_classes + confusion.suggested)[:CELLS_WITH_IMAGES]
    rows = np.flatnonzero(columns.in_doubt & (columns.suggested >= 0))
    pairs = columns.labels[rows] * n_classes + columns.suggested[rows]
    order = np.lexsort((columns.score[rows], pairs))
    rows, pairs = rows[order], pairs[order]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs, pairs)
    return rows[(rank < quota) & np.isin(pairs, largest)]
