"""Files that appear whole or not at all, and that are read or replaced only where they are files."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.remote import RemotePath, to_path

# The most bytes that a file's name may have on the usual file systems.
NAME_BYTES = 255
# A temporary file of another machine is in use for no longer.
_DAY = 24 * 60 * 60
# What a run folder holds of its own (besides *.safetensors): a report or predictions may lie beside it.
_RUN_FILES = frozenset({"run.json", "metrics.jsonl", "curve.svg", "labels.parquet", "README.md"})
_CHUNK = 1 << 24
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
    return kind_of(path.stat())


def kind_of(status: os.stat_result) -> str | None:
    """The same by the path's status, for who knows it already."""
    mode = status.st_mode
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
        data = read_at_most(path, limit)
    except OSError as error:
        raise fault(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(data) > limit:
        raise fault(f"{path} is larger than {limit:,} bytes, the most that clipaudit reads of such a file.")
    return data


def read_at_most(path: Path, limit: int) -> bytes:
    """The bytes of a file up to `limit` and one more, by which a larger file is known. Its size may lie.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(path, RemotePath):
        return path.read_range(0, limit + 1)
    with path.open("rb") as file:
        # Asking for `limit` bytes at once would reserve the memory for them.
        data = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
        while len(data) <= limit and (more := file.read(min(_CHUNK, limit + 1 - len(data)))):
            data += more
    return data


def check_output(path: str | Path, inputs: Iterable[str | Path | None] = ()) -> None:
    """Refuse a file that cannot be written, or that should not be, before any work is done.

    Args:
        path: The file to write. It need not exist, nor need its folders.
        inputs: What the same call reads or writes, too; a table may be `FILE:COLUMN`. None is passed over.

    Raises:
        UsageError: the name is empty or too long; it leads to a folder, device or pipe; a parent is a file; it is one
            of the inputs, or belongs to an embeddings cache or a run.
        ClipAuditError: its folder may not be written.
    """
    path = to_path(path)
    final, _ = _place(path)
    _refuse(path, final, inputs)


def check_folder(path: str | Path, inputs: Iterable[str | Path | None] = (), *, new: bool = True) -> None:
    """Refuse a folder that cannot be made, before any work is done; arguments and errors as `check_output`.

    Raises:
        ClipAuditError: it should be `new`, and something of that name exists.
    """
    path = to_path(path)
    final = _resolve(path)
    if new and (path.exists() if isinstance(path, RemotePath) else os.path.lexists(path)):
        raise ClipAuditError(f"{path} exists already. Remove it, or name a new folder.")
    _refuse(path, final, inputs)
    if final.exists() and not final.is_dir():
        raise UsageError(f"{path} is not a folder. Name another place.")


def check_images(path: str | Path, ids: Iterable[str], root: str | Path) -> None:
    """Refuse an output that would replace an image, or a Parquet file of images, that `ids` below `root` name.

    Raises:
        UsageError: it would.
    """
    place, home = to_path(path), to_path(root)
    if not place.exists():
        return
    names = {place.resolve().as_posix()}
    with suppress(ValueError):
        names.add(_relative(place.resolve(), home.resolve()))
    if any(name in names or name.rpartition("#")[0] in names for name in ids):
        raise UsageError(f"{path} holds images of this data set. Name another file.")


def write_atomically(path: Path, write: bytes | Callable[[BinaryIO], None]) -> None:
    """Write a file beside its place, flush it to the disk and rename it: a reader never sees half of it.

    A link stays, and the file that it leads to is replaced. A file that is replaced keeps its mode and owner.

    Args:
        path: The final place; an existing file is replaced, missing folders are made.
        write: The content, or a function that writes it to the open file that it is given.

    Raises:
        UsageError: the place is a folder, a device or a pipe, or its name cannot be one.
        ClipAuditError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    path = to_path(path)
    final, held = _place(path)
    if isinstance(final, RemotePath):
        try:
            final.upload(write)
        except OSError as error:
            raise cannot_write(path, error) from None
        return
    beside = temporary(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        # What is private stays private while it is written.
        beside.touch(mode=0o666 if held is None else 0o600, exist_ok=False)
        # An open file, for pyarrow opens no path that is not UTF-8.
        with beside.open("wb") as file:
            if callable(write):
                write(file)
            else:
                file.write(write)
            file.flush()
            os.fsync(file.fileno())
        if held is not None:
            _take_over(held, beside)
        beside.replace(final)
        _flush_folder(final.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            beside.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: what is put into the one that is given.

    Raises:
        UsageError, ClipAuditError: as `check_folder`, or the disk is full; nothing is left behind.
    """
    check_folder(path)
    if isinstance(path, RemotePath):
        yield from _uploaded_folder(path)
        return
    beside = temporary(_resolve(path))
    try:
        beside.mkdir(parents=True)
        yield beside
        beside.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _uploaded_folder(path: RemotePath) -> Iterator[Path]:
    """A local folder whose files are uploaded once all of them are there."""
    with tempfile.TemporaryDirectory(prefix="clipaudit-") as name:
        yield Path(name)
        try:
            for file in sorted(Path(name).rglob("*")):
                if file.is_file():
                    path.joinpath(file.relative_to(name).as_posix()).upload_file(file)
        except OSError as error:
            raise cannot_write(path, error) from None


def _relative(path: Path, root: Path) -> str:
    """The path as an id below a root has it; ValueError where one of them is on another machine than the other."""
    if isinstance(path, RemotePath) or isinstance(root, RemotePath):
        return path.relative_to(root).as_posix()
    return Path(os.path.relpath(path, root)).as_posix()


def temporary(path: Path) -> Path:
    """The place beside `path` where this process writes it first: `NAME.HOST.PID.tmp`, NAME cut where it is long."""
    host = re.sub(r"[^0-9A-Za-z-]", "-", socket.gethostname())[:48]
    ending = f".{host}.{os.getpid()}.tmp"
    name = os.fsencode(path.name)[: NAME_BYTES - len(ending)]
    return path.with_name(os.fsdecode(name) + ending)


def cannot_write(path: Path, error: OSError) -> ClipAuditError:
    """The error that explains why `path` was not written."""
    remedies = {
        errno.ENOSPC: "Free some space",
        errno.EDQUOT: "Free some space",
        errno.EROFS: "The file system is read-only: name another place",
    }
    remedy = remedies.get(error.errno or 0, "Check the folder's permissions")
    return ClipAuditError(f"{path} cannot be written: {error.strerror or error}. {remedy} and run again.")


def _place(path: Path) -> tuple[Path, os.stat_result | None]:
    """Where a file comes to lie, links resolved, and what lies there now; UsageError where no file can."""
    final = _resolve(path)
    try:
        held = path.stat()
    except OSError as error:
        if isinstance(path, RemotePath) and not isinstance(error, FileNotFoundError):
            raise cannot_write(path, error) from None
        if error.errno == errno.ELOOP:
            raise UsageError(f"{path} is a link that leads to itself. Remove it, or name another file.") from None
        return final, None  # Not there yet, or the parent says why it cannot be.
    if stat.S_ISDIR(held.st_mode):
        raise UsageError(f"{path} is a folder. Name a file, for example {path / 'NAME'}.")
    if not stat.S_ISREG(held.st_mode):
        raise UsageError(f"{path} is {_KINDS.get(stat.S_IFMT(held.st_mode), 'no regular file')}. Name a file.")
    return final, held


def _resolve(path: Path) -> Path:
    """The absolute path without links; UsageError for what cannot be a name."""
    if path.name in ("", ".."):
        raise UsageError(f"{str(path)!r} (or an empty name) is a folder that is there already. Give a name.")
    if isinstance(path, RemotePath):
        if path.is_read_only:
            raise UsageError(f"{path}: nothing can be written to the web. Name a file, or a place in a store.")
        return path
    try:
        final = Path(os.path.realpath(path))
        name = os.fsencode(final.name)
    except (ValueError, OSError) as error:
        raise UsageError(f"{str(path)!r} cannot be a file's name: {error}.") from None
    if len(name) > NAME_BYTES:
        raise UsageError(f"{path}: a file's name may have {NAME_BYTES} bytes, not {len(name):,}. Shorten it.")
    return final


def _same(final: Path, given: str) -> bool:
    """Whether an input, `FILE` or `FILE:COLUMN`, is the file `final`, under whatever name."""
    for name in (given, given.rpartition(":")[0]):
        if isinstance(final, RemotePath):
            if name and final == to_path(name):
                return True
            continue
        with suppress(OSError, ValueError):
            if name and (os.path.realpath(name) == str(final) or Path(name).samefile(final)):
                return True
    return False


def _refuse(path: Path, final: Path, inputs: Iterable[str | Path | None]) -> None:
    """Refuse a place that is needed, that belongs to a cache or run, or that cannot be made."""
    for given in inputs:
        if given is not None and _same(final, str(given)):
            raise UsageError(f"{path} is the same file as {given}, which this call needs. Name another one.")
    for folder in final.parents:
        with suppress(OSError):
            if (folder / "cache.json").is_file() and (folder / "parts").is_dir():
                raise UsageError(f"{path} lies inside the embeddings cache {folder}. Name a place outside of it.")
    own = final.name in _RUN_FILES or final.suffix == ".safetensors"
    if own and (final.parent / "run.json").is_file():
        raise UsageError(f"{path} is a file of the run in {final.parent}. Name another file.")
    _check_parent(path, final)


def _check_parent(path: Path, final: Path) -> None:
    """Refuse a place below something that is no folder, or below a folder that may not be written."""
    if isinstance(final, RemotePath):
        _check_bucket(path, final.bucket)
        return
    try:
        folder = next(parent for parent in final.parents if parent.exists())
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{path}: the path is too long. Shorten it.") from None
        raise cannot_write(path, error) from None
    if not folder.is_dir():
        raise UsageError(f"{path} cannot be made: {folder} is a file, not a folder. Name another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ClipAuditError(
            f"{path} cannot be written: {folder} may not be written. Check its permissions, or"
            " whether the file system is read-only."
        )


def _check_bucket(path: Path, bucket: RemotePath) -> None:
    """Refuse a place in a bucket that is not there, or that may not be looked at."""
    try:
        found = bucket.exists()
    except OSError as error:
        raise cannot_write(path, error) from None
    if not found:
        raise UsageError(f"{path} cannot be made: there is no {bucket}. Make the bucket, or name another place.")


def _take_over(held: os.stat_result, beside: Path) -> None:
    """Give a new file the owner (where that is allowed) and the mode of the one that it replaces."""
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(beside, held.st_uid, held.st_gid)
    beside.chmod(stat.S_IMODE(held.st_mode))


def _flush_folder(path: Path) -> None:
    if os.name == "nt":
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
    if isinstance(folder, RemotePath):
        return  # Uploads leave nothing behind.
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
