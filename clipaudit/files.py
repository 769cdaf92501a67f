"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clipaudit.errors import ClipAuditError


def write_atomically(path: Path, write: bytes | Callable[[Path], None]) -> None:
    """Write a file beside its place, flush it to the disk and rename it: a reader never sees half of it.

    Args:
        path: The final place; an existing file is replaced, missing folders are made.
        write: The content, or a function that writes it to the path that it is given.

    Raises:
        ClipAuditError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(write):
            write(beside)
        else:
            beside.write_bytes(write)
        _flush(beside)
        beside.replace(path)
        _flush(path.parent)
    except OSError as error:
        remedy = "Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Check the folder's permissions"
        raise ClipAuditError(f"{path} cannot be written: {error.strerror or error}. {remedy} and run again.") from None
    finally:
        with suppress(OSError):
            beside.unlink()


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and needs no flush of its entries.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
