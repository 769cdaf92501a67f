"""Thresholds that a review speaks for: the best F1 of the wrong labels, a precision or a recall by wish."""

from __future__ import annotations

from dataclasses import dataclass

from clipaudit.auditing.metrics import best_threshold
from clipaudit.certainty.thresholds import Interval, Unshown, best_f1, for_precision, for_recall
from clipaudit.errors import UsageError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.options.kinds import Range
from clipaudit.reviews.survey import MARKS_NEEDED, has_estimate, marks_of, surveyed

TARGET = Range(0.01, 0.999)


@typed
def reviewed_threshold(index: CleanIndex) -> float:
    """The `threshold` at which, by a review, the F1 of the wrong labels is highest.

    Where enough marks are on samples that `review` drew, it is the one that `estimate` gives. Marks on other samples
    speak for samples like these only: of them, it is the threshold with the highest F1 among the marked ones.

    Args:
        index: With marks, from `apply_marks`.

    Raises:
        UsageError: no label was marked, or, of samples that were not drawn, no right one or no wrong one.
    """
    if not index.has_reviews:
        raise UsageError("the index holds no review. Mark samples in the report, then merge them: clipaudit apply")
    if has_estimate(index):
        held = surveyed(index)
        return held.threshold(best_f1(held.reach))
    marks = marks_of(index)
    right = marks.right | marks.known_right
    marked = right | marks.wrong | marks.known_wrong
    for kind, found in (("right", right), ("wrong", marked & ~right)):
        if not found.any():
            raise UsageError(
                f"the review marked no {kind} label among the readable images. A threshold needs some of both kinds."
            )
    return min(best_threshold(index.ranking()[marked], right[marked])[0], 1.0)


@dataclass(frozen=True)
class Target:
    """A threshold by wish.

    Attributes:
        threshold: For `AuditConfig`.
        precision: Share of the labels below it that are wrong.
        recall: Share of the wrong labels below it.
    """

    threshold: float
    precision: Interval
    recall: Interval


@typed
def target_threshold(index: CleanIndex, *, precision: float | None = None, recall: float | None = None) -> Target:
    """The threshold at which a review shows that the wrong labels are found with this precision, or this recall.

    Of the thresholds that reach the target at the low end of their 95 % interval, it is the one that finds most wrong
    labels (precision), or that calls fewest labels noisy (recall).

    Args:
        index: With marks on samples that `review` drew.
        precision: Share of the labels called noisy that are wrong, from 0.01 to 0.999.
        recall: Share of the wrong labels that are called noisy; one of the two.

    Raises:
        UsageError: not one of the two is given, the review is too small to show it, or no threshold reaches it.
    """
    if (precision is None) == (recall is None):
        raise UsageError("name one target: precision or recall.")
    name, wanted = ("precision", precision) if recall is None else ("recall", recall)
    goal = TARGET.take(name, wanted)
    if not has_estimate(index):
        raise UsageError(
            f"a target needs at least {MARKS_NEEDED} marks on samples that were drawn by chance: clipaudit review,"
            " then clipaudit apply."
        )
    held = surveyed(index)
    found = (for_precision if name == "precision" else for_recall)(held.reach, goal, held.n_marks)
    if isinstance(found, Unshown):
        raise UsageError(_unshown(name, goal, found))
    return Target(held.threshold(found), found.precision, found.recall)


def _unshown(name: str, goal: float, found: Unshown) -> str:
    nearest = found.nearest.precision if name == "precision" else found.nearest.recall
    reached = f"{nearest.estimate:.3f} (95 %: {nearest.low:.3f} to {nearest.high:.3f})"
    if found.marks is None:
        return (
            f"no threshold is expected to reach a {name} of {goal:g}: the nearest reaches {reached}. Ask for less, or"
            " review more labels."
        )
    return (
        f"the marks cannot show a {name} of {goal:g} yet: the nearest threshold is expected to reach {reached}. About"
        f" {found.marks:,} more marks would show it: clipaudit review"
    )
