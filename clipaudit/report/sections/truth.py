"""The audit held against the truth: its numbers, its ROC curves and its own errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import pyarrow as pa

from clipaudit.auditing.metrics import Metrics, metrics
from clipaudit.index.building import deciding_column
from clipaudit.report.charts import DASHES, roc
from clipaudit.report.choice import ERRORS_SHOWN
from clipaudit.report.sections.base import Material
from clipaudit.vocabulary import verdicts_of


@dataclass(frozen=True)
class Judge:
    """The combination, or one verdict, against the truth.

    Attributes:
        name: In words.
        metrics: Its numbers.
        curve: Its ROC curve as an SVG path, empty where there is none.
        dashes: What tells its curve from the others.
    """

    name: str
    metrics: Metrics
    curve: str
    dashes: str


@dataclass(frozen=True)
class TruthReport:
    """What the truth says about the audit.

    Attributes:
        judges: The combination first, then every verdict alone.
        n_wrong: Wrong labels among the samples judged.
        n_accused: Right labels called noisy.
        n_missed: Wrong labels called clean.
        n_shown: The most of either kind that is embedded.
        suggestion_accuracy: Share of the wrong labels for which the suggested label is the true one.
        matched_by: How the truth was matched to the samples.
        notes: What was tolerated, unknown or doubtful about it.
        is_reviewed: A person has marked samples since.
    """

    judges: Sequence[Judge]
    n_wrong: int
    n_accused: int
    n_missed: int
    n_shown: int
    suggestion_accuracy: float | None
    matched_by: str
    notes: Sequence[str]
    is_reviewed: bool


def truth(material: Material) -> TruthReport | None:
    """Compare the audit with the truth, where it is known."""
    columns, known = material.columns, material.truth
    if known is None:
        return None
    readable = columns.readable
    # The audit itself is judged, not what a review made of it.
    right, is_clean = known.right_scored[readable], columns.audited_clean[readable]
    both_kinds = bool(right.any()) and not right.all()
    table = columns.index.table.filter(pa.array(readable))
    # The score that each verdict puts its threshold on.
    judged = [("combined", is_clean, columns.score[readable])]
    for verdict in verdicts_of(columns.index.config.estimates):
        score = table[deciding_column(verdict, columns.index.config)].to_numpy()
        judged.append((verdict.title, ~columns.failed_by(verdict)[readable], score))
    judges = [
        Judge(name, metrics(right, flags, score), roc(right, score) if both_kinds else "", dashes)
        for (name, flags, score), dashes in zip(judged, cycle(DASHES))
    ]
    wrong = np.flatnonzero(readable & ~known.right_scored)
    names = np.asarray([*columns.class_names, ""], object)
    # The last name is nobody's: the place of -1, where no class is suggested.
    found = names[columns.suggested[wrong]] == known.names[wrong]
    return TruthReport(
        judges=judges,
        n_wrong=int((~right).sum()),
        n_accused=int((right & ~is_clean).sum()),
        n_missed=int((~right & is_clean).sum()),
        n_shown=ERRORS_SHOWN,
        suggestion_accuracy=float(found.mean()) if len(wrong) else None,
        matched_by=known.matched_by,
        notes=known.notes,
        is_reviewed=bool(columns.reviewed.any()),
    )
