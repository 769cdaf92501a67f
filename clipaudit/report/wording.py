"""Why a label is in doubt, in words; and numbers as people write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipaudit.report.columns import Columns
from clipaudit.vocabulary import SELECTORS, EstimateTerm, Verdict

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
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
    parts, before = [], None
    if columns.is_off_topic[row]:
        parts.append(f"shows none of the classes; looks like: {columns.looks_like(row)}")
    for term in columns.index.config.estimates:
        seen = _seen(columns, term, row)
        parts.append(_says(term, seen, before))
        before = seen.best
    if columns.fallback[row] and not columns.settled[row]:
        parts.append("kept because no sample of its class was selected")
    return "; ".join(parts)


def _seen(columns: Columns, term: EstimateTerm, row: int) -> _Seen:
    return _Seen(
        columns.class_names[columns.scored[row]],
        columns.class_names[columns.predicted[term.name][row]],
        float(columns.p_label[term.name][row]),
        float(columns.p_max[term.name][row]),
        bool(columns.failed_by(Verdict(term, SELECTORS["loss"]))[row]),
    )


def _says(term: EstimateTerm, seen: _Seen, before: str | None) -> str:
    """What an estimate sees; it agrees with the one that was named before it, or it does not."""
    agree, see = ("agree", "see") if term.many else ("agrees", "sees")
    if seen.best != before:
        return f"{term.title} {see} {seen.numbers}{_remark(seen)}"
    less_sure = f", {LESS_SURE}" if seen.as_labelled and seen.doubted_by_loss else ""
    return f"{term.title} {agree} ({seen.numbers}){less_sure}"


def _remark(seen: _Seen) -> str:
    if not seen.as_labelled:
        return ""
    return f", as labelled, but {LESS_SURE}" if seen.doubted_by_loss else ", as labelled"


def number(count: int) -> str:
    """A small number in words."""
    return _NUMBERS[count] if count < len(_NUMBERS) else f"{count:,}"


def all_of(count: int) -> str:
    """All of two or more."""
    return "both" if count == 2 else f"all {number(count)}"


def failing(n_verdicts: int) -> list[tuple[int, str]]:
    """How many verdicts a label can fail, and the same in words: all of them first."""
    some = [(count, number(count)) for count in reversed(range(n_verdicts))]
    return [(n_verdicts, all_of(n_verdicts)), *some]


def listed(words: Sequence[str]) -> str:
    """One or more words as a sentence has them: a, b and c."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def capital(text: str) -> str:
    """With a capital letter, as a caption begins."""
    return text[:1].upper() + text[1:]


def probability(value: float) -> str:
    """Two decimals; what they cannot tell from 0 or 1 is said to be near."""
    if value < 0.005:
        return "<0.01"
    return ">0.99" if 0.995 <= value < 1 else f"{value:.2f}"


def percent(ratio: float | None, digits: int = 1) -> str:
    """A share with its sign; a dash where there is none."""
    return "-" if ratio is None else f"{ratio:.{digits}%}"
