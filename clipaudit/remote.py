"""Paths in object storage and on the web (`s3://bucket/photos`, `https://host/photos.zip`), by fsspec.

A `RemotePath` is a `Path`, so that whoever lists, reads and writes files needs to know nothing of it. What it cannot do
is an OSError: nothing falls through to a local file of that name. Here is also all that is particular to far machines:
another try where one is busy, and messages that give no secret away.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cache
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, TypeVar

from clipaudit.errors import UsageError

if sys.platform == "win32":
    from pathlib import WindowsPath as _LocalPath
else:
    from pathlib import PosixPath as _LocalPath

# Images that are read at once: as many round trips are under way while the model works.
READERS = 32
# Of a file that is read from its beginning to its end, so much is asked for at once.
_BUFFER = 8 << 20
_TRIES, _FIRST_PAUSE, _GROWTH = 5, 0.2, 3.0
_MOST_TOLD = 200
# `Path` makes one slash of two; a scheme of one letter would be a drive.
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/{1,2}(?=[^/])(?P<rest>.*)", re.DOTALL)
_SECRET = re.compile(
    r"(?i)(?<![^\s/])[^/\s:@]+:[^/\s@]*@|[\w-]*(?:signature|token|secret|password|credential|key|sig)=[^&\s]*"
)
_KEY_ID = re.compile(r"\bA[A-Z]{3}[0-9A-Z]{16}\b")
# The libraries by the extra that brings them.
_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "azure"),
    **dict.fromkeys(("http", "https"), "http"),
}
_READ_ONLY = ("http", "https")
# Stores without folders, which are there with their first file.
_WITHOUT_FOLDERS = frozenset({*_EXTRAS, "memory"})
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_FAULTS = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 410: errno.ENOENT}
_BY_NAME = {"NoSuchKey": errno.ENOENT, "NoSuchBucket": errno.ENOENT, "AccessDenied": errno.EACCES}

Result = TypeVar("Result")
_kept: ContextVar[dict[str, list[RemoteEntry]] | None] = ContextVar("listings", default=None)


def to_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user wrote it: a `RemotePath` for the URL of a store that fsspec knows, else a local one.

    Raises:
        UsageError: an URL with a password or signature in it, which caches, indices and reports would show.
    """
    if isinstance(path, RemotePath):
        return path
    found = _URL.fullmatch(os.fspath(path))
    if found is None or not _is_known(found["scheme"]):
        return Path(path)
    url = f"{found['scheme']}://{found['rest']}"
    if _SECRET.search(url.partition("?")[0].split("/")[2]) or _SECRET.search(url.partition("?")[2]):
        raise UsageError(
            f"{without_secrets(url)} has a password, token or signature in it, which would be written into every cache"
            " and report. Give credentials as the store's own library takes them: by variables or its configuration."
        )
    return RemotePath(url)


def joined(root: Path, name: str) -> Path:
    """What a name means that was found below `root`: an URL or absolute path is itself, whatever the root."""
    path = to_path(name)
    return path if isinstance(path, RemotePath) or path.is_absolute() else root / name


def normal_path(path: Path) -> Path:
    """A path without `.` and `..`, links unread."""
    return path.normal() if isinstance(path, RemotePath) else Path(os.path.normpath(path))


def library_input(path: Path) -> Path | IO[bytes]:
    """A file as libraries take it that open files themselves: its path, or opened where they could not."""
    if not isinstance(path, RemotePath):
        return path
    if path.scheme in _READ_ONLY:
        # Asked here, for libraries take an error while they look around for a damaged file.
        path.read_range(1, 2)
    return path.open("rb")


