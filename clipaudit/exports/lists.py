"""The clean samples alone: their paths as `.txt`, their row numbers as `.npy`, or a folder of links to them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from clipaudit.errors import UsageError
from clipaudit.exports.base import Format
from clipaudit.files import write_atomically
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.links import link_images
from clipaudit.samples.base import FILES
from clipaudit.samples.reader import access_of


def _write_paths(index: CleanIndex, path: Path) -> list[str]:
    """The paths of the clean images; where they are no files of their own, their ids, which no path leads to."""
    column = "path" if access_of(index.metadata) == FILES else "id"
    names = index.table[column].filter(index.table["is_clean"]).to_pylist()
    if any(len(name.splitlines()) > 1 for name in names):
        raise UsageError(
            f"{path}: a path contains a line break, which a list of lines cannot hold. Export .jsonl instead."
        )
    write_atomically(path, "".join(f"{name}\n" for name in names).encode())
    return []


def _write_rows(index: CleanIndex, path: Path) -> list[str]:
    buffer = io.BytesIO()
    np.save(buffer, index.clean_indices.astype(np.int64), allow_pickle=False)
    write_atomically(path, buffer.getvalue())
    return []


TXT = Format("txt", ".txt", "clean paths", _write_paths)
NPY = Format("npy", ".npy", "clean row numbers", _write_rows)
LINKS = Format("links", "", "a folder of links", link_images)
