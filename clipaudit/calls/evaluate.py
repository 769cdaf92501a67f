"""Scores an audit against true labels (the paper's Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.auditing.metrics import Metrics, metrics
from clipaudit.errors import SourceError
from clipaudit.index.building import deciding_column
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.truth import match_truth
from clipaudit.options.arguments import typed
from clipaudit.vocabulary import verdicts_of


@dataclass(frozen=True)
class Evaluation:
    """An audit compared with true labels.

    After a review, `overall` and `classes` judge the labels and flags as the review left them; AUROC, `selectors` and
    `suggestion_accuracy` judge the audit, whose scores are about the labels given before.

    Attributes:
        overall: The combined flags and `clean_score`.
        selectors: Each selector on each estimate alone, by the name of the verdict, with its own score.
        classes: The combined flags, by label.
        suggestion_accuracy: Share of the wrong labels for which the suggested label is the true one.
        n_unreadable: Number of samples without scores, which are left out.
        matched_by: How the true labels were matched to the samples: "path", "id" or "row order".
        warnings: What makes the audit, or this comparison, implausible.
        notes: Which true classes were read as which, and which ones the audit does not know.
    """

    overall: Metrics
    selectors: Mapping[str, Metrics]
    classes: Mapping[str, Metrics]
    suggestion_accuracy: float | None
    n_unreadable: int
    matched_by: str
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return asdict(self)


@typed
def evaluate(
    index: CleanIndex, truth: str | Path | Sequence[object], *, names: Sequence[str] | None = None
) -> Evaluation:
    """Score an index against true labels.

    Args:
        index: From `select` or `read_index`.
        truth: `FILE[:COLUMN]` (matched by path, or row by row), or one true class name a sample.
        names: Class names, where the truth is in class indices.

    Raises:
        SourceError: the true labels do not cover the samples, or share no class with the given labels.
    """
    matched, readable = match_truth(index, truth, names=names), index.readable
    if not readable.any():
        raise SourceError("the index has no readable sample, so that there is nothing to evaluate.")
    true, labels = matched.classes(index.class_names)[readable], index.labels()[readable]
    right, right_given = labels == true, index.scored_labels()[readable] == true
    is_clean, wrong = index.is_clean[readable], ~right_given
    scores = _column(index, "clean_score", readable)
    selectors = {}
    for verdict in verdicts_of(index.config.estimates):
        says, value = (
            _column(index, name, readable) for name in (verdict.column, deciding_column(verdict, index.config))
        )
        selectors[verdict.name] = metrics(right_given, says, value)
    classes = {}
    by_class = np.argsort(labels, kind="stable")
    borders = np.searchsorted(labels[by_class], np.arange(len(index.class_names) + 1))
    for number, name in enumerate(index.class_names):
        if len(mine := by_class[borders[number] : borders[number + 1]]):
            classes[name] = metrics(right[mine], is_clean[mine], scores[mine], right_given[mine])
    suggested = index.suggested_labels()[readable]
    found = float((suggested == true)[wrong & (true >= 0)].sum() / wrong.sum()) if wrong.any() else None
    overall = metrics(right, is_clean, scores, right_given)
    unread, warnings = int((~readable).sum()), [*index.metadata.warnings, *matched.warnings]
    return Evaluation(overall, selectors, classes, found, unread, matched.matched_by, warnings, matched.notes)


def _column(index: CleanIndex, name: str, readable: NDArray[np.bool_]) -> NDArray[Any]:
    """(m,) a column of the readable samples."""
    return np.asarray(index.table[name].filter(pa.array(readable)).to_numpy())
