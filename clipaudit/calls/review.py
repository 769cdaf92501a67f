"""`apply`: a person's marks on a clean index. A mark overrules every selector; what was before is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.errors import SourceError, UsageError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.marks import DROP, MARKS, RELABEL, RIGHT, overrule
from clipaudit.samples.matching import NONE, Matcher
from clipaudit.samples.tables import listed, open_table, same_column
from clipaudit.samples.values import is_missing, text_of
from clipaudit.text import excerpt, unescape_formula

MARKS_COLUMNS = ("id", "mark", "label")


@dataclass(frozen=True)
class ReviewSummary:
    """What a file of marks did.

    Attributes:
        right, relabel, drop: Samples with each mark.
        overruled: Samples whose verdict has changed.
        again: Samples that an earlier review had marked, too; the later mark holds.
        unreadable: Samples marked right or relabelled whose image cannot be read: they stay out of the clean subset.
        notes: What had to be tolerated to find the samples, in words for the user.
    """

    right: int
    relabel: int
    drop: int
    overruled: int
    again: int
    unreadable: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Mark:
    """One line of the file: the sample's id, the mark, the class index of the new label (-1: none), where it stands."""

    id: str
    mark: str
    label: int
    where: str


def apply_marks(index: CleanIndex, marks: str | Path) -> tuple[CleanIndex, ReviewSummary]:
    """Merge the marks of a review into an index.

    "right" makes a sample clean and keeps its label, "relabel" gives it another label and makes it clean, "drop" makes
    it noisy. All scores stay: they are about the label given before, which the column `label_given` keeps.

    Args:
        index: From `select`, `read_index` or an earlier review.
        marks: A table (CSV, TSV, JSONL, Parquet) with the columns `id`, `mark` and `label`; `label` only for "relabel".

    Returns:
        The index with the columns `reviewed` and `label_given` and one more entry in its metadata's `reviews`; and
        what was done.

    Raises:
        SourceError: an id, class or mark that is not known, two different marks for one sample, a missing column or
            label, a file without marks or not in UTF-8; the message names file and row.
        UsageError: a file of a kind that is not read.
    """
    path = Path(marks)
    said, notes = _one_a_row(index, _read_marks(path, index), path)
    _refuse_contradictions(index, said)
    rows = np.array(list(said), np.int64)
    words = np.array([mark.mark for mark in said.values()], object)
    targets = np.array([mark.label for mark in said.values()], np.int64)
    table, summary = _merge(index, rows, words, targets)
    review = {
        "file": path.name,
        "sha256": sha256(path.read_bytes()).hexdigest(),
        **{name: count for name, count in asdict(summary).items() if name in MARKS},
    }
    metadata = replace(index.metadata, reviews=[*index.metadata.reviews, review])
    return CleanIndex(table, metadata), replace(summary, notes=notes)


def _read_marks(path: Path, index: CleanIndex) -> list[_Mark]:
    """All marks, in the order of the file."""
    said = [_mark(row, index, where) for where, row in _rows(path)]
    if not said:
        raise SourceError(f"{path} holds no marks: there is nothing below the line that names the columns.")
    return said


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    table = open_table(path)
    found = {name: [column for column in table.columns if same_column(column, name)] for name in MARKS_COLUMNS}
    for name, columns in found.items():
        if len(columns) != 1:
            fault = "two columns named" if columns else "no column"
            raise SourceError(
                f"{path} has {fault} {name!r}. Marks have the columns {', '.join(MARKS_COLUMNS)};"
                f" the file has: {listed(table.columns)}."
            )
    for where, row in table.rows([columns[0] for columns in found.values()]):
        yield where, {name: _text(row[columns[0]], name, where) for name, columns in found.items()}


def _text(value: object, role: str, where: str) -> str:
    return "" if not isinstance(value, str) and is_missing(value) else text_of(value, role, where)


def _mark(row: Mapping[str, str], index: CleanIndex, where: str) -> _Mark:
    mark = row["mark"].strip().lower()
    if not row["id"].strip():
        raise SourceError(f"{where}: the id is missing.")
    if mark not in MARKS:
        raise SourceError(f"{where}: unknown mark {excerpt(row['mark'])}. Use one of: {', '.join(MARKS)}.")
    return _Mark(row["id"], mark, _label(row["label"], mark, index, where), where)


