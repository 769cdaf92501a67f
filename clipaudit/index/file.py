"""A clean index's table from its file, however damaged or hostile that is: page checksums hold, and so do bounds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipaudit.errors import IndexFileError
from clipaudit.files import require_file
from clipaudit.remote import library_input
from clipaudit.table_limit import GIGABYTE, how_to_lift, table_limit

REMEDY = "Use the file that clipaudit wrote, or make it again with: clipaudit select."
# Forty million samples stay below this. A kilobyte of run lengths may stand for more.
LIMIT = 8 * GIGABYTE
_ROWS_AT_ONCE = 1 << 16


def read_table(path: Path) -> pa.Table:
    """The table, with its schema's metadata.

    Raises:
        IndexFileError: there is no such file, it is no Parquet file, it is damaged, or it is larger than the limit.
    """
    try:
        require_file(path, IndexFileError)
        with pq.ParquetFile(library_input(path), page_checksum_verification=True) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
        _refuse_above_limit(path, n_rows * sum(map(_width, schema.types)))
        texts = [field.name for field in schema if _is_text(field.type)]
        # Each distinct text once, however often it comes.
        with pq.ParquetFile(library_input(path), page_checksum_verification=True, read_dictionary=texts) as file:
            table = _read(path, file, schema)
        table.validate(full=True)
    except FileNotFoundError:
        raise IndexFileError(f"{path} does not exist. Make a clean index with: clipaudit select --out {path}") from None
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        raise IndexFileError(f"{path} is not a readable Parquet file: {error}. {REMEDY}") from None
    return table


def _read(path: Path, file: pq.ParquetFile, schema: pa.Schema) -> pa.Table:
    tables, needed = [schema.empty_table()], 0
    for batch in file.iter_batches(_ROWS_AT_ONCE):
        needed += sum(map(_decoded_bytes, batch.columns))
        _refuse_above_limit(path, needed)
        tables.append(pa.Table.from_batches([batch]).cast(schema))
    return pa.concat_tables(tables)


def _decoded_bytes(column: pa.Array) -> int:
    if not pa.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return int(pc.sum(lengths).as_py() or 0) + 4 * len(column)


def _width(kind: pa.DataType) -> int:
    """Bytes of a value at least."""
    try:
        return max(int(kind.bit_width) // 8, 1)
    except ValueError:
        return 1


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _refuse_above_limit(path: Path, needed: int) -> None:
    limit = table_limit(path, LIMIT)
    if needed > limit:
        raise IndexFileError(
            f"{path} needs {needed / GIGABYTE:,.1f} GB of memory or more, over the limit of {limit / GIGABYTE:g} GB."
            f" {how_to_lift(needed)}"
        )
