"""How far several reviewers of the same labels agree, and who is believed where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from clipaudit.errors import SourceError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.marks import RELABEL, RIGHT, UNSURE
from clipaudit.reviews.marks_file import Mark, MarksFile

FIRST, LAST, REFUSE = "first", "last", "refuse"
CONFLICTS_IN_A_MESSAGE = 5


@dataclass(frozen=True)
class Agreement:
    """How far two files of marks agree.

    Attributes:
        first, second: Names of the files.
        n_both: Samples that both mark.
        n_same: Of these, samples with the same mark and label.
        n_judged: Of these, samples that neither is unsure of.
        kappa: Cohen's kappa of their judgement that a label is right, or wrong (relabel, drop), on the samples judged;
            None where there are none, or where both always say the same.
    """

    first: str
    second: str
    n_both: int
    n_same: int
    n_judged: int
    kappa: float | None


@dataclass(frozen=True)
class Disagreement:
    """A sample that files disagree on.

    Attributes:
        id: The sample's, in the index.
        said: The name of each file that marks it, its mark, and the new label of a relabelled one.
        decided: The mark that is applied.
    """

    id: str
    said: tuple[tuple[str, str, str | None], ...]
    decided: str


def agreements(files: Sequence[MarksFile]) -> tuple[Agreement, ...]:
    """Every pair of files, in their order."""
    return tuple(_agreement(one, other) for one, other in combinations(files, 2))


def _agreement(one: MarksFile, other: MarksFile) -> Agreement:
    both = sorted(set(one.by_row) & set(other.by_row))
    pairs = [(one.by_row[row], other.by_row[row]) for row in both]
    same = sum(_content(a) == _content(b) for a, b in pairs)
    judged = [(a.mark == RIGHT, b.mark == RIGHT) for a, b in pairs if UNSURE not in (a.mark, b.mark)]
    return Agreement(one.path.name, other.path.name, len(both), same, len(judged), cohens_kappa(judged))


def cohens_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Agreement of two judges beyond chance (Cohen, 1960): 1 is perfect, 0 as by chance; None where it is undefined.

    Args:
        pairs: What both say of each of n samples.
    """
    n = len(pairs)
    if not n:
        return None
    observed = sum(a == b for a, b in pairs) / n
    yes_one, yes_other = (sum(pair[side] for pair in pairs) / n for side in (0, 1))
    chance = yes_one * yes_other + (1 - yes_one) * (1 - yes_other)
    return None if chance == 1 else (observed - chance) / (1 - chance)


def united(
    files: Sequence[MarksFile], index: CleanIndex, on_conflict: str
) -> tuple[dict[int, Mark], list[Disagreement]]:
    """One mark a row, and the samples that files disagree on.

    Args:
        files: In the order in which they were given.
        index: What they mark.
        on_conflict: "refuse", or whose mark is applied: that of the "first" or "last" file, or none ("unsure").

    Raises:
        SourceError: files disagree, and `on_conflict` is "refuse".
    """
    by_row: dict[int, Mark] = {}
    said: dict[int, list[tuple[str, Mark]]] = {}
    for file in files:
        for row, mark in file.by_row.items():
            said.setdefault(row, []).append((file.path.name, mark))
    ids, disagreements, conflicts = index.table["id"], [], []
    for row, marks in said.items():
        by_row[row] = marks[-1 if on_conflict == LAST else 0][1]
        if len({_content(mark) for _, mark in marks}) == 1:
            continue
        conflicts.append((marks[0][1], next(mark for _, mark in marks if _content(mark) != _content(marks[0][1]))))
        if on_conflict == UNSURE:
            by_row[row] = Mark(by_row[row].id, UNSURE, -1, by_row[row].where)
        words = tuple((name, mark.mark, _named(mark, index)) for name, mark in marks)
        disagreements.append(Disagreement(ids[row].as_py(), words, by_row[row].mark))
    if conflicts and on_conflict == REFUSE:
        raise SourceError(_conflict(conflicts, index))
    return by_row, disagreements


def _content(mark: Mark) -> tuple[str, int]:
    return mark.mark, mark.label


def _named(mark: Mark, index: CleanIndex) -> str | None:
    return index.class_names[mark.label] if mark.mark == RELABEL else None


def _conflict(conflicts: Sequence[tuple[Mark, Mark]], index: CleanIndex) -> str:
    def words(mark: Mark) -> str:
        return f"{mark.mark} {_named(mark, index)}" if mark.mark == RELABEL else mark.mark

    shown = "; ".join(
        f"{one.id} is {words(one)!r} in {one.where} and {words(other)!r} in {other.where}"
        for one, other in islice(conflicts, CONFLICTS_IN_A_MESSAGE)
    )
    more = f"; and {len(conflicts) - CONFLICTS_IN_A_MESSAGE:,} more" if len(conflicts) > CONFLICTS_IN_A_MESSAGE else ""
    return (
        f"the files disagree on {len(conflicts):,} sample(s): {shown}{more}. Settle them in the files, or decide:"
        " --on-conflict first, last or unsure."
    )
