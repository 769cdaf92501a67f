"""All rows and columns: `.csv` and `.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv

from clipaudit.exports.base import BATCH, Format
from clipaudit.files import write_atomically
from clipaudit.index.clean_index import CleanIndex
from clipaudit.text import escape_formulas


def write_csv(index: CleanIndex, path: Path, *, raw: bool = False) -> list[str]:
    """All rows as CSV; without `raw`, no text is a formula to a spreadsheet."""
    table = index.table if raw else _without_formulas(index.table)
    write_atomically(path, lambda file: pyarrow.csv.write_csv(table, file))
    return []


def _without_formulas(table: pa.Table) -> pa.Table:
    """`escape_formulas` for every text in a table: a class may be called `=HYPERLINK("http://...")`."""

    def escaped(column: pa.ChunkedArray) -> pa.ChunkedArray:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return escape_formulas(column) if pa.types.is_string(column.type) else column

    return pa.table({name: escaped(table[name]) for name in table.column_names})


def _write_jsonl(index: CleanIndex, path: Path) -> list[str]:
    def write(file: BinaryIO) -> None:
        for batch in index.table.to_batches(max_chunksize=BATCH):
            file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in batch.to_pylist())

    write_atomically(path, write)
    return []


CSV = Format("csv", ".csv", "all rows", write_csv)
JSONL = Format("jsonl", ".jsonl", "all rows", _write_jsonl)
