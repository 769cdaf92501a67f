"""CSV and TSV in which a spreadsheet finds no formula: a class may be called `=HYPERLINK("http://...")`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from clipaudit.text import FORMULA


def write_csv(table: pa.Table, path: Path, *, separator: str = ",", raw: bool = False) -> None:
    """Write a table; in its texts, as `escape_formula` has it, unless they shall stay `raw`."""
    if not raw:
        columns = {name: _escaped(table[name]) for name in table.column_names}
        table = pa.table(columns)
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter=separator))


def _escaped(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not pa.types.is_string(column.type):
        return column
    return pc.replace_substring_regex(column, rf"\A({FORMULA})", r"'\1")
