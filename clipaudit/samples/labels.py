"""Columns that come from elsewhere (other labels, the truth) and class names, matched to the samples of an audit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.remote import to_path
from clipaudit.samples.base import label_name
from clipaudit.samples.matching import NONE, Match, Matcher, example_of
from clipaudit.samples.paths import path_pattern
from clipaudit.samples.tables import LABEL_COLUMNS, PATH_COLUMNS, Table, listed, open_table, pick_column, same_column
from clipaudit.samples.values import MAX_TEXT, is_missing, text_of, whole
from clipaudit.spelling import first_notes, looks_missing, tidy, united
from clipaudit.text import excerpt

ROW_ORDER = "row order"
_NUMBER = re.compile(r"[+-]?[0-9]+(\.0*)?")
_FILE = re.compile(r"[\\/]|\.[A-Za-z0-9]{2,5}\s*$")


class LabelReader:
    """Turns the cells of a label column into class names, the same way for every table.

    Args:
        names: Class names by class index, where the labels may be indices; None takes labels for class names.

    Attributes:
        spellings: The class name that each text was read as.
        places: Where each text was met first, if the class name looks like a missing label.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self._names, self._known = names, frozenset(names or ())
        self.spellings: dict[str, str] = {}
        self.places: dict[str, str] = {}

    def read(self, value: object, where: str) -> str:
        """The class name that a cell means.

        Raises:
            SourceError: the cell is empty, holds `nan`, `NaT` or `<NA>` though no class has such a name, or no label.
        """
        if isinstance(value, str) and value in self.spellings:
            return self.spellings[value]
        if isinstance(value, str) and tidy(value) not in self._known:
            label = label_name(None if is_missing(value) else whole(value), self._names, self._known, where)
        else:
            label = label_name(value, self._names, self._known, where)
        if isinstance(value, str):
            self.spellings[value] = label
            if looks_missing(label):
                self.places[value] = where
        return label


def label_notes(readers: Iterable[LabelReader]) -> list[str]:
    """What may not be meant in the label columns of one source: spellings of one class, labels that look missing."""
    groups: dict[str, dict[str, None]] = {}
    missing: dict[str, str] = {}
    for reader in readers:
        for spelling, label in reader.spellings.items():
            groups.setdefault(label, {})[spelling] = None
        for spelling, where in reader.places.items():
            missing.setdefault(reader.spellings[spelling], where)
    return [
        *united("labels", groups.values()),
        *first_notes(
            [f"{where}: the label {label!r} looks like a missing one" for label, where in missing.items()],
            "labels look missing",
        ),
    ]


@dataclass(frozen=True)
class Column:
    """One value a sample, in the samples' order, and how the rows of the table were matched to them.

    Attributes:
        values: A class name a sample.
        name: The column that they come from.
        matched_by: "path", "id" or "row order".
        said: The same in words: "column 'truth' of truth.csv, separated by semicolons, matched by path".
        notes: What had to be tolerated.
    """

    values: list[str]
    name: str
    matched_by: str
    said: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rows:
    """The labels of all rows, and the text of every column that may name a sample."""

    table: Table
    label_column: str
    labels: list[str] = field(default_factory=list)
    keys: dict[str, list[str | None]] = field(default_factory=dict)

    def name(self, number: int) -> str:
        """Where a row stands."""
        return next(islice(self.table.rows([self.label_column]), number, None))[0]


def read_column(
    spec: str | Path,
    ids: Sequence[str],
    root: Path,
    *,
    usual: Sequence[str] = LABEL_COLUMNS,
    names: Sequence[str] | None = None,
) -> Column:
    """Labels from `FILE[:COLUMN]`, one for each sample.

    Rows are matched by path or id, and there may be more of them than samples. Only where no column could be a path or
    an id there must be one row a sample, in the same order.

    Args:
        spec: The file (CSV, TSV, JSONL, Parquet), with the column's name behind a colon where it is not a usual one.
        ids: Sample ids, relative to `root`.
        root: The folder of the images.
        usual: Column names to look for where none is given.
        names: Class names, where the labels are class indices.

    Raises:
        SourceError: no such file or column, a missing label, a sample without a row or with two that contradict each
            other; paths of which none is that of a sample.
    """
    path, wanted = _split_spec(str(spec))
    table = open_table(path)
    remedy = f"Name it behind a colon: {path}:COLUMN."
    reader = LabelReader(names)
    rows = _read_rows(table, pick_column(path, table.columns, wanted, usual, "label", remedy), reader)
    matcher = Matcher(ids, root, path.resolve().parent)
    column, match = _best_match(rows, matcher, len(ids))
    said = f"column {rows.label_column!r} of {table.form}, matched by"
    if match is not None:
        matched_by = "id" if same_column(column, "id") else "path"
        values = _in_sample_order(rows, column, match, ids)
        notes = [*label_notes([reader]), *([f"{path.name}: rows matched {match.note}"] if match.note else [])]
        return Column(values, rows.label_column, matched_by, f"{said} {matched_by} in column {column!r}", tuple(notes))
    _refuse_row_order(rows, ids)
    return Column(rows.labels, rows.label_column, ROW_ORDER, f"{said} {ROW_ORDER}", tuple(label_notes([reader])))


