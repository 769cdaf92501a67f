"""The classes, one by one: sizes, losses, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipaudit.report.charts import Histogram, Mixture, histogram
from clipaudit.report.choice import Choice, worst_classes
from clipaudit.report.columns import Columns
from clipaudit.report.sections.base import Material
from clipaudit.vocabulary import SELECTORS, EstimateTerm, Verdict

CLASSES_IN_TABLE = 2000


@dataclass(frozen=True)
class ClassRow:
    """One class in the table of all.

    Attributes:
        number: Its index.
        name: Its name.
        size, n_readable, n_in_doubt: Samples with this given label.
        taken_for: Index of the class most often suggested instead, and how often; None where none is.
    """

    number: int
    name: str
    size: int
    n_readable: int
    n_in_doubt: int
    taken_for: tuple[int, int] | None

    @property
    def clean_share(self) -> float | None:
        """Share of its readable samples that is not in doubt."""
        return 1 - self.n_in_doubt / self.n_readable if self.n_readable else None


@dataclass(frozen=True)
class ClassDetail:
    """A class with its histograms, by the titles of the estimates, and the rows of its examples."""

    row: ClassRow
    histograms: Mapping[str, Histogram]
    in_doubt: Sequence[int]
    clean: Sequence[int]


@dataclass(frozen=True)
class Classes:
    """All classes.

    Attributes:
        rows: Most labels in doubt first; empty classes are left out, and those beyond CLASSES_IN_TABLE.
        details: The first of them.
        names: All K, in their order.
        theta_loss: The threshold of the loss selector.
    """

    rows: Sequence[ClassRow]
    details: Sequence[ClassDetail]
    names: Sequence[str]
    theta_loss: float


def classes(material: Material) -> Classes:
    """The classes that have samples."""
    columns, choice = material.columns, material.choice
    rows = _rows(columns, choice)
    return Classes(rows, _details(columns, choice, rows), columns.class_names, columns.index.config.theta_loss)


def _rows(columns: Columns, choice: Choice) -> list[ClassRow]:
    n_classes = len(columns.class_names)

    def count(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(columns.labels[rows], minlength=n_classes)

    readable, doubts = count(columns.readable), count(columns.in_doubt)
    sizes = np.bincount(columns.labels, minlength=n_classes)
    taken_for = _taken_for(choice)
    return [
        ClassRow(k, columns.class_names[k], int(sizes[k]), int(readable[k]), int(doubts[k]), taken_for.get(k))
        for k in worst_classes(columns)[:CLASSES_IN_TABLE]
    ]


def _taken_for(choice: Choice) -> dict[int, tuple[int, int]]:
    pairs = choice.confusion
    other = pairs.given != pairs.suggested
    # The pairs come most frequent first, so that the first of each class is its largest.
    given, first = np.unique(pairs.given[other], return_index=True)
    suggested, counts = pairs.suggested[other][first], pairs.counts[other][first]
    return dict(zip(given.tolist(), zip(suggested.tolist(), counts.tolist(), strict=True), strict=True))


def _details(columns: Columns, choice: Choice, rows: Sequence[ClassRow]) -> list[ClassDetail]:
    """Histograms and examples of the classes chosen for them."""
    by_number = {row.number: row for row in rows}
    details = []
    for k in choice.classes:
        # The mixtures were fitted to the classes as they were before any review.
        mine = np.flatnonzero(columns.readable & (columns.scored == k))
        charts = {}
        for term in columns.index.config.estimates if len(mine) else ():
            failed = columns.failed_by(Verdict(term, SELECTORS["loss"]))[mine]
            charts[term.title] = histogram(columns.loss[term.name][mine], failed, _mixture(columns, term, k))
        in_doubt, clean = choice.examples[k]
        details.append(ClassDetail(by_number[k], charts, in_doubt.tolist(), clean.tolist()))
    return details


def _mixture(columns: Columns, term: EstimateTerm, k: int) -> Mixture | None:
    fitted = columns.index.metadata.mixtures[term.name]
    if fitted.abstained[k]:
        return None
    # Only a class that was not split has None among its numbers.
    weights, means, deviations = (
        [float(value) for value in part[k] if value is not None]
        for part in (fitted.weights, fitted.means, fitted.deviations)
    )
    return Mixture(weights, means, deviations)
