"""Tables in Parquet: only the columns that are needed, in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clipaudit.errors import SourceError
from clipaudit.files import require_file
from clipaudit.remote import library_input
from clipaudit.table_limit import GIGABYTE, how_to_lift, table_limit

# A kilobyte of run lengths may stand for gigabytes. Ten million rows with a path and a label stay below this.
LIMIT = GIGABYTE
ROWS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 1 << 26
# What a value costs at least once it is a Python object.
_BYTES_A_VALUE = 16


class ParquetTable:
    """The columns of a Parquet file that hold single values."""

    kind = "Parquet"

    def __init__(self, path: Path) -> None:
        self.path = path
        schema = self._open().schema_arrow
        self.columns: list[str] = list(schema.names)
        self.form = f"{path.name}, {self.kind}"
        self._types = dict(zip(schema.names, schema.types, strict=True))
        self.texts = [name for name in self.columns if _holds_text(self._types[name])]

    def rows(self, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each row with the wanted columns, and where it stands."""
        import pyarrow as pa

        names = [*columns, *optional]
        for name in names:
            kind = self._types[name]
            if pa.types.is_nested(kind) or pa.types.is_duration(kind) or pa.types.is_interval(kind):
                raise SourceError(f"{self.path}, row 0: column {name!r} holds {kind}, not text or numbers.")
        batches, first = self._batches(names), 0
        while (batch := _next(batches, self.path, first)) is not None:
            values = [_values(batch.column(name), name, self.path, first) for name in names]
            for number, row in enumerate(zip(*values, strict=True), start=first):
                yield f"{self.path}, row {number}", dict(zip(names, row, strict=True))
            first += batch.num_rows

    def _open(self) -> Any:
        return open_parquet(self.path)

    def _batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Record batches of bounded size."""
        parquet = open_parquet(self.path, [name for name in names if _is_long(self._types[name])])
        width = _refuse_too_large(self.path, parquet, {name: self._types[name] for name in names})
        batches: Iterator[Any] = parquet.iter_batches(min(ROWS_AT_ONCE, max(1, _BYTES_AT_ONCE // width)), columns=names)
        return batches


def open_parquet(path: Path, as_dictionary: Sequence[str] = (), *, buffer: int = 0) -> Any:
    """The file as a `pyarrow.parquet.ParquetFile`; SourceError where it is none.

    Args:
        path: A regular file.
        as_dictionary: Columns of text to be read with each distinct value once, however often it comes.
        buffer: How many bytes of a column are read and held at once; 0 leaves that to Arrow.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_file(path, SourceError)
    try:
        # Arrow reads ahead otherwise, and keeps every row group that it has read.
        reading = {"buffer_size": buffer, "pre_buffer": False} if buffer else {}
        file = pq.ParquetFile(library_input(path), read_dictionary=list(as_dictionary), **reading)
        _ = file.schema_arrow.names  # A schema may be damaged where the rest is not.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path} is not a readable Parquet file: {error}") from None
    return file


def _holds_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_long(kind: Any) -> bool:
    import pyarrow as pa

    return any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    )


def _refuse_too_large(path: Path, parquet: Any, types: dict[str, Any]) -> int:
    """Bytes of a row of fixed width; SourceError where all rows need more than the limit."""
    metadata, schema = parquet.metadata, parquet.schema
    width = sum(max(_fixed_width(kind), _BYTES_A_VALUE) for kind in types.values())
    wanted = [number for number in range(len(schema)) if schema.column(number).path in types]
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    stored = sum(group.column(number).total_uncompressed_size for group in groups for number in wanted)
    needed, limit = metadata.num_rows * width + stored, table_limit(path, LIMIT)
    if needed > limit:
        raise SourceError(
            f"{path} has {metadata.num_rows:,} rows that take {needed / GIGABYTE:.1f} GB in the columns"
            f" {', '.join(types)}, over the limit of {limit / GIGABYTE:g} GB for a table."
            f" {how_to_lift(needed)}"
        )
    return width


def _fixed_width(kind: Any) -> int:
    try:
        return int(kind.bit_width) // 8
    except ValueError:
        return 0


def _next(batches: Iterator[Any], path: Path, row: int) -> Any:
    import pyarrow as pa

    try:
        return next(batches, None)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise SourceError(f"{path}, after row {row}: damaged ({error}).") from None


def _values(column: Any, name: str, path: Path, first: int) -> list[Any]:
    """The values of a batch's column as Python objects; SourceError naming the row of one that is none."""
    import pyarrow as pa

    if isinstance(column, pa.DictionaryArray):
        # Each distinct text once, not once a row.
        known = _values(column.dictionary, name, path, first)
        return [None if number is None else known[number] for number in column.indices.to_pylist()]
    try:
        return list(_plain(column).to_pylist())
    except (pa.ArrowException, ValueError, OverflowError):
        pass
    for place in range(len(column)):
        try:
            _plain(column.slice(place, 1)).to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise SourceError(f"{path}, row {first + place}: column {name!r} has no valid value ({error}).") from None
    raise SourceError(f"{path}, rows from {first}: column {name!r} cannot be read.")


def _plain(column: Any) -> Any:
    """Dates and times as text: as Python objects they know no nanoseconds and no years beyond 9999."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if not pa.types.is_temporal(column.type):
        return column
    text = column.cast(pa.string())
    if pc.any(pc.starts_with(text, "<value out of range")).as_py():
        raise ValueError("a date or time that is out of range")
    return text
