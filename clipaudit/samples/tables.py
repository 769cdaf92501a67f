"""Tables on disk (CSV, TSV, JSONL, Parquet) as a stream of rows that know where they stand."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clipaudit.errors import SourceError, UsageError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
PATH_COLUMNS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "img",
    "id",
)
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "y")


def pick_column(path: Path, columns: Sequence[str], wanted: str | None, usual: Sequence[str], role: str) -> str:
    """The column that plays `role` ("path", "label", ...): the wanted one, else the first of the usual names.

    Raises:
        SourceError: there is no such column; the message lists those there are.
    """
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise SourceError(f"{path} has no column {wanted!r}. Its columns: {', '.join(columns)}.")
    by_lower = {column.strip().lower(): column for column in columns}
    for name in usual:
        if name in by_lower:
            return by_lower[name]
    raise SourceError(
        f"{path} has no {role} column that clipaudit recognises. Its columns: {', '.join(columns)}."
        f" Say which one it is with --{role}-column."
    )


def table_columns(path: Path) -> list[str]:
    """The column names of a CSV, TSV, JSONL or Parquet table (of JSONL: the keys of its first line)."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return list(open_parquet(path).schema_arrow.names)
    if suffix == ".jsonl":
        return next((list(row) for _, row in _json_rows(path, ())), [])
    if suffix in (".csv", ".tsv"):
        for _, fields in _csv_lines(path):
            if len(set(fields)) < len(fields):
                raise SourceError(f"{path}, line 1: two columns have the same name. Columns: {', '.join(fields)}.")
            return fields
        raise SourceError(f"{path} is empty: its first line must name the columns.")
    raise UsageError(f"{path} is not a table that clipaudit reads: use one of {', '.join(TABLE_SUFFIXES)}.")


def table_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a table with the wanted columns, each with words for where it stands ("data.csv, line 7").

    Raises:
        SourceError: a row that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path, columns)
    return _json_rows(path, columns) if suffix == ".jsonl" else _csv_rows(path)


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = _csv_lines(path)
    _, header = next(lines)
    for where, fields in lines:
        if len(fields) != len(header):
            raise SourceError(
                f"{where}: {len(fields)} fields where the header has {len(header)}."
                " Quote fields that contain the separator."
            )
        yield where, dict(zip(header, fields, strict=True))


def _csv_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    with _open_text(path) as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                raise SourceError(f"{path}, line {reader.line_num + 1}: {_text_fault(error)}") from None
            if fields:
                yield f"{path}, line {reader.line_num}", fields


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    with _open_text(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                where = f"{path}, line {number}"
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise SourceError(f"{where}: not a JSON object.")
                if absent := [column for column in columns if column not in row]:
                    raise SourceError(f"{where}: no field {absent[0]!r}.")
                yield where, row
        except (json.JSONDecodeError, RecursionError) as error:
            raise SourceError(f"{path}, line {number}: not valid JSON ({error}).") from None
        except UnicodeDecodeError as error:
            raise SourceError(f"{path}, line {number + 1}: {_text_fault(error)}") from None


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa

    number = 0
    try:
        for batch in open_parquet(path).iter_batches(columns=list(columns)):
            for row in batch.to_pylist():
                yield f"{path}, row {number}", row
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}, after row {number}: damaged Parquet ({error}).") from None


def open_parquet(path: Path) -> Any:
    """The file as a `pyarrow.parquet.ParquetFile`; SourceError where it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} is not a readable Parquet file: {error}") from None


def _open_text(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}.") from None


def _text_fault(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text. Save the file as UTF-8."
    return f"not a valid table ({error})."
