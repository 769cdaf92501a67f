"""One file of vectors with the table that names and labels them: themselves in Parquet, or `.npy` beside a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from clipaudit.errors import SourceError
from clipaudit.samples.base import SourceOptions
from clipaudit.samples.labels import LabelReader
from clipaudit.samples.parquet import hub_class_names
from clipaudit.samples.tables import LABEL_COLUMNS, PATH_COLUMNS, open_parquet, open_table, pick_column, same_column
from clipaudit.samples.values import is_missing, text_of
from clipaudit.text import excerpt

# Paths first: they lead to the images, where there are any.
ID_COLUMNS = (*PATH_COLUMNS, "key", "uid", "sample_id", "__key__")


class Numbers(Protocol):
    """The vectors of one file."""

    path: Path
    n_rows: int
    dimension: int
    said: str

    def batches(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The number of the first row of each batch, and its (m, d) rows; SourceError naming a bad row."""
        ...


@dataclass(frozen=True)
class VectorFile:
    """Vectors, and what names and labels them.

    Attributes:
        vectors: The numbers.
        table: The Parquet file with a row a vector; None where there is none.
        id_column: Its column with the ids; None takes file and row.
        label_column: Its column with the labels; None where there is none.
        label_names: What its label numbers mean, where it says so itself.
    """

    vectors: Numbers
    table: Path | None = None
    id_column: str | None = None
    label_column: str | None = None
    label_names: Sequence[str] | None = None

    @property
    def path(self) -> Path:
        """The file with the vectors."""
        return self.vectors.path

    def where(self, row: int) -> str:
        """What an error calls a row."""
        return f"{self.path}, row {row:,}"

    def rows(self, labels: LabelReader) -> Iterator[tuple[str, str]]:
        """Id and label of each row; the label is empty where there is none at all.

        Raises:
            SourceError: an id or label that is missing or none, or a row of the table that cannot be read.
        """
        wanted = [column for column in (self.id_column, self.label_column) if column is not None]
        if self.table is None or not wanted:
            for number in range(self.vectors.n_rows):
                yield self._id(number), ""
            return
        for number, (where, row) in enumerate(open_table(self.table).rows(list(dict.fromkeys(wanted)))):
            label = "" if self.label_column is None else labels.read(row[self.label_column], where)
            named = self._id(number) if self.id_column is None else _id(row[self.id_column], where)
            yield named, label

    def _id(self, row: int) -> str:
        return f"{self.path.name}#{row}"


def with_table(vectors: Numbers, table: Path | None, options: SourceOptions) -> VectorFile:
    """A file of vectors with the columns of its table recognised.

    Raises:
        SourceError: the table has another number of rows, or lacks a column that was named.
    """
    if table is None:
        for role, wanted in (("path", options.path_column), ("label", options.label_column)):
            if wanted is not None:
                raise SourceError(f"{vectors.path} has no Parquet file beside it, and so no {role} column {wanted!r}.")
        return VectorFile(vectors)
    parquet = open_parquet(table)
    if parquet.metadata.num_rows != vectors.n_rows:
        raise SourceError(
            f"{vectors.path} holds {vectors.n_rows:,} vectors, and {table.name}, which should name them, has"
            f" {parquet.metadata.num_rows:,} rows. Write both again."
        )
    schema = parquet.schema_arrow
    single = [field.name for field in schema if _is_single(field.type)]
    id_column = _recognised(table, schema.names, single, options.path_column, ID_COLUMNS, "path")
    label_column = _recognised(table, schema.names, single, options.label_column, LABEL_COLUMNS, "label")
    names = None if label_column is None else hub_class_names(table, schema, label_column)
    return VectorFile(vectors, table, id_column, label_column, names)


def _recognised(
    table: Path, columns: Sequence[str], single: Sequence[str], wanted: str | None, usual: Sequence[str], role: str
) -> str | None:
    """The column of a role: the wanted one, or one with a usual name; None where there is none."""
    if wanted is None and not any(same_column(column, name) for column in single for name in usual):
        return None
    return pick_column(table, columns if wanted is not None else single, wanted, usual, role)


def _is_single(kind: Any) -> bool:
    """A type of single values that may be names."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    return any(test(kind) for test in (*tests, pa.types.is_boolean, pa.types.is_floating))


def _id(value: object, where: str) -> str:
    if is_missing(value):
        raise SourceError(f"{where}: the id is missing. Name every vector, or remove the row.")
    text = text_of(value, "id", where)
    if "\0" in text:
        raise SourceError(f"{where}: the id holds the character NUL: {excerpt(text)}.")
    return text
