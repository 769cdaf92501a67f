"""`apply`: a person's marks on a clean index. A human's word beats every selector, and what was before stays known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.errors import SourceError, UsageError
from clipaudit.index import CleanIndex, overrule
from clipaudit.samples.tables import table_columns, table_rows

RIGHT, RELABEL, DROP = "right", "relabel", "drop"
MARKS = (RIGHT, RELABEL, DROP)
MARKS_COLUMNS = ("id", "mark", "label")


@dataclass(frozen=True)
class ReviewSummary:
    """What a file of marks did.

    Attributes:
        right, relabel, drop: Samples with each mark.
        overruled: Samples whose verdict is another one now.
        again: Samples that an earlier review had marked, too; the later word holds.
        unreadable: Samples marked right or relabelled whose image cannot be read: they stay out of the clean subset.
    """

    right: int
    relabel: int
    drop: int
    overruled: int
    again: int
    unreadable: int


@dataclass(frozen=True)
class _Mark:
    """One line of the file: the mark, the class index of the new label (-1: none), and where it stands."""

    mark: str
    label: int
    where: str


def apply_marks(index: CleanIndex, marks: str | Path) -> tuple[CleanIndex, ReviewSummary]:
    """Merge a person's marks into an index.

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
    said = _read_marks(path, index)
    rows = _rows_of(index, said)
    _refuse_contradictions(index, said, rows)
    words = np.array([mark.mark for mark in said.values()], object)
    targets = np.array([mark.label for mark in said.values()], np.int64)
    table, summary = _merge(index, rows, words, targets)
    review = {
        "file": path.name,
        "sha256": sha256(path.read_bytes()).hexdigest(),
        **{name: count for name, count in asdict(summary).items() if name in MARKS},
    }
    metadata = {**index.metadata, "reviews": [*index.metadata.get("reviews", ()), review]}
    return CleanIndex(table, metadata), summary


def _read_marks(path: Path, index: CleanIndex) -> dict[str, _Mark]:
    """The mark of each id, in the order of the file."""
    said: dict[str, _Mark] = {}
    for where, row in _rows(path):
        sample_id, mark = row["id"], _mark(row, index, where)
        earlier = said.setdefault(sample_id, mark)
        if (earlier.mark, earlier.label) != (mark.mark, mark.label):
            raise SourceError(f"{where}: {sample_id} has another mark in {earlier.where}. Keep one of the two.")
    if not said:
        raise SourceError(f"{path} holds no marks: there is nothing below the line that names the columns.")
    return said


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    columns = table_columns(path)
    by_name = {column.strip().lower(): column for column in columns}
    if missing := [name for name in MARKS_COLUMNS if name not in by_name]:
        raise SourceError(
            f"{path} has no column {missing[0]!r}. Marks have the columns {', '.join(MARKS_COLUMNS)};"
            f" the file has: {', '.join(columns)}."
        )
    wanted = [by_name[name] for name in MARKS_COLUMNS]
    for where, row in table_rows(path, wanted):
        values = ("" if row[column] is None else str(row[column]) for column in wanted)
        yield where, dict(zip(MARKS_COLUMNS, values, strict=True))


def _mark(row: Mapping[str, str], index: CleanIndex, where: str) -> _Mark:
    mark, label = row["mark"].strip().lower(), row["label"]
    if not row["id"]:
        raise SourceError(f"{where}: the id is missing.")
    if mark not in MARKS:
        raise SourceError(f"{where}: unknown mark {row['mark']!r}. Use one of: {', '.join(MARKS)}.")
    if not label.strip():
        if mark == RELABEL:
            raise SourceError(f"{where}: {RELABEL} needs a class in the column 'label'.")
        return _Mark(mark, -1, where)
    try:
        return _Mark(mark, index.class_index(label), where)
    except UsageError as error:
        raise SourceError(f"{where}: {error}") from None


def _rows_of(index: CleanIndex, said: Mapping[str, _Mark]) -> NDArray[np.int64]:
    """The index's row of each marked id."""
    row_of = {sample_id: row for row, sample_id in enumerate(index.table["id"].to_pylist())}
    unknown = [sample_id for sample_id in said if sample_id not in row_of]
    if unknown:
        raise SourceError(
            f"{said[unknown[0]].where}: the index has no sample {unknown[0]!r} ({len(unknown):,} of {len(said):,} ids"
            " are not in it). Apply marks to the index that they were made on."
        )
    return np.array([row_of[sample_id] for sample_id in said], np.int64)


def _refuse_contradictions(index: CleanIndex, said: Mapping[str, _Mark], rows: NDArray[np.int64]) -> None:
    """A label beside "right" or "drop" is no order to relabel; it may be there if it is the sample's own."""
    held = index.labels()[rows]
    for (sample_id, mark), label in zip(said.items(), held.tolist(), strict=True):
        if mark.mark != RELABEL and mark.label not in (-1, label):
            own, other = index.class_names[label], index.class_names[mark.label]
            raise SourceError(
                f"{mark.where}: {mark.mark!r} keeps the label of {sample_id}, which is {own!r} in the index, not"
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
