"""Scores an audit against true labels (the paper's Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
    matched = match_truth(index, truth, names=names)
    values, readable = matched.values, index.readable
    if not readable.any():
        raise SourceError("the index has no readable sample, so that there is nothing to evaluate.")
    table, values = index.table.filter(readable), values[readable]
    labels = np.asarray(table["label"].to_pylist(), object)
    right = labels == values
    right_given = np.asarray(index.class_names, object)[index.scored_labels()[readable]] == values
    is_clean, scores = index.is_clean[readable], table["clean_score"].to_numpy()
    selectors = {}
    for verdict in verdicts_of(index.config.estimates):
        value = table[deciding_column(verdict, index.config)].to_numpy()
        selectors[verdict.name] = metrics(right_given, table[verdict.column].to_numpy(zero_copy_only=False), value)
    classes = {
        name: metrics(right[mine], is_clean[mine], scores[mine], right_given[mine])
        for name in index.class_names
        if (mine := labels == name).any()
    }
    suggested = np.asarray(table["suggested_label"].to_pylist(), object)
    found = float((suggested == values)[~right_given].mean()) if (~right_given).any() else None
    overall = metrics(right, is_clean, scores, right_given)
    unread, warnings = int((~readable).sum()), [*index.metadata.warnings, *matched.warnings]
    return Evaluation(overall, selectors, classes, found, unread, matched.matched_by, warnings, matched.notes)
