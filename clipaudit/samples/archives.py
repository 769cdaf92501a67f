"""Members of zip and tar archives, read where they are: nothing is unpacked to the disk.

A tar has no list of its members; its headers are read once, and the places of a few archives kept. One that is
compressed can only be read from its beginning: whoever asks in order pays once.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any, Protocol

from clipaudit.errors import ImageError, SourceError
from clipaudit.files import require_file
from clipaudit.remote import RemotePath, library_input
from clipaudit.samples.base import MAX_FILE_BYTES
from clipaudit.text import excerpt, printable

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES = (".zip", *TAR_SUFFIXES)
_OPENERS: dict[str, Any] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
# No picture is compressed to a five-hundredth by zip; what claims so below this size does no harm.
_EXPANSION, _HARMLESS = 500, 1 << 26
# Bytes that a compressed tar keeps, as threads ask for neighbours in any order, and that it reads at once.
_KEPT_BYTES, _AT_ONCE = 1 << 27, 1 << 20
_DRIVE = re.compile(r"[A-Za-z]:")
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


def is_archive(name: str) -> bool:
    """Whether a file name ends like an archive that is read here."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: Its path there, with `/`.
        size: Its bytes, as the archive says.
        place: Where it begins in a tar; 0 in a zip.
        fault: Why it cannot be read; empty where it can.
    """

    name: str
    size: int
    place: int = 0
    fault: str = ""


class Archive(Protocol):
    """One archive."""

    damage: str
    """Why the list of its members ends before its end; empty where it does not."""

    def members(self) -> Iterator[Member]:
        """Its files in their order, folders left out. Raises SourceError for a name that leads out of the archive."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one member; safe to call from several threads. Raises ImageError."""
        ...


def open_archive(path: Path) -> Archive:
    """An archive by its ending; SourceError where it is none."""
    require_file(path, SourceError)
    return Zip(path) if path.suffix.lower() == ".zip" else Tar(path)


class Zip:
    """A zip, by its table of contents."""

    damage = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(library_input(path))
        except (*DAMAGE, NotImplementedError) as error:
            raise SourceError(f"{path} is not a readable zip archive: {error}.") from None
        files = (info for info in self._zip.infolist() if not info.is_dir())
        self._infos = {_checked(path, info.filename): info for info in files}

    def members(self) -> Iterator[Member]:
        """Its files in order of their names, folder by folder."""
        for name in sorted(self._infos, key=lambda name: name.split("/")):
            info = self._infos[name]
            yield Member(name, info.file_size, fault=_zip_fault(info))

    def read(self, name: str) -> bytes:
        """The bytes of one member."""
        try:
            info = self._infos[name]
            if fault := _zip_fault(info):
                raise ImageError(fault)
            with self._zip.open(info) as file:
                return _whole(file.read(info.file_size + 1), info.file_size)
        except KeyError:
            raise ImageError(_gone(self._path, name)) from None
        except (*DAMAGE, NotImplementedError, RuntimeError) as error:
            raise ImageError(_damaged(self._path, error)) from None


def _zip_fault(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "it is encrypted in the archive"
    if info.file_size > MAX_FILE_BYTES:
        return _TOO_LARGE
    if info.file_size > max(_HARMLESS, _EXPANSION * info.compress_size):
        return "it would unpack to more than 500 times its size in the archive, as no picture does"
    return ""


class Tar:
    """A tar, compressed or not."""

    def __init__(self, path: Path) -> None:
        self._path, self.damage = path, ""
        self._lock = Lock()
        self._places: dict[str, Member] | None = None
        opener = _OPENERS.get(path.suffix.lower())
        try:
            self._bytes: _Plain | _Compressed = (
                _Compressed(lambda: opener(library_input(path))) if opener else _Plain(path)
            )
        except OSError as error:
            raise SourceError(f"{path} cannot be opened: {error.strerror}.") from None

    def members(self) -> Iterator[Member]:
        """Its files, up to where it is damaged."""
        self.damage = ""
        try:
            with self._bytes.stream() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
                for info in archive:
                    # What tarfile keeps of all members before would be most of the memory of a run.
                    archive.members = []  # type: ignore[attr-defined]
                    if not info.isdir():
                        yield Member(_checked(self._path, info.name), info.size, info.offset_data, _tar_fault(info))
                # tarfile takes a header that it cannot read for the end.
                stream.seek(archive.offset)
                if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    self.damage = "the mark of its end is missing"
        except DAMAGE as error:
            self.damage = printable(str(error)) or type(error).__name__

    def read(self, name: str) -> bytes:
        """The bytes of one member."""
        with self._lock:
            if self._places is None:
                self._places = {member.name: member for member in self.members()}
        if name not in self._places:
            raise ImageError(_gone(self._path, name))
        return self.read_member(self._places[name])

    def read_member(self, member: Member) -> bytes:
        """The same for one that `members` gave."""
        if member.fault:
            raise ImageError(member.fault)
        try:
            return _whole(self._bytes.read(member.place, member.size), member.size)
        except DAMAGE as error:
            raise ImageError(_damaged(self._path, error)) from None


def _tar_fault(info: tarfile.TarInfo) -> str:
    if not info.isreg() or info.issparse():
        return "it is a link, device or sparse file in the archive"
    return _TOO_LARGE if info.size > MAX_FILE_BYTES else ""


class _Plain:
    """Bytes of a file by their place."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._file = path.open("rb")

    def stream(self) -> IO[bytes]:
        return self._path.open("rb")

    def read(self, place: int, size: int) -> bytes:
        if isinstance(self._path, RemotePath):
            # Each asks for its own, so that several round trips are under way.
            return self._path.read_range(place, place + size)
        with self._lock:
            self._file.seek(place)
            return self._file.read(size)


class _Compressed:
    """Bytes of a compressed file by their place. What was read last is kept, for those who ask a little late."""

    def __init__(self, stream: Callable[[], IO[bytes]]) -> None:
        self.stream, self._lock = stream, Lock()
        self._file, self._first, self._kept = stream(), 0, bytearray()

    def read(self, place: int, size: int) -> bytes:
        with self._lock:
            if place < self._first:
                self._file.seek(0)
                self._first, self._kept = 0, bytearray()
            while (known := self._first + len(self._kept)) < place + size:
                if known - self._first > _KEPT_BYTES:
                    dropped = min(len(self._kept) // 2, place - self._first)
                    self._first += dropped
                    del self._kept[:dropped]
                if not (data := self._file.read(_AT_ONCE)):
                    break
                self._kept += data
            start = place - self._first
            return bytes(self._kept[start : start + size])


_TOO_LARGE = f"it has over {MAX_FILE_BYTES:,} bytes, the limit for one image"


def _checked(path: Path, name: str) -> str:
    """A member's name; SourceError where it is absolute or leads out of the archive."""
    name = name.removeprefix("./")
    if name.startswith(("/", "\\")) or _DRIVE.match(name) or ".." in re.split(r"[\\/]", name):
        raise SourceError(
            f"{path} has a member that leads out of it: {excerpt(name)}. Nothing is unpacked, but who made such an"
            " archive is not to be trusted: pack it again."
        )
    return name


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ImageError(f"the archive holds {len(data):,} bytes of it, not {size:,}")
    if not data:
        raise ImageError("the file is empty")
    return data


def _gone(path: Path, name: str) -> str:
    return f"cannot be opened: {path.name} has no member {printable(name)}"


def _damaged(path: Path, error: Exception) -> str:
    return f"{path.name} is damaged there: {printable(str(error)) or type(error).__name__}"
