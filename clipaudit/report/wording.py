"""Why a label is in doubt, in words; and numbers as people write them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipaudit.report.columns import Columns
from clipaudit.selectors.combine import SELECTORS

_ZERO_SHOT_LOSS, _INDUCED_LOSS = SELECTORS.index("zero_shot_loss"), SELECTORS.index("induced_loss")
# What AuditConfig.induced is called in a sentence, and whether it is many.
INDUCED_IN_WORDS = {
    "logistic": ("logistic regression", False),
    "neighbours": ("neighbours", True),
    "joint": ("joint estimate", False),
}
LESS_SURE = "with a loss in the doubtful part of its class"


@dataclass(frozen=True)
class _Seen:
    """What one estimate says about one sample."""

    label: str
    best: str
    p_label: float
    p_max: float
    doubted_by_loss: bool

    @property
    def as_labelled(self) -> bool:
        return self.best == self.label

    @property
    def numbers(self) -> str:
        best = f"{self.best} {probability(self.p_max)}"
        return best if self.as_labelled else f"{best}, {self.label} {probability(self.p_label)}"


def reasons(columns: Columns, rows: NDArray[np.int64]) -> list[str]:
    """One sentence a row, for example: zero-shot sees lynx 0.81, cat 0.06; logistic regression agrees (lynx 0.77, ...).

    Args:
        columns: All samples.
        rows: Readable rows.
    """
    return [_reason(columns, row) for row in rows.tolist()]


def _reason(columns: Columns, row: int) -> str:
    zero_shot, induced = (
        _Seen(
            columns.class_names[columns.scored[row]],
            columns.class_names[columns.predicted[name][row]],
            float(columns.p_label[name][row]),
            float(columns.p_max[name][row]),
            bool(columns.failed[loss, row]),
        )
        for name, loss in (("zero_shot", _ZERO_SHOT_LOSS), ("induced", _INDUCED_LOSS))
    )
    who, many = INDUCED_IN_WORDS[columns.index.config.induced]
    agree, see = ("agree", "see") if many else ("agrees", "sees")
    first = f"zero-shot sees {zero_shot.numbers}{_remark(zero_shot)}"
    if induced.best == zero_shot.best:
        second = f"{who} {agree} ({induced.numbers})"
        if induced.as_labelled and induced.doubted_by_loss:
            second += f", {LESS_SURE}"
    else:
        second = f"{who} {see} {induced.numbers}{_remark(induced)}"
    kept = columns.fallback[row] and not columns.reviewed[row]
    rescued = "; kept because no sample of its class was selected" if kept else ""
    return f"{first}; {second}{rescued}"


def _remark(seen: _Seen) -> str:
    if not seen.as_labelled:
        return ""
    return f", as labelled, but {LESS_SURE}" if seen.doubted_by_loss else ", as labelled"


def probability(value: float) -> str:
    """Two decimals; what they cannot tell from 0 or 1 is said to be near."""
    if value < 0.005:
        return "<0.01"
    return ">0.99" if 0.995 <= value < 1 else f"{value:.2f}"


def percent(ratio: float | None, digits: int = 1) -> str:
    """A share with its sign; a dash where there is none."""
    return "-" if ratio is None else f"{ratio:.{digits}%}"