@contextmanager
def listings_kept() -> Iterator[None]:
    """Inside, each folder is listed once: to recognise a source takes many looks at the same ones."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def is_remote(path: Path) -> bool:
    """Whether reading from it means asking another machine."""
    return isinstance(path, RemotePath)


@cache
def _is_known(scheme: str) -> bool:
    from fsspec.registry import available_protocols

    return scheme not in ("file", "local") and scheme in available_protocols()


@dataclass(frozen=True)
class RemoteEntry:
    """What a listing says of a file or folder, with as much of `os.DirEntry` as walks need."""

    name: str
    path: str
    status: os.stat_result

    def is_dir(self) -> bool:
        """Whether it is a folder, or what looks like one in a store without them."""
        return stat.S_ISDIR(self.status.st_mode)

    def is_symlink(self) -> bool:
        """Stores have no links."""
        return False

    def stat(self) -> os.stat_result:
        """Size and time, as they were listed."""
        return self.status


class RemotePath(_LocalPath):
    """A file or folder of another machine; reading and writing are whole or an OSError. Safe to use from threads."""

    def __str__(self) -> str:
        scheme, *rest = self.parts
        return f"{scheme}//{'/'.join(rest)}"

    def __fspath__(self) -> str:
        raise OSError(errno.ENOTSUP, "it lies on another machine, and this needs a local path", str(self))

    @property
    def scheme(self) -> str:
        """What is before the colon: "s3"."""
        return self.parts[0].removesuffix(":")

    @property
    def parents(self) -> list[Path]:  # type: ignore[override]
        """The folders around it, up to the bucket or host."""
        return [
            RemotePath(f"{self.scheme}://{'/'.join(self.parts[1:end])}") for end in range(len(self.parts) - 1, 1, -1)
        ]

    @property
    def bucket(self) -> RemotePath:
        """The bucket or host alone."""
        return RemotePath(f"{self.scheme}://{self.parts[1]}")

    def as_posix(self) -> str:
        """The URL."""
        return str(self)

    def is_absolute(self) -> bool:
        """It is."""
        return True

    def relative_to(self, other: Path, *_: Any) -> PurePosixPath:  # type: ignore[override]
        """What is behind a folder's URL; ValueError where the file is not below it."""
        return PurePosixPath(*self.parts).relative_to(PurePosixPath(*other.parts))

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        """Itself: there are no links."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind, size and time of the last change; other fields are 0."""
        return _status(self._ask(lambda store, key: store.info(key)))

    def exists(self, **_: bool) -> bool:
        """Whether there is a file or folder; an OSError where the store does not say."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_file(self, **_: bool) -> bool:
        """Whether there is a file."""
        return self._has_mode(stat.S_ISREG)

    def is_dir(self, **_: bool) -> bool:
        """Whether there is a folder."""
        return self._has_mode(stat.S_ISDIR)

    def is_symlink(self) -> bool:
        """Stores have no links."""
        return False

    def _has_mode(self, test: Callable[[int], bool]) -> bool:
        try:
            return test(self.stat().st_mode)
        except FileNotFoundError:
            return False

    def entries(self) -> list[RemoteEntry]:
        """What is directly in the folder."""
        kept = _kept.get()
        if kept is None:
            return self._list()
        if str(self) not in kept:
            kept[str(self)] = self._list()
        return kept[str(self)]

    def _list(self) -> list[RemoteEntry]:
        found = {}
        for info in self._ask(lambda store, key: store.ls(key, detail=True)):
            name = info["name"].split("?")[0].rstrip("/").rpartition("/")[2]
            # Some tools mark a folder by an empty file of its name.
            if name and info["name"].rstrip("/") != self._key.rstrip("/"):
                found[name] = RemoteEntry(name, str(self / name), _status(info))
        return list(found.values())

    def iterdir(self) -> Iterator[RemotePath]:  # type: ignore[override]
        """The paths of what is directly in the folder."""
        return (self / entry.name for entry in self.entries())

    def glob(self, pattern: str, **_: Any) -> Iterator[RemotePath]:  # type: ignore[override]
        """Those whose names match; where there is no such folder, none."""
        try:
            entries = self.entries()
        except FileNotFoundError:
            return iter(())
        return (self / entry.name for entry in entries if fnmatchcase(entry.name, pattern))

    def open(  # type: ignore[override]
        self,
        mode: str = "r",
        *_: Any,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """The file, to read it; it is written whole, by `upload`."""
        if set(mode) - set("rbt"):
            raise OSError(errno.ENOTSUP, "a file on another machine is written whole", str(self))
        binary = io.BufferedReader(_Stream(self), _BUFFER)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding or "utf-8", errors, newline)

    def read_bytes(self) -> bytes:
        """All of it."""
        return self._ask(lambda store, key: bytes(store.cat_file(key)))

    def read_range(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`, or to the end of the file if that comes first; in one round trip."""
        try:
            data = self._ask(lambda store, key: bytes(store.cat_file(key, start=start, end=stop)))
        except FileNotFoundError:
            raise
        except OSError:
            # Some servers answer so where nothing is left.
            if self.stat().st_size <= start:
                return b""
            raise
        if len(data) <= stop - start:
            return data
        if start:
            told = (
                "the server gives a file only whole, which does for an image, not for an archive or table: download it"
            )
            raise OSError(errno.ENOTSUP, told, str(self))
        return data[:stop]

    def upload(self, write: bytes | Callable[[BinaryIO], None]) -> None:
        """Replace it by what is given, or by what a function writes into the file that it is given."""
        if isinstance(write, bytes):
            self._ask(lambda store, key: store.pipe_file(key, write))
            return
        with tempfile.TemporaryDirectory(prefix="clipaudit-") as folder:
            local = Path(folder, "file")
            with local.open("wb") as file:
                write(file)
            self.upload_file(local)

    def upload_file(self, local: Path) -> None:
        """Replace it by a copy of a local file."""
        if self.scheme not in _WITHOUT_FOLDERS:
            self._ask(lambda store, key: store.makedirs(store._parent(key), exist_ok=True))
        self._ask(lambda store, key: store.put_file(str(local), key))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            self._ask(lambda store, key: store.rm_file(key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there with its first file."""

    def normal(self) -> RemotePath:
        """The same without `.` and `..`."""
        return RemotePath(f"{self.scheme}://{posixpath.normpath('/'.join(self.parts[1:]))}")

    @property
    def is_read_only(self) -> bool:
        """Nothing can be written there, whoever asks."""
        return self.scheme in _READ_ONLY

    @property
    def _key(self) -> str:
        return str(_store(self.bucket)._strip_protocol(str(self)))

    def _ask(self, question: Callable[[Any, str], Result]) -> Result:
        """The answer of the store; asked again where it is busy.

        Raises:
            OSError: whatever its library raised, without secrets.
            UsageError: that library is not installed.
        """
        store, key = _store(self.bucket), self._key
        for attempt in range(_TRIES):
            try:
                return question(store, key)
            except Exception as error:
                fault = _fault(error, str(self))
                if attempt == _TRIES - 1 or fault.errno not in (errno.EAGAIN, errno.EIO):
                    raise fault from None
            time.sleep(_FIRST_PAUSE * _GROWTH**attempt)
        raise AssertionError("the last try returns or raises")


class _Stream(io.RawIOBase):
    """A file that is read by ranges, whoever reads the same one meanwhile."""

    def __init__(self, path: RemotePath) -> None:
        super().__init__()
        self._path, self._place = path, 0
        self._size = path.stat().st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        stop = min(self._place + len(buffer), self._size)
        if stop <= self._place:
            return 0
        data = self._path.read_range(self._place, stop)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


@cache
def _store(bucket: RemotePath) -> Any:
    """The file system of a bucket or host, with credentials as its own library finds them."""
    import fsspec

    try:
        # One of our own, for it must not believe what it listed before.
        store, _ = fsspec.core.url_to_fs(str(bucket), skip_instance_cache=True)
    except ImportError:
        package = _EXTRAS.get(bucket.scheme)
        how = f"pip install 'clipaudit[{package}]'" if package else "install the package that fsspec names for it"
        raise UsageError(f"{bucket} needs a library that is not installed: {how}") from None
    except Exception as error:
        raise _fault(error, str(bucket)) from None
    if hasattr(store, "dircache"):
        store.dircache.use_listings_cache = False
    return store


def _status(info: dict[str, Any]) -> os.stat_result:
    kind = stat.S_IFDIR if info.get("type") == "directory" else stat.S_IFREG
    time_ns = _modified(info)
    seconds = time_ns // 1_000_000_000
    numbers = (kind | 0o600, 0, 0, 1, 0, 0, info.get("size") or 0, seconds, seconds, seconds)
    return os.stat_result(numbers, {"st_mtime_ns": time_ns})


def _modified(info: dict[str, Any]) -> int:
    """Nanoseconds: the second of the last change; below it, what the store says of the content."""
    found = (info.get(name) for name in ("LastModified", "last_modified", "updated", "mtime", "modified", "created"))
    moment = next((value for value in found if value is not None), 0)
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
        except ValueError:
            moment = 0
    seconds = int(moment.timestamp() if isinstance(moment, datetime) else moment)
    content = next((str(info[name]) for name in ("ETag", "etag", "md5Hash", "crc32c") if info.get(name)), "")
    mark = int.from_bytes(blake2b(content.strip('"').encode(), digest_size=8).digest(), "little") if content else 0
    return seconds * 1_000_000_000 + mark % 1_000_000_000


def _fault(error: Exception, url: str) -> OSError:
    """What the library of a store raised, as an OSError; EAGAIN where another try may do."""
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = status or response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    name = type(error).__name__
    if isinstance(error, FileNotFoundError):
        number = errno.ENOENT
    elif "Credential" in name:
        number = errno.EACCES
    elif status in _BUSY or isinstance(error, TimeoutError | ConnectionError) or "Timeout" in name:
        number = errno.EAGAIN
    else:
        number = _FAULTS.get(status or 0) or (error.errno if isinstance(error, OSError) else None) or errno.EIO
    if number == errno.ENOENT:
        return FileNotFoundError(number, os.strerror(number), url)
    told = without_secrets(" ".join(str(error).split()))[:_MOST_TOLD] or name
    if number == errno.EACCES:
        told = f"the store refuses access ({told}). Credentials are taken as its own library takes them"
    return OSError(number, told, url)


def without_secrets(text: str) -> str:
    """A text without the passwords and keys that its URLs hold."""
    return _KEY_ID.sub("***", _SECRET.sub("***", text))
