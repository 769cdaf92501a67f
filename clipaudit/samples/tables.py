"""The one way to read tables (CSV, TSV, JSONL, Parquet): a stream of rows that know where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from clipaudit.errors import SourceError, UsageError
from clipaudit.files import require_file
from clipaudit.samples.arrow_files import ArrowTable
from clipaudit.samples.parquet_tables import ParquetTable, open_parquet
from clipaudit.samples.text_tables import DelimitedTable, JsonTable
from clipaudit.spelling import normalise

__all__ = [
    "LABEL_COLUMNS",
    "PATH_COLUMNS",
    "TABLE_SUFFIXES",
    "Table",
    "listed",
    "open_parquet",
    "open_table",
    "pick_column",
    "same_column",
    "table_rows",
]

PATH_COLUMNS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_name",
    "img",
    "img_path",
    "id",
)
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "y", "labels")
COLUMNS_LISTED = 20


class Table(Protocol):
    """A table whose columns are known and whose rows are still on disk."""

    path: Path
    columns: list[str]
    """As the file spells them."""
    texts: list[str]
    """Those of the columns that may hold text."""
    form: str
    """How it was read, in words: "truth.csv, separated by semicolons"."""

    def rows(self, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each row with the wanted columns, and words for where it stands ("truth.csv, line 7").

        A row of JSON may lack an optional column, which is None then.

        Raises:
            SourceError: a row that cannot be read.
        """
        ...


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": DelimitedTable,
    ".tsv": DelimitedTable,
    ".jsonl": JsonTable,
    ".parquet": ParquetTable,
    ".arrow": ArrowTable,
}
TABLE_SUFFIXES = tuple(_READERS)


def open_table(path: Path) -> Table:
    """Recognise a table by its ending and read what its columns are.

    Text is UTF-8, or UTF-16 with a byte order mark. Columns of CSV and TSV files are separated by `,` `;` `|` or tabs:
    the one that splits the first line.

    Raises:
        SourceError: there is no such file, it is no regular file, or it is damaged.
        UsageError: another ending.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} is not a table that clipaudit reads: use one of {', '.join(TABLE_SUFFIXES)}.")
    try:
        require_file(path, SourceError)
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist.") from None
    return reader(path)


def table_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of `open_table(path)`."""
    return open_table(path).rows(columns)


def pick_column(
    path: Path, columns: Sequence[str], wanted: str | None, usual: Sequence[str], role: str, remedy: str | None = None
) -> str:
    """The column that plays `role` ("path", "label", ...): the wanted one, else the first of the usual names.

    Names are compared without case, blanks, `_` and `-`, where no column has just that name.

    Raises:
        SourceError: there is no such column, or there are two; the message lists those there are.
    """
    for name in [wanted] if wanted is not None else usual:
        exact = [column for column in columns if column == name]
        found = exact if wanted is not None and exact else [column for column in columns if same_column(column, name)]
        if len(found) > 1:
            raise SourceError(f"{path}: two columns have the same name, {name!r}. Columns: {listed(columns)}.")
        if found:
            return found[0]
    if wanted is not None:
        raise SourceError(f"{path} has no column {wanted!r}. Its columns: {listed(columns)}.")
    hint = " Columns are separated by , ; | or tabs." if len(columns) == 1 else ""
    raise SourceError(
        f"{path} has no {role} column that clipaudit recognises. Its columns: {listed(columns)}."
        f"{hint} {remedy or f'Say which one it is with --{role}-column.'}"
    )


def same_column(column: str, name: str) -> bool:
    """Whether two column names differ at most in case, Unicode form, blanks, `_` and `-`."""
    return normalise(column) == normalise(name)


def listed(columns: Sequence[str]) -> str:
    """Column names for a message, of which there may be many and long ones."""
    shown = [name if len(name) <= COLUMNS_LISTED * 2 else f"{name[: COLUMNS_LISTED * 2]}..." for name in columns]
    return ", ".join(shown[:COLUMNS_LISTED]) + (", ..." if len(shown) > COLUMNS_LISTED else "")
