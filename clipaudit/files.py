"""Files that appear whole or not at all, and that are read only where they are files."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clipaudit.errors import ClipAuditError

# The most bytes that a file's name may have on the usual file systems.
_NAME_BYTES = 255
# A temporary file of another machine is in use for no longer.
_DAY = 24 * 60 * 60
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def irregular(path: Path) -> str | None:
    """What a path leads to in words ("a device"), if it is there and no regular file; links are followed.

    Opening such a path may hang for ever (a named pipe) or never end (`/dev/zero`), so ask first.

    Raises:
        OSError: nothing is there, or it cannot be looked at.
    """
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def require_file(path: Path, fault: type[ClipAuditError]) -> None:
    """Let through only a regular file that may be read.

    Raises:
        fault: nothing is there, it may not be read, or it is a folder, device or pipe. FileNotFoundError is left to the
            caller, who knows what to do about a missing file.
    """
    try:
        kind = irregular(path)
        if kind is None:
            with path.open("rb"):
                return
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise fault(f"{path} cannot be opened: {reason}. Check the path and its permissions.") from None
    raise fault(f"{path} is {kind}, not a file.")


def read_bounded(path: Path, limit: int, fault: type[ClipAuditError]) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; errors as `require_file`, and for a larger one."""
    require_file(path, fault)
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise fault(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(data) > limit:
        raise fault(f"{path} is larger than {limit:,} bytes, the most that clipaudit reads of such a file.")
    return data


def write_atomically(path: Path, write: bytes | Callable[[Path], None]) -> None:
    """Write a file beside its place, flush it to the disk and rename it: a reader never sees half of it.

    Args:
        path: The final place; an existing file is replaced, missing folders are made.
        write: The content, or a function that writes it to the path that it is given.

    Raises:
        ClipAuditError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    beside = temporary(path)
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


def temporary(path: Path) -> Path:
    """The place beside `path` where this process writes it first: `NAME.HOST.PID.tmp`, NAME cut where it is long."""
    host = re.sub(r"[^0-9A-Za-z-]", "-", socket.gethostname())[:48]
    ending = f".{host}.{os.getpid()}.tmp"
    name = os.fsencode(path.name)[: _NAME_BYTES - len(ending)]
    return path.with_name(os.fsdecode(name) + ending)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and needs no flush of its entries.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_stale(folder: Path) -> None:
    """Remove the temporary files in a folder that killed processes left: never one that may still be written.

    Those of this machine go when their process is gone; those of others, which share the folder, after a day.
    """
    _, host, own, _ = temporary(folder / "x").name.split(".")
    for file in folder.glob("*.tmp"):
        writer = file.name.split(".")[-3:-1]
        with suppress(OSError):
            here = len(writer) == 2 and writer[0] == host and writer[1].isdecimal()
            gone = here and writer[1] != own and not _is_running(int(writer[1]))
            if gone or time.time() - file.lstat().st_mtime > _DAY:
                file.unlink()


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # There, the question would end it.
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # Another user's.
    return True
