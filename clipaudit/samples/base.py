"""What every source of labelled images has in common."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np

from clipaudit.errors import ImageError, SourceError
from clipaudit.files import irregular, kind_of, read_at_most
from clipaudit.options.arguments import typed
from clipaudit.remote import RemotePath, is_remote, joined
from clipaudit.samples.names import checked_names
from clipaudit.samples.values import is_missing, text_of
from clipaudit.spelling import Spellings, tidy
from clipaudit.text import excerpt, unescape_formula

# A larger file is no photograph; reading it would only exhaust the memory.
MAX_FILE_BYTES = 1 << 30
# How the reason begins where the file, not the picture in it, is at fault: worth another try when `embed` runs again.
NOT_OPENED = "cannot be opened"
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
NAMES_SHOWN = 3
# How an id leads to an image: it is the path of a file, or a row of a file.
FILES, ROWS, DATASET, IN_PYTHON = "files", "rows", "dataset", "python"
MEMBERS, SHARDS, CROPS = "members", "shards", "crops"
_INDEX = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image, without its pixels.

    Attributes:
        id: Unique inside the source and the same on every machine: the path relative to the source's root with `/`
            separators (absolute where the file lies elsewhere), `file.parquet#row`, or `path#x,y,w,h` for a box.
        label: Class name.
        size: Bytes of the file that holds the image; -1 where there is none.
        modified: Time of its last change in nanoseconds; with `size` the sign that the image is still the same.
    """

    id: str
    label: str
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class FaultySample(Sample):
    """A sample whose image cannot be opened at all; `reason` says why. It stays in every output."""

    reason: str


@typed
@dataclass(frozen=True)
class SourceOptions:
    """How to read a source.

    Attributes:
        path_column: Column of a manifest with the paths; None recognises the usual names.
        label_column: Column with the labels; None recognises the usual names.
        image_column: Column of a Parquet data set with the image bytes; None recognises the usual names and images.
        names: Class names by class index, for labels that are indices. Their order is the order of the classes.
        crops: Of a labelling tool's file: one sample a box instead of one an image.
        vector_column: Column of a Parquet file with vectors that were computed elsewhere; None recognises it.

    Raises:
        SourceError: one of the names is no class name, or comes twice.
    """

    path_column: str | None = None
    label_column: str | None = None
    image_column: str | None = None
    names: Sequence[str] | None = None
    crops: bool = False
    vector_column: str | None = None

    def __post_init__(self) -> None:
        if self.names is not None:
            object.__setattr__(self, "names", checked_names(self.names))


class Source(Protocol):
    """Labelled images in an order that is the same every time."""

    location: Path
    """What the user named, absolute."""
    root: Path
    """What ids are relative to."""
    class_names: Sequence[str] | None
    """All classes in their order where the source declares them; None leaves it to the labels (sorted)."""

    access: str
    """How an id leads to its image: FILES, ROWS, ..., for `ImageReader`."""

    @property
    def image_column(self) -> str | None:
        """The column with the image bytes, where the images are rows of a table; None where they are not."""
        ...

    def samples(self) -> Iterator[Sample]:
        """All samples, streamed; raises SourceError naming the file and row of a fault."""
        ...

    def read(self, sample_id: str) -> bytes:
        """The bytes of one image; safe to call from several threads. Raises ImageError."""
        ...

    def decided(self) -> dict[str, str]:
        """What was decided about the source by looking at it ("labels": "column 'label'"), in words for the user."""
        ...

    def notes(self) -> list[str]:
        """What the last `samples()` passed over, in words for the user."""
        ...


class Images(Protocol):
    """What gives the bytes of an image by its sample's id."""

    def read(self, sample_id: str) -> bytes:
        """Safe to call from several threads; raises ImageError."""
        ...


def read_sample(source: Images, sample: Sample) -> bytes:
    """The bytes of a sample's image; ImageError where there are none, be it that its file cannot be opened at all."""
    if isinstance(sample, FaultySample):
        raise ImageError(sample.reason)
    return source.read(sample.id)


def some(names: Iterable[str]) -> str:
    """The first of several names in their order, for a message."""
    names = sorted(names)
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")