def _label(text: str, mark: str, index: CleanIndex, where: str) -> int:
    """The class that a mark names, in any spelling that could mean no other one; -1 where it names none."""
    for spelling in (text, unescape_formula(text)):
        try:
            return index.class_index(spelling)
        except UsageError as error:
            fault = error
    if not is_missing(text):
        raise SourceError(f"{where}: {fault}") from None
    if mark == RELABEL:
        raise SourceError(f"{where}: {RELABEL} needs a class in the column 'label'.")
    return -1


def _one_a_row(index: CleanIndex, said: Sequence[_Mark], path: Path) -> tuple[dict[int, _Mark], tuple[str, ...]]:
    """The mark of each marked row of the index, and what had to be tolerated to find the rows."""
    matcher = Matcher(index.table["id"].to_pylist(), Path(index.metadata.root), path.resolve().parent)
    match = matcher.match([mark.id for mark in said])
    unknown = [mark for mark, row in zip(said, match.numbers, strict=True) if row == NONE]
    if unknown:
        count, total = len({mark.id for mark in unknown}), len({mark.id for mark in said})
        raise SourceError(
            f"{unknown[0].where}: the index has no sample {excerpt(unknown[0].id)} ({count:,} of {total:,} ids are not"
            " in it). Apply marks to the index that they were made on."
        )
    by_row: dict[int, _Mark] = {}
    for mark, row in zip(said, match.numbers, strict=True):
        earlier = by_row.setdefault(row, mark)
        if (earlier.mark, earlier.label) != (mark.mark, mark.label):
            raise SourceError(f"{mark.where}: {mark.id} has another mark in {earlier.where}. Keep one of the two.")
    return by_row, (f"{path.name}: ids matched {match.note}",) if match.note else ()


def _refuse_contradictions(index: CleanIndex, said: Mapping[int, _Mark]) -> None:
    """A label beside "right" or "drop" is no order to relabel; it may be there if it is the sample's own."""
    labels = index.labels()
    for row, mark in said.items():
        label = int(labels[row])
        if mark.mark != RELABEL and mark.label not in (-1, label):
            own, other = index.class_names[label], index.class_names[mark.label]
            raise SourceError(
                f"{mark.where}: {mark.mark!r} keeps the label of {mark.id}, which is {own!r} in the index, not"
                f" {other!r}. Write {RELABEL!r}, or leave the label empty."
            )


def _merge(
    index: CleanIndex, rows: NDArray[np.int64], words: NDArray[Any], targets: NDArray[np.int64]
) -> tuple[pa.Table, ReviewSummary]:
    """The table after a review, and what changed.

    Args:
        index: Before it.
        rows: (m,) marked rows, each once.
        words: (m,) their marks.
        targets: (m,) class index of the new label, where the mark is "relabel".
    """
    before, readable, relabelled = index.is_clean, index.readable, words == RELABEL
    reviewed: NDArray[Any] = np.full(len(index), None, object)
    if index.has_reviews:
        reviewed[:] = index.table["reviewed"].to_pylist()
    again = sum(word is not None for word in reviewed[rows])
    reviewed[rows] = words
    labels = index.labels()
    labels[rows[relabelled]] = targets[relabelled]
    marks = pa.array(reviewed, pa.string())
    is_clean = overrule(before, marks, readable)
    table = _put(index.table, "label", _names(labels, index.class_names))
    table = _put(table, "is_clean", pa.array(is_clean))
    table = _put(table, "reviewed", marks)
    table = _put(table, "label_given", _names(index.scored_labels(), index.class_names))
    counts = Counter(words.tolist())
    summary = ReviewSummary(
        right=counts[RIGHT],
        relabel=counts[RELABEL],
        drop=counts[DROP],
        overruled=int((before != is_clean).sum()),
        again=again,
        unreadable=int((~readable[rows] & (words != DROP)).sum()),
    )
    return table, summary


def _put(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """Replace a column in its place, or append it."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


def _names(indices: NDArray[np.int64], class_names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), pa.array(class_names, pa.string()))
