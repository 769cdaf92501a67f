"""What a terminal shows of a clean index: counts, the classes most in doubt, the most doubtful samples with reasons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.options.kinds import COUNT
from clipaudit.report.columns import Columns, read_columns
from clipaudit.report.wording import reasons


@dataclass(frozen=True)
class Counts:
    """Counts over all samples, or over those of one class.

    Attributes:
        n: Samples.
        n_clean: In the clean subset.
        n_in_doubt: Read, not in it, and not settled by a person.
        n_unreadable: Without scores.
        n_reviewed: A person has decided about the label.
        n_off_topic: Of the others, those that show none of the classes.
    """

    n: int
    n_clean: int
    n_in_doubt: int
    n_unreadable: int
    n_reviewed: int
    n_off_topic: int

    @property
    def n_readable(self) -> int:
        """Samples with scores."""
        return self.n - self.n_unreadable


@dataclass(frozen=True)
class ClassDoubt:
    """How much of a class is in doubt: its name, its readable samples, those in doubt."""

    name: str
    n: int
    n_in_doubt: int


@dataclass(frozen=True)
class Doubt:
    """One sample in doubt.

    Attributes:
        id, path: The sample's.
        given: Its label.
        suggested: The most probable class; None where the image shows none of the classes.
        probability: Of that class.
        score: `clean_score`: the lower, the more doubtful.
        reason: Why, in words.
    """

    id: str
    path: str
    given: str
    suggested: str | None
    probability: float
    score: float
    reason: str


@dataclass(frozen=True)
class Doubts:
    """What is in doubt, of all samples or of one class.

    Attributes:
        class_name: The class as the index spells it; None for all.
        counts: Counts.
        classes: Classes with labels in doubt, the largest share first.
        confusions: (given, suggested, samples in doubt) of two different classes, most frequent first.
        samples: The most doubtful first, without those that a person has marked: they are settled.
    """

    class_name: str | None
    counts: Counts
    classes: list[ClassDoubt]
    confusions: list[tuple[str, str, int]]
    samples: list[Doubt]

    @property
    def share_in_doubt(self) -> float:
        """Share of the readable samples whose label is in doubt, in [0, 1]; 0 where there is none."""
        return self.counts.n_in_doubt / self.counts.n_readable if self.counts.n_readable else 0.0


@typed
def find_doubts(index: CleanIndex, *, class_name: str | None = None, top: int = 10) -> Doubts:
    """The counts, classes and samples of an index that are in doubt.

    Args:
        index: The clean index.
        class_name: Only samples with this label, in any spelling that can mean no other class; None takes all.
        top: Number of samples to return, at most.

    Raises:
        UsageError: no such class, or `top` is out of range.
    """
    top = COUNT.take("top", top)
    columns, number = read_columns(index), None if class_name is None else index.class_index(class_name)
    mine = np.ones(len(index), bool) if number is None else columns.labels == number
    in_doubt = mine & columns.in_doubt
    counts = Counts(
        n=int(mine.sum()),
        n_clean=int((mine & columns.is_clean).sum()),
        n_in_doubt=int(in_doubt.sum()),
        n_unreadable=int((mine & ~columns.readable).sum()),
        n_reviewed=int((mine & columns.settled).sum()),
        n_off_topic=int((mine & columns.is_off_topic & ~columns.settled).sum()),
    )
    rows = np.flatnonzero(in_doubt)
    rows = rows[np.argsort(columns.score[rows], kind="stable")[:top]]
    name = None if number is None else columns.class_names[number]
    return Doubts(name, counts, _classes(columns, mine), _confusions(columns, in_doubt), _samples(columns, rows))


def _classes(columns: Columns, mine: NDArray[np.bool_]) -> list[ClassDoubt]:
    n_classes = len(columns.class_names)
    sizes = np.bincount(columns.labels[mine & columns.readable], minlength=n_classes)
    doubts = np.bincount(columns.labels[mine & columns.in_doubt], minlength=n_classes)
    order = np.lexsort((np.arange(n_classes), -doubts, -doubts / np.maximum(sizes, 1)))
    return [ClassDoubt(columns.class_names[k], int(sizes[k]), int(doubts[k])) for k in order if doubts[k]]


def _confusions(columns: Columns, in_doubt: NDArray[np.bool_]) -> list[tuple[str, str, int]]:
    rows = in_doubt & (columns.labels != columns.suggested) & (columns.suggested >= 0)
    pairs, counts = np.unique(np.stack([columns.labels[rows], columns.suggested[rows]]), axis=1, return_counts=True)
    names = columns.class_names
    found = [(names[given], names[other], int(n)) for given, other, n in zip(*pairs, counts, strict=True)]
    return sorted(found, key=lambda entry: (-entry[2], entry[:2]))


def _samples(columns: Columns, rows: NDArray[np.int64]) -> list[Doubt]:
    texts = columns.index.table.select(["id", "path", "label", "suggested_label"]).take(pa.array(rows)).to_pylist()
    return [
        Doubt(
            id=text["id"],
            path=text["path"],
            given=text["label"],
            suggested=text["suggested_label"],
            probability=float(columns.probability[row]),
            score=float(columns.score[row]),
            reason=reason,
        )
        for row, text, reason in zip(rows, texts, reasons(columns, rows), strict=True)
    ]