def utf8(name: str) -> bool:
    """Whether a name from the file system is UTF-8; Python hides other bytes in it as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """A name for a message, with bytes that are not UTF-8 written out (`\\xff`)."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def stat_sample(root: Path, sample_id: str, label: str, look: Callable[[], os.stat_result] | None = None) -> Sample:
    """A sample for a file, with the size and time that tell later whether it has changed.

    Args:
        root: What the id is relative to.
        sample_id: The path.
        label: Class name.
        look: Gives the file's status to who has listed it; None looks at the file.
    """
    if not utf8(sample_id):
        return FaultySample(shown(sample_id), label, -1, -1, "the file name is not valid UTF-8: rename the file")
    try:
        status = look() if look else stat_of(root, sample_id)
        if kind := kind_of(status):
            return FaultySample(sample_id, label, -1, -1, f"the path leads to {kind}, not to a file")
    except OSError as error:
        return FaultySample(sample_id, label, -1, -1, f"{NOT_OPENED}: {error.strerror}")
    return Sample(sample_id, label, status.st_size, modified(status))


def stat_of(root: Path, path: str) -> os.stat_result:
    """The status of a file below a root. A Path for each of millions of files takes longer than the look at the disk.

    Raises:
        OSError, ValueError: it cannot be looked at.
    """
    if is_remote(root) or "://" in path:
        return joined(root, path).stat()
    return os.stat(os.path.join(root, path))  # noqa: PTH116, PTH118


def modified(status: os.stat_result) -> int:
    """The time of a file's last change in nanoseconds, within the 64 bits (years 1678 to 2262) that a cache holds."""
    return max(-(1 << 63), min(status.st_mtime_ns, (1 << 63) - 1))


def read_file(path: Path) -> bytes:
    """The bytes of an image file; ImageError where it cannot be read, is empty or is too large to be an image."""
    try:
        # What a store has is no pipe, and each question costs a round trip.
        if not is_remote(path) and (kind := irregular(path)):
            raise ImageError(f"the path leads to {kind}, not to a file")
        data = read_at_most(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ImageError(f"{NOT_OPENED}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"the file has over {MAX_FILE_BYTES:,} bytes, the limit for one image")
    if not data:
        raise ImageError("the file is empty")
    return data


def relative_id(root: Path, path: str) -> str:
    """The id of a file that a manifest calls `path`: normalised, relative to `root` where it lies below it."""
    place = joined(root, path)
    if isinstance(place, RemotePath):
        try:
            return place.normal().relative_to(root).as_posix()
        except ValueError:
            return str(place.normal())
    normal = os.path.normpath(path)
    if not os.path.isabs(normal) and not normal.startswith(os.pardir):  # noqa: PTH117 -- called millions of times
        return normal.replace(os.sep, "/")
    if is_remote(root):
        return normal
    absolute = os.path.normpath(place)
    inside = os.path.relpath(absolute, root)
    return Path(absolute if inside.startswith(os.pardir) else inside).as_posix()


def label_name(value: object, names: Sequence[str] | None, known: frozenset[str], where: str) -> str:
    """A label as a class name: itself, or `names[value]` where names are given and the label is an index.

    Args:
        value: The label as it was found: text, a whole number, bytes, a date.
        names: Class names by class index; None takes every label for a class name.
        known: The same names.
        where: File and row, or folder.

    Raises:
        SourceError: the label is missing, NaN, a list or an object, out of range or not among the names.
    """
    if not isinstance(value, str) and is_missing(value):
        raise SourceError(f"{where}: the label is missing. Give every image a label, or remove the row.")
    text = tidy(text_of(value, "label", where))
    if not text:
        raise SourceError(f"{where}: the label is missing. Give every image a label, or remove the row.")
    if names is None or text in known:
        return text
    if not _INDEX.fullmatch(text) and not isinstance(value, bool):
        spellings = Spellings(names)
        number = spellings.find(text)
        number = spellings.find(unescape_formula(text)) if number is None else number
        if number is None:
            raise SourceError(f"{where}: label {excerpt(text)} is not one of the {len(names)} class names given.")
        return names[number]
    number = int(value if isinstance(value, bool) else text)
    if not 0 <= number < len(names):
        raise SourceError(
            f"{where}: class index {number} is out of range: there are {len(names)} class names"
            f" (0 to {len(names) - 1})."
        )
    return names[number]


class UniqueIds:
    """Notices an id that comes twice, at the price of eight bytes an id."""

    def __init__(self) -> None:
        self._hashes = array("Q")

    def add(self, sample_id: str) -> None:
        """Remember one id."""
        self._hashes.append(int.from_bytes(blake2b(sample_id.encode(), digest_size=8).digest(), "little"))

    def first_repetition(self) -> tuple[int, int] | None:
        """Positions (counted from 0) of the first id that repeats an earlier one, with that earlier one; or None."""
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        repeated = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        if not len(repeated):
            return None
        second = repeated[np.argmin(order[repeated + 1])]
        return int(order[second]), int(order[second + 1])
