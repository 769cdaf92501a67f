"""True labels matched to the samples and classes of an audit: one way for `evaluate`, `report` and `train`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.auditing.plausibility import row_order_warning
from clipaudit.errors import SourceError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.views import class_numbers
from clipaudit.remote import to_path
from clipaudit.samples.base import label_name
from clipaudit.samples.labels import ROW_ORDER, read_column
from clipaudit.samples.names import checked_names
from clipaudit.samples.tables import LABEL_COLUMNS
from clipaudit.spelling import Spellings, looks_missing, normalise
from clipaudit.text import excerpt, unescape_formula

TRUTH_COLUMNS = ("label_true", "true_label", "truth", "clean_label", "ground_truth", *LABEL_COLUMNS)
CLASSES_NAMED = 5


@dataclass(frozen=True)
class TrueLabels:
    """The true labels of n samples.

    Attributes:
        values: (n,) class names as str objects: an audited class in the audit's spelling, any other as it was found.
        matched_by: "path", "id" or "row order".
        notes: What was read as what, and which true classes the audit does not know, in words for the user.
        warnings: What may be wrong with them.
    """

    values: NDArray[Any]
    matched_by: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def classes(self, class_names: Sequence[str]) -> NDArray[np.int64]:
        """(n,) their numbers among the audited classes; -1 where the audit does not know one."""
        return class_numbers(pa.array(self.values, pa.string()), class_names)


def match_truth(
    index: CleanIndex, truth: str | Path | Sequence[object], *, names: Sequence[str] | None = None
) -> TrueLabels:
    """The true class of each sample of an index.

    A true class may be spelled otherwise than the audited one that it means, where it can mean no other one. One that
    the audit does not know is allowed: such a sample has a wrong label.

    Args:
        index: From `select` or `read_index`.
        truth: `FILE[:COLUMN]` (see `read_column`), or one true label a sample.
        names: Class names by index, where the truth is in indices. An index that declares its classes needs none.

    Raises:
        SourceError: the truth does not cover the samples, or shares no class with the labels.
    """
    notes: tuple[str, ...] = ()
    names = None if names is None else checked_names(names)
    if isinstance(truth, str | Path):
        ids: list[str] = index.table["id"].to_pylist()
        column = read_column(truth, ids, to_path(index.metadata.root), usual=TRUTH_COLUMNS, names=names)
        found, matched_by, notes = column.values, column.matched_by, column.notes
    else:
        known = frozenset(names or ())
        found = [label_name(value, names, known, f"true label {row}") for row, value in enumerate(truth)]
        matched_by = ROW_ORDER
    if len(found) != len(index):
        raise SourceError(f"there are {len(found):,} true labels for {len(index):,} samples. Give one a sample.")
    counts = Counter(found)
    classes = _classes(counts, index)
    if found and not classes:
        given = index.class_names
        hint = " Class indices need the names of the classes (--names)." if found[0].isdecimal() else ""
        raise SourceError(
            f"the true labels ({excerpt(found[0])}, ...) and the given ones ({given[0]!r}, ...) have no class in"
            f" common. Name the right column: --truth FILE:COLUMN.{hint}"
        )
    values = np.empty(len(found), object)
    values[:] = [classes.get(value, value) for value in found]
    warnings = list(_warnings(counts, classes, index.class_names))
    if matched_by == ROW_ORDER and isinstance(truth, str | Path):
        warnings.append(row_order_warning(f"the true labels of {truth}"))
    return TrueLabels(values, matched_by, (*notes, *_notes(counts, classes)), tuple(warnings))


def _classes(found: Mapping[str, int], index: CleanIndex) -> dict[str, str]:
    """The audited class that each true class means, of those that mean one."""
    names, spellings = index.class_names, Spellings(index.class_names)
    classes: dict[str, str] = {}
    for value in found:
        for spelling in (value, unescape_formula(value)):
            if (number := spellings.find(spelling)) is not None:
                classes.setdefault(value, names[number])
    are_indices = all(value.isdecimal() and value.isascii() and len(value) < 10 for value in found)
    if not classes and are_indices and index.metadata.declared_classes:
        if beyond := [value for value in found if int(value) >= len(names)]:
            raise SourceError(
                f"true class index {beyond[0]} is out of range: the index has {len(names)} classes"
                f" (0 to {len(names) - 1})."
            )
        return {value: names[int(value)] for value in found}
    return classes


def _notes(counts: Mapping[str, int], classes: Mapping[str, str]) -> Iterator[str]:
    respelled = [f"{value!r} as {name!r}" for value, name in classes.items() if value != name]
    if respelled:
        yield f"{len(respelled):,} true class(es) read in the audit's spelling: {_some(respelled)}"
    unknown = [f"{excerpt(value)} ({count:,})" for value, count in counts.items() if value not in classes]
    if unknown:
        yield (
            f"{len(unknown):,} true class(es) that the audit does not know, whose samples count as label errors:"
            f" {_some(unknown)}"
        )


def _warnings(counts: Mapping[str, int], classes: Mapping[str, str], names: Sequence[str]) -> Iterator[str]:
    for value, count in counts.items():
        if value in classes:
            continue
        meant = [name for name in names if normalise(name) == normalise(value)]
        if len(meant) > 1:
            yield (
                f"the true class {excerpt(value)} ({count:,} samples) may be {' or '.join(map(repr, meant))}: it counts"
                " as neither"
            )
        elif looks_missing(value):
            yield (
                f"the true class {excerpt(value)} ({count:,} samples) looks like a missing label: these samples count"
                " as label errors"
            )


def _some(words: Sequence[str]) -> str:
    more = len(words) - CLASSES_NAMED
    return ", ".join(words[:CLASSES_NAMED]) + (f" and {more:,} more" if more > 0 else "")
