"""`estimate`: how many labels are wrong, from the marks of a designed review, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.certainty.classes import MARKS_FOR_A_CLASS, wrong_by_class
from clipaudit.certainty.thresholds import CONFIDENCE, Interval, best_f1, interval
from clipaudit.errors import UsageError
from clipaudit.index.check import REVIEW_CHANCE
from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.reviews.survey import MARKS_NEEDED, SEED, Survey, has_estimate, marks_of, n_evidence, surveyed

# How many more marks a review may go on with, for `narrowed`.
MORE = 100
# Marks whose weighted count is farther than this many standard errors from the curve contradict it.
CONTRADICTION = 3.5


@dataclass(frozen=True)
class MarksUsed:
    """Which marks counted for what.

    Attributes:
        drawn: On samples that `review` drew: they speak for all labels.
        drawn_wrong: Of these, the given label is wrong.
        elsewhere: On other samples, and on further copies of drawn ones: they are known, and speak for themselves only.
        unsure: The person could not tell; neither right nor wrong.
        waiting: Drawn samples that nobody has marked.
    """

    drawn: int
    drawn_wrong: int
    elsewhere: int
    unsure: int
    waiting: int


@dataclass(frozen=True)
class Estimate:
    """How many labels are wrong. Every interval holds the true number with a probability of 95 %.

    Attributes:
        confidence: That probability.
        n: Labels that the estimate is about: those whose image was read.
        n_in_doubt: Of these, labels that the selectors doubt.
        wrong_labels: Number of wrong labels.
        in_doubt: Number of wrong labels among those in doubt.
        not_in_doubt: Number of wrong labels among the others.
        precision: Share of the labels in doubt that are wrong, in [0, 1]; None where none is in doubt.
        recall: Share of the wrong labels that are in doubt, in [0, 1].
        classes: Number of wrong labels by given class; None for a class with fewer than 5 marks on drawn samples.
        threshold: The `threshold` at which the F1 of the wrong labels is expected to be highest.
        f1: That F1, in [0, 1].
        narrowed: Half the width of the interval of `wrong_labels` after 100 more marks, about.
        marks: Which marks counted for what.
        warnings: What is doubtful about the estimate, in words.
    """

    confidence: float
    n: int
    n_in_doubt: int
    wrong_labels: Interval
    in_doubt: Interval
    not_in_doubt: Interval
    precision: Interval | None
    recall: Interval
    classes: Mapping[str, Interval | None]
    threshold: float
    f1: Interval
    narrowed: float
    marks: MarksUsed
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return asdict(self)

    def marks_for(self, half_width: float) -> int:
        """About how many more marks would make half the width of the interval of `wrong_labels` as small as this."""
        return max(0, math.ceil(self.marks.drawn * ((self.half_width / half_width) ** 2 - 1)))

    @property
    def half_width(self) -> float:
        """Half the width of the interval of `wrong_labels`, a number of labels."""
        return (self.wrong_labels.high - self.wrong_labels.low) / 2


@typed
def estimate(index: CleanIndex) -> Estimate:
    """Estimate how many labels are wrong, from an index with a review.

    Only marks on samples that `review` drew speak for all labels; others tell about themselves. docs/method.md
    describes the model.

    Args:
        index: From `apply_marks`, or `read_index`.

    Raises:
        UsageError: fewer than 20 drawn samples are marked as right or wrong.
    """
    if not has_estimate(index):
        raise UsageError(_too_few(index))
    held = surveyed(index)
    inside, outside = (draws.sum(axis=1) for draws in held.wrong)
    total, n_in_doubt = inside + outside, int(held.in_doubt.sum())
    best = best_f1(held.reach)
    wrong = interval(total)
    share = np.divide(inside, total, out=np.ones(len(total)), where=total > 0)
    return Estimate(
        confidence=CONFIDENCE,
        n=len(held.labels),
        n_in_doubt=n_in_doubt,
        wrong_labels=wrong,
        in_doubt=interval(inside),
        not_in_doubt=interval(outside),
        precision=interval(inside / n_in_doubt) if n_in_doubt else None,
        recall=interval(share),
        classes=_classes(held),
        threshold=held.threshold(best),
        f1=best.f1,
        narrowed=(wrong.high - wrong.low) / 2 * float(np.sqrt(held.n_marks / (held.n_marks + MORE))),
        marks=_used(held),
        warnings=tuple(_contradictions(held, total)),
    )


def _too_few(index: CleanIndex) -> str:
    drawn = n_evidence(index)
    elsewhere = int((~marks_of(index).open).sum()) - drawn
    others = f" {elsewhere:,} other mark(s) speak for themselves only." if elsewhere else ""
    return (
        f"an estimate needs at least {MARKS_NEEDED} marks on samples that were drawn by chance, and the index has"
        f" {drawn:,}.{others} Draw some, mark them, and apply the marks: clipaudit review clean.parquet --budget 100"
        " --out review"
    )


def _classes(held: Survey) -> dict[str, Interval | None]:
    names, marks = held.index.class_names, held.found.marks
    draws = wrong_by_class(held.found, held.labels, len(names), np.random.default_rng(SEED))
    counts = np.bincount(held.labels[marks.wrong | marks.right], minlength=len(names))
    return {name: interval(draws[:, k]) if counts[k] >= MARKS_FOR_A_CLASS else None for k, name in enumerate(names)}


def _used(held: Survey) -> MarksUsed:
    marks, given = held.found.marks, marks_of(held.index)
    drawn = held.index.drawn[held.index.readable]
    return MarksUsed(
        drawn=held.n_marks,
        drawn_wrong=int(marks.wrong.sum()),
        elsewhere=int((~given.open).sum()) - held.n_marks,
        unsure=int(marks.unsure.sum()),
        waiting=int((drawn & marks.open & ~marks.unsure).sum()),
    )


def _contradictions(held: Survey, total: NDArray[np.int64]) -> list[str]:
    """Marks weighed by their chances alone (Hajek) know nothing of the curve; they must not be far from it."""
    marks, index = held.found.marks, held.index
    judged = marks.wrong | marks.right
    # One copy was drawn for all.
    weights = np.bincount(held.same)[held.same[judged]] / index.table[REVIEW_CHANCE].to_numpy()[index.readable][judged]
    said = marks.wrong[judged]
    share = float(np.average(said, weights=weights))
    error = float(np.sqrt((weights**2 * (said - share) ** 2).sum()) / weights.sum())
    modelled, spread = float(total.mean()) / len(held.labels), float(total.std()) / len(held.labels)
    if abs(share - modelled) <= CONTRADICTION * np.hypot(error, spread):
        return []
    return [
        f"the marks alone, each weighed by its chance to be drawn, speak for {share:.1%} wrong labels, and the ranking"
        f" with them for {modelled:.1%}: look at more samples before you trust either"
    ]
