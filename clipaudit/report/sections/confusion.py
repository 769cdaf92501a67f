"""Which given labels are in doubt for which suggested ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipaudit.report.choice import CELLS_WITH_IMAGES, CLASSES_IN_MATRIX, Confusion
from clipaudit.report.sections.base import Material

PAIRS_LISTED = 100
# Shades of a confusion cell.
SHADES = 5


@dataclass(frozen=True)
class Cell:
    """A confusion cell; `shade` grows from 0 with the count."""

    given: int
    suggested: int
    count: int
    shade: int


@dataclass(frozen=True)
class ConfusionTable:
    """Labels in doubt by given and suggested label.

    Attributes:
        names: All K classes, in their order.
        cells: The largest, largest first.
        matrix: The cells by (given, suggested); None where the classes are too many for a matrix.
        n_pairs: How many cells there are.
        n_with_images, n_images: Of the largest so many cells, up to so many images are in the file.
    """

    names: Sequence[str]
    cells: Sequence[Cell]
    matrix: Mapping[tuple[int, int], Cell] | None
    n_pairs: int
    n_with_images: int
    n_images: int


def confusion(material: Material) -> ConfusionTable:
    """A matrix of few classes, a list of the most frequent pairs of many."""
    names, choice = material.columns.class_names, material.choice
    is_matrix = len(names) <= CLASSES_IN_MATRIX
    cells = _cells(choice.listed, CLASSES_IN_MATRIX**2 if is_matrix else PAIRS_LISTED)
    return ConfusionTable(
        names=names,
        cells=cells,
        matrix={(cell.given, cell.suggested): cell for cell in cells} if is_matrix else None,
        n_pairs=len(choice.listed.counts),
        n_with_images=CELLS_WITH_IMAGES,
        n_images=choice.cell_quota,
    )


def _cells(pairs: Confusion, count: int) -> list[Cell]:
    """The first confusion cells, shaded by the square root of their counts."""
    pairs = Confusion(pairs.given[:count], pairs.suggested[:count], pairs.counts[:count])
    largest = float(pairs.counts.max()) if len(pairs.counts) else 1.0
    shades = np.ceil(np.sqrt(pairs.counts / largest) * SHADES).astype(np.int64)
    columns = (pairs.given.tolist(), pairs.suggested.tolist(), pairs.counts.tolist(), shades.tolist())
    return [Cell(*values) for values in zip(*columns, strict=True)]