def _read_rows(table: Table, label_column: str, reader: LabelReader) -> _Rows:
    """All labels, and the columns with a usual name for paths; where there is none, all that hold text."""
    others = [column for column in table.columns if column != label_column and table.columns.count(column) == 1]
    usual = [column for name in PATH_COLUMNS for column in others if same_column(column, name)]
    columns = usual or [column for column in others if column in table.texts]
    rows = _Rows(table, label_column, keys={column: [] for column in columns})
    for where, row in table.rows([label_column], columns):
        rows.labels.append(reader.read(row[label_column], where))
        for column, keys in rows.keys.items():
            keys.append(_key(row[column], where))
    if not rows.labels:
        raise SourceError(f"{table.path} has no rows below its column names.")
    return rows


def _key(value: object, where: str) -> str | None:
    if isinstance(value, str):
        return None if is_missing(value) else value
    return text_of(value, "id", where) if isinstance(value, int | float | bytes) and not is_missing(value) else None


def _best_match(rows: _Rows, matcher: Matcher, n_samples: int) -> tuple[str, Match | None]:
    """The column whose cells mean the most samples, and which; None where no column's do."""
    best: tuple[str, Match | None] = "", None
    for column, keys in rows.keys.items():
        match = matcher.match(keys, loosely=_has_usual_name(column) or _looks_like_paths(keys))
        # Numbers are names of samples only if all samples have one: `7` may be a row or a person as well.
        needed = n_samples if _is_numeric(keys) else 1
        if match.n_samples >= needed and (best[1] is None or match.n_samples > best[1].n_samples):
            best = column, match
    return best


def _in_sample_order(rows: _Rows, column: str, match: Match, ids: Sequence[str]) -> list[str]:
    row_of = [NONE] * len(ids)
    for row, number in enumerate(match.numbers):
        if number == NONE:
            continue
        if row_of[number] != NONE and rows.labels[row_of[number]] != rows.labels[row]:
            first, second = rows.labels[row_of[number]], rows.labels[row]
            raise SourceError(
                f"{rows.name(row)}: {ids[number]} has the label {second!r} here, but {first!r} in"
                f" {rows.name(row_of[number])}. Keep one of the two rows."
            )
        row_of[number] = row
    without = [ids[number] for number, row in enumerate(row_of) if row == NONE]
    if without:
        keys = rows.keys[column]
        raise SourceError(
            f"{rows.table.path} has no row for {without[0]} ({len(without):,} of {len(ids):,} images have none in"
            f" column {column!r}). Every image needs one. A row without image: {example_of(keys, match.numbers)}."
        )
    return [rows.labels[row] for row in row_of]


def _refuse_row_order(rows: _Rows, ids: Sequence[str]) -> None:
    """Only where nothing could name a sample the order of the rows may be that of the samples."""
    path = rows.table.path
    for column, keys in rows.keys.items():
        if any(keys) and not _is_numeric(keys) and (_has_usual_name(column) or _looks_like_paths(keys)):
            named = [key for key in keys if key]
            pattern = path_pattern(named)
            raise SourceError(
                f"{path}: column {column!r} could name the images, but none of its values is one: {excerpt(named[0])}"
                f" there, {excerpt(ids[0]) if ids else 'none'} in the audit{f' ({pattern})' if pattern else ''}."
                " Write paths or ids of the audit, or remove the column to match row by row."
            )
        if _has_usual_name(column) and _is_numeric(keys) and not _ascends(keys):
            raise SourceError(
                f"{path}: column {column!r} holds numbers in no order, so that the rows may be in another order than"
                f" the images. Add a column of paths or ids, such as {excerpt(ids[0]) if ids else 'a path'}."
            )
    if len(rows.labels) != len(ids):
        raise SourceError(
            f"{path} has {len(rows.labels):,} rows for {len(ids):,} images and no path column to match them by"
            f" (columns: {listed(rows.table.columns)}). Add a path column, or give one row an image in the order of the"
            " source."
        )


def _has_usual_name(column: str) -> bool:
    return any(same_column(column, name) for name in PATH_COLUMNS)


def _is_numeric(keys: Sequence[str | None]) -> bool:
    return all(key is None or _NUMBER.fullmatch(key.strip()) for key in keys)


def _ascends(keys: Sequence[str | None]) -> bool:
    numbers = [float(key) for key in keys if key is not None]
    return all(first < second for first, second in pairwise(numbers))


def _looks_like_paths(keys: Sequence[str | None]) -> bool:
    texts = [key for key in keys if key is not None]
    return sum(_FILE.search(text) is not None for text in texts) * 2 > len(texts)


def _split_spec(spec: str) -> tuple[Path, str | None]:
    """The file and the column of `FILE:COLUMN`; the file's name may have colons, too, and so may the column's."""
    if _exists(spec):
        return to_path(spec), None
    for place in (place for place in range(len(spec) - 1, 0, -1) if spec[place] == ":"):
        if _exists(spec[:place]):
            return to_path(spec[:place]), spec[place + 1 :]
    raise SourceError(f"{spec[:MAX_TEXT]} does not exist. Give a table as FILE or FILE:COLUMN.")


def _exists(path: str) -> bool:
    try:
        return to_path(path).exists()
    except (OSError, ValueError):
        return False  # Too long, or with a NUL: certainly no file.
