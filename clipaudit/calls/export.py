"""The clean index in the forms that other pipelines take."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from clipaudit.errors import UsageError
from clipaudit.files import check_folder, check_output, write_atomically
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.links import link_images
from clipaudit.options.arguments import typed
from clipaudit.text import escape_formulas

ENDINGS = (".csv", ".jsonl", ".txt", ".npy", "")


@typed
def export(index: CleanIndex, path: str | Path, *, raw: bool = False) -> list[str]:
    """Write an index in the form that the file's ending names.

    `.csv` and `.jsonl` hold all rows and columns; `.txt` the paths of the clean samples, one a line; `.npy` their row
    numbers (int64). A path without an ending becomes a folder with a link to each clean image, a subfolder a class.

    Args:
        index: From `select`, `read_index` or `apply_marks`.
        path: The file or folder; a file is replaced.
        raw: Of `.csv`: write text as it is. Otherwise a text that a spreadsheet would take for a formula (it begins
            with =, +, -, @ or a tab) gets an apostrophe in front, which all that reads tables in clipaudit undoes.

    Returns:
        What the user should know, in sentences: images that are gone, and have no link.

    Raises:
        UsageError: another ending; links to images that are rows of a Parquet file; a file that is needed, or that is
            no regular one.
        ClipAuditError: the file cannot be written, the folder exists, or no image is there to be linked.
    """
    path = Path(path)
    check_export(path, [index.file])
    kind = path.suffix.lower()
    if raw and kind != ".csv":
        raise UsageError(f"{path}: raw text is a choice for .csv alone; the other forms hold no formulas.")
    if not kind:
        return link_images(index, path)
    index.check_output(path)
    if kind == ".csv":
        table = index.table if raw else _without_formulas(index.table)
        write_atomically(path, lambda file: pyarrow.csv.write_csv(table, file))
    elif kind == ".jsonl":
        write_atomically(path, lambda file: _write_jsonl(index.table, file))
    else:
        write_atomically(path, _clean_paths(index, path) if kind == ".txt" else _clean_rows(index))
    return []


def check_export(path: str | Path, inputs: Iterable[str | Path | None] = ()) -> None:
    """Refuse an export that cannot be made, as far as its name tells, before any work is done.

    Args:
        path: As `export` takes it.
        inputs: What the same call reads or writes, too.

    Raises:
        UsageError, ClipAuditError: as `export`.
    """
    kind = Path(path).suffix.lower()
    if kind not in ENDINGS:
        raise UsageError(
            f"{path}: exports end in .csv, .jsonl, .txt (clean paths) or .npy (clean row numbers); a name"
            " without an ending makes a folder of links."
        )
    (check_output if kind else check_folder)(path, inputs)


def _without_formulas(table: pa.Table) -> pa.Table:
    """`escape_formulas` for every text in a table: a class may be called `=HYPERLINK("http://...")`."""

    def escaped(column: pa.ChunkedArray) -> pa.ChunkedArray:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return escape_formulas(column) if pa.types.is_string(column.type) else column

    return pa.table({name: escaped(table[name]) for name in table.column_names})


def _write_jsonl(table: pa.Table, file: BinaryIO) -> None:
    for batch in table.to_batches(max_chunksize=10_000):
        file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in batch.to_pylist())


def _clean_paths(index: CleanIndex, path: Path) -> bytes:
    paths = index.table["path"].filter(index.table["is_clean"]).to_pylist()
    if any(len(name.splitlines()) > 1 for name in paths):
        raise UsageError(
            f"{path}: a path contains a line break, which a list of lines cannot hold. Export .jsonl instead."
        )
    return "".join(f"{name}\n" for name in paths).encode()


def _clean_rows(index: CleanIndex) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, index.clean_indices.astype(np.int64), allow_pickle=False)
    return buffer.getvalue()
