"""The column of a Parquet file that holds images: which it is, and its values one by one."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from clipaudit.errors import ImageError, SourceError
from clipaudit.remote import joined
from clipaudit.samples.arrow_files import group_sizes, open_columns
from clipaudit.samples.base import IMAGE_SUFFIXES, SourceOptions, read_file
from clipaudit.text import printable

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "picture", "photo")
# Decoding threads work on neighbouring rows, so that two row groups at a time are enough.
CACHED_ROW_GROUPS = 2
ROWS_SNIFFED = 64
SHOWN_OF_AN_ERROR = 200
# What files of the formats that are read begin with; some formats have their name further inside.
_SIGNATURES = (
    *(
        b"\xff\xd8\xff",
        b"\x89PNG",
        b"GIF8",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"\0\0\1\0",
        b"\0\0\0\x0cjP",
        b"\xff\x4f\xff\x51",
    ),
    *(b"P%d" % kind for kind in range(1, 7)),
)


def image_column(path: Path, options: SourceOptions) -> str | None:
    """The column of a Parquet file that holds images (binary, or a struct `{bytes, path}`), or None.

    It is the one whose first values are images, of several the one with a usual name; where no value tells, the one
    with a usual name.

    Raises:
        SourceError: the file is no Parquet, the column named in the options holds no bytes, or several may be meant.
    """
    parquet = open_columns(path)
    fitting = bytes_columns(parquet.schema_arrow)
    if wanted := options.image_column:
        if wanted in fitting:
            return wanted
        raise SourceError(
            f"{path} has no column {wanted!r} of image bytes. Columns with bytes: {', '.join(fitting) or 'none'}."
        )
    usual = [name for name in fitting if name.strip().lower() in IMAGE_COLUMNS]
    found = [name for name in fitting if _holds_images(parquet, name)] or usual
    if len(found) > 1:
        found = [name for name in found if name in usual] or found
    if len(found) > 1:
        raise SourceError(
            f"{path} has several columns that may hold the images: {', '.join(found)}. Say which one: --image-column"
        )
    return found[0] if found else None


def bytes_columns(schema: Any) -> list[str]:
    """The columns of an Arrow schema that may hold images by their type."""
    import pyarrow.types as kinds

    def holds_bytes(kind: Any) -> bool:
        tests = (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view, kinds.is_fixed_size_binary)
        return any(test(kind) for test in tests)

    def holds_image(kind: Any) -> bool:
        if not kinds.is_struct(kind):
            return holds_bytes(kind)
        inside = {field.name: field.type for field in kind}
        held = inside.get("bytes")
        # Where all images are given by path, the bytes may have no type at all.
        return held is not None and (holds_bytes(held) or (kinds.is_null(held) and "path" in inside))

    return [field.name for field in schema if holds_image(field.type)]


class ImageColumn:
    """Random access to the images of one file, a row group at a time."""

    def __init__(self, file: Path, column: str) -> None:
        self._file, self._column = file, column
        self._lock = Lock()
        self._parquet: Any = None
        self._starts: list[int] = []
        self._groups: OrderedDict[int, Any] = OrderedDict()

    def read(self, row: int) -> bytes:
        """The bytes in one row, or of the file that it names; safe to call from several threads. Raises ImageError."""
        with self._lock:
            try:
                group = self._row_group(row)
                value = group[0][row - group[1]].as_py()
            except (ImageError, SourceError):
                raise
            except Exception as error:
                # Damaged Parquet raises many types; what some say holds the bytes that were read.
                reason = printable(str(error))[:SHOWN_OF_AN_ERROR]
                raise ImageError(f"row {row} of {self._file.name} is damaged: {reason}") from None
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if not data and path:
            return self._read_path(path)
        if not isinstance(data, bytes) or not data:
            raise ImageError("the row holds no image bytes")
        return data

    def _read_path(self, path: object) -> bytes:
        if not isinstance(path, str) or "\0" in path:
            raise ImageError("the row holds neither image bytes nor a path")
        try:
            return read_file(joined(self._file.parent, path))
        except ImageError as error:
            raise ImageError(f"the row names the file {printable(path)}: {error}") from None

    def _row_group(self, row: int) -> Any:
        if self._parquet is None:
            self._parquet = open_columns(self._file)
            sizes = group_sizes(self._parquet)
            self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        number = bisect_right(self._starts, row) - 1
        if number not in self._groups:
            column = self._parquet.read_row_group(number, columns=[self._column])[self._column]
            self._groups[number] = (column, self._starts[number])
            if len(self._groups) > CACHED_ROW_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(number)
        return self._groups[number]


def _holds_images(parquet: Any, column: str) -> bool:
    """Whether one of the first values is an image, or names a file of images."""
    try:
        batch = next(parquet.iter_batches(ROWS_SNIFFED, columns=[column]), None)
        return batch is not None and any(map(_is_image, batch.column(0).to_pylist()))
    except Exception:
        return False  # Damaged: the rows will say so, one by one.


def _is_image(value: object) -> bool:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes) and data:
        return data.startswith(_SIGNATURES) or data[8:12] == b"WEBP" or data[4:8] == b"ftyp"
    return isinstance(path, str) and Path(path).suffix.lower() in IMAGE_SUFFIXES
