"""The columns of a clean index as arrays, and the truth beside them: what every number of the report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clipaudit.images.quality import ISSUES, flag_column, score_column
from clipaudit.index.check import LOOKS_LIKE, OFF_TOPIC_SCORE
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.copies import IndexCopies, copies_in
from clipaudit.index.truth import match_truth
from clipaudit.index.views import class_numbers
from clipaudit.vocabulary import Verdict, verdicts_of


@dataclass(frozen=True)
class Truth:
    """The true labels of n samples.

    Attributes:
        names: n true class names, in the audit's spelling where it knows them.
        right: (n,) bool, the label is the true one.
        right_scored: (n,) bool, the label that the scores are about is; the same where nobody reviewed.
        matched_by: "path", "id" or "row order".
        notes: What was tolerated, unknown or doubtful about them, in words for the user.
    """

    names: NDArray[Any]
    right: NDArray[np.bool_]
    right_scored: NDArray[np.bool_]
    matched_by: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """A clean index as arrays with one entry a row; where the image could not be read, classes are -1, numbers NaN.

    Attributes:
        index: Where they come from.
        readable, is_clean, fallback: (n,) bool.
        reviewed, settled: (n,) bool, a person has marked the sample, and has decided about it.
        labels, suggested: (n,) int64 class indices; the suggested one is -1 as well where none of the classes is.
        scored: (n,) int64, the label that the scores are about: the given one, before any review.
        score: (n,) float64, `clean_score`.
        probability: (n,) float32, of the suggested label, or that none is right.
        off_topic: (n,) float32, how likely the image shows none of the classes; zero where nobody looked.
        failed: (v, n) bool, the verdict (in the order of `verdicts_of`) is that the label is in doubt.
        predicted: Of each estimate, by name, (n,) int64 the most probable class.
        p_label, p_max, loss: Of each estimate, by name, (n,) float32.
    """

    index: CleanIndex
    readable: NDArray[np.bool_]
    is_clean: NDArray[np.bool_]
    fallback: NDArray[np.bool_]
    reviewed: NDArray[np.bool_]
    settled: NDArray[np.bool_]
    labels: NDArray[np.int64]
    scored: NDArray[np.int64]
    suggested: NDArray[np.int64]
    score: NDArray[np.float64]
    probability: NDArray[np.float32]
    off_topic: NDArray[np.float32]
    failed: NDArray[np.bool_]
    predicted: Mapping[str, NDArray[np.int64]]
    p_label: Mapping[str, NDArray[np.float32]]
    p_max: Mapping[str, NDArray[np.float32]]
    loss: Mapping[str, NDArray[np.float32]]

    def __len__(self) -> int:
        """Number of samples, unreadable ones included."""
        return len(self.labels)

    @cached_property
    def class_names(self) -> list[str]:
        """All K classes, in their order."""
        return self.index.class_names

    @cached_property
    def in_doubt(self) -> NDArray[np.bool_]:
        """(n,) bool: read, not called clean, and not settled by a person."""
        return self.index.in_doubt

    @cached_property
    def is_off_topic(self) -> NDArray[np.bool_]:
        """(n,) bool: the image shows rather none of the classes than any."""
        return self.index.off_topic

    @cached_property
    def copies(self) -> IndexCopies | None:
        """The copies among the samples; None where nobody looked for them."""
        return copies_in(self.index.table)

    @cached_property
    def quality(self) -> dict[str, NDArray[np.bool_]]:
        """(n,) bool of each issue of the images themselves; none where they were not measured."""
        known = set(self.index.table.column_names)
        return {
            issue: np.asarray(pc.fill_null(self.index.table[flag_column(issue)], False).to_numpy())
            for issue in ISSUES
            if {flag_column(issue), score_column(issue)} <= known
        }

    @cached_property
    def audited_clean(self) -> NDArray[np.bool_]:
        """(n,) bool: what the audit said, before any review."""
        return (self.score >= 0.5) | self.fallback

    @cached_property
    def by_class(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The readable rows ordered by class and score, and (K + 1,) where each class begins in them."""
        rows = np.flatnonzero(self.readable)
        order = rows[np.lexsort((self.score[rows], self.labels[rows]))]
        return order, np.searchsorted(self.labels[order], np.arange(len(self.class_names) + 1))

    def failed_by(self, verdict: Verdict) -> NDArray[np.bool_]:
        """(n,) bool: this verdict is that the label is in doubt."""
        number = verdicts_of(self.index.config.estimates).index(verdict)
        return np.asarray(self.failed[number])

    def looks_like(self, row: int) -> str:
        """What an image shows that shows none of the classes."""
        return str(self.index.table[LOOKS_LIKE][row].as_py() or "nothing known")

    def strings(self, name: str, rows: NDArray[np.int64]) -> list[str | None]:
        """Some rows of a text column."""
        values: list[str | None] = self.index.table[name].take(pa.array(rows)).to_pylist()
        return values


def read_columns(index: CleanIndex) -> Columns:
    """The arrays of an index."""
    readable, estimates = index.readable, index.config.estimates

    def classes(column: str) -> NDArray[np.int64]:
        return class_numbers(index.table[column].cast(pa.string()), index.class_names)

    def numbers(column: str) -> NDArray[Any]:
        return np.asarray(index.table[column].to_numpy())

    off_topic = np.zeros(len(index), np.float32)
    if OFF_TOPIC_SCORE in index.table.column_names:
        off_topic = np.nan_to_num(numbers(OFF_TOPIC_SCORE))

    def flags(column: str) -> NDArray[np.bool_]:
        return np.asarray(pc.fill_null(index.table[column], False).to_numpy())

    return Columns(
        index=index,
        readable=readable,
        is_clean=index.is_clean,
        fallback=flags("fallback"),
        reviewed=index.reviewed,
        settled=index.settled,
        labels=classes("label"),
        scored=classes("label_given" if index.has_reviews else "label"),
        suggested=classes("suggested_label"),
        score=numbers("clean_score"),
        probability=np.where(index.off_topic, off_topic, numbers("suggested_probability")),
        off_topic=off_topic,
        failed=np.stack([readable & ~flags(verdict.column) for verdict in verdicts_of(estimates)]),
        predicted={term.name: classes(term.column("label")) for term in estimates},
        p_label={term.name: numbers(term.column("p_label")) for term in estimates},
        p_max={term.name: numbers(term.column("p_max")) for term in estimates},
        loss={term.name: numbers(term.column("loss")) for term in estimates},
    )


def read_truth(index: CleanIndex, truth: str | Path) -> Truth:
    """The true labels of an index's samples, from `FILE[:COLUMN]`.

    Raises:
        SourceError: the file does not cover the samples, or shares no class with the labels.
    """
    matched = match_truth(index, truth)
    true = matched.classes(index.class_names)
    right, right_scored = index.labels() == true, index.scored_labels() == true
    return Truth(matched.values, right, right_scored, matched.matched_by, (*matched.notes, *matched.warnings))
