"""The clean index in the forms that other pipelines take."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.json

from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.files import write_atomically
from clipaudit.index import CleanIndex


def export(index: CleanIndex, path: str | Path) -> None:
    """Write an index in the form that the file's ending names.

    `.csv` and `.jsonl` hold all rows and columns; `.txt` the paths of the clean samples, one a line; `.npy` their row
    numbers (int64). A path without an ending becomes a folder with a link to each clean image, a subfolder a class.

    Raises:
        UsageError: another ending, or links to images that are rows of a Parquet file.
        ClipAuditError: the file cannot be written, or the folder exists.
    """
    path = Path(path)
    writers: dict[str, Callable[[CleanIndex, Path], None]] = {
        ".csv": _write_csv,
        ".jsonl": _write_jsonl,
        ".txt": _write_paths,
        ".npy": _write_indices,
        "": _write_links,
    }
    if path.suffix.lower() not in writers:
        raise UsageError(
            f"{path}: exports end in .csv, .jsonl, .txt (clean paths) or .npy (clean row numbers); a name"
            " without an ending makes a folder of links."
        )
    writers[path.suffix.lower()](index, path)


def _write_csv(index: CleanIndex, path: Path) -> None:
    write_atomically(path, lambda beside: pyarrow.csv.write_csv(index.table, beside))


def _write_jsonl(index: CleanIndex, path: Path) -> None:
    import json

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8") as file:
            for batch in index.table.to_batches(max_chunksize=10_000):
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())

    write_atomically(path, write)


def _write_paths(index: CleanIndex, path: Path) -> None:
    paths = index.table["path"].filter(index.table["is_clean"]).to_pylist()
    if any("\n" in name for name in paths):
        raise UsageError(
            f"{path}: a path contains a line break, which a list of lines cannot hold. Export .jsonl instead."
        )
    write_atomically(path, "".join(f"{name}\n" for name in paths).encode())


def _write_indices(index: CleanIndex, path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, index.clean_indices.astype(np.int64), allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def _write_links(index: CleanIndex, folder: Path) -> None:
    if folder.exists():
        raise ClipAuditError(f"{folder} exists already. Name a new folder for the links.")
    clean = index.table.filter(index.table["is_clean"])
    paths, labels, ids = (clean[name].to_pylist() for name in ("path", "label", "id"))
    if any("#" in name and not Path(name).exists() for name in paths):
        raise UsageError(
            f"{folder}: the images are rows of a Parquet file, which cannot be linked. Export .txt or .npy."
        )
    beside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        for path, label, sample_id in zip(paths, labels, ids, strict=True):
            link = beside / _file_name(label) / _file_name(sample_id.removeprefix(f"{label}/"))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        beside.rename(folder)
    except OSError as error:
        raise ClipAuditError(f"{folder} cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _file_name(name: str) -> str:
    """A label or id as one file name: it must not lead out of its folder."""
    return name.replace("/", "__").replace("\\", "__").lstrip(".") or "_"
