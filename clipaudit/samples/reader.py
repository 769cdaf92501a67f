"""Image bytes by sample id alone: for who holds a clean index and no longer the source.

How an id leads to an image is one word, the source's `access`, which the cache and the index keep. Another way is a
class with `read` and its row in `_WAYS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from clipaudit.errors import ImageError, SourceError
from clipaudit.remote import joined, to_path
from clipaudit.samples.archive_folders import ArchiveImages
from clipaudit.samples.base import (
    CROPS,
    DATASET,
    FILES,
    IN_PYTHON,
    MEMBERS,
    ROWS,
    SHARDS,
    SourceOptions,
    read_file,
)
from clipaudit.samples.crops import Crops
from clipaudit.samples.hugging_face import Dataset, DatasetSource, is_dataset
from clipaudit.samples.image_column import ImageColumn
from clipaudit.samples.saved_dataset import STATE, SavedImages
from clipaudit.samples.webdataset import ShardImages


class Origin(Protocol):
    """What an index or a cache says of where its images are."""

    @property
    def root(self) -> str:
        """What the ids are relative to."""

    @property
    def image_column(self) -> str | None:
        """Of a table whose rows are images."""

    @property
    def access(self) -> str | None:
        """How an id leads to its image; None where an earlier version did not say."""


def access_of(origin: Origin) -> str:
    """How an id leads to its image. Earlier versions did not say it, and had two ways."""
    return origin.access or (FILES if origin.image_column is None else ROWS)


class _Files:
    """The id is a path below the root."""

    def __init__(self, root: Path, image_column: str | None) -> None:
        self._root = root

    def read(self, sample_id: str) -> bytes:
        return read_file(joined(self._root, sample_id))


class _Rows:
    """The id is `file.parquet#row`, the file below the root."""

    def __init__(self, root: Path, image_column: str | None) -> None:
        self._root, self._column = root, image_column or ""
        self._tables: dict[str, ImageColumn] = {}

    def read(self, sample_id: str) -> bytes:
        name, _, row = sample_id.rpartition("#")
        if name not in self._tables:
            path = self._root / name
            if not path.is_file():
                raise ImageError(f"cannot be opened: there is no file {path}")
            # Two threads may both open a file the first time; either object serves.
            self._tables[name] = ImageColumn(path, self._column)
        try:
            return self._tables[name].read(int(row))
        except SourceError as error:
            raise ImageError(str(error)) from None


class _InPython:
    """The id is `split#row` of a data set that was in memory, and may have been saved to disk since."""

    def __init__(self, root: Path, image_column: str | None) -> None:
        self._saved = SavedImages(root, image_column) if (root / STATE).is_file() else None

    def read(self, sample_id: str) -> bytes:
        if self._saved is None:
            raise ImageError("the images were rows of a data set in memory: give it as images, or a folder with it")
        return self._saved.read(sample_id)


class _Way(Protocol):
    def read(self, sample_id: str) -> bytes: ...


_WAYS: dict[str, Callable[[Path, str | None], _Way]] = {
    FILES: _Files,
    ROWS: _Rows,
    DATASET: SavedImages,
    IN_PYTHON: _InPython,
    MEMBERS: ArchiveImages,
    SHARDS: ShardImages,
    CROPS: Crops,
}


class ImageReader:
    """Reads the images of an index or a cache.

    Args:
        origin: Its metadata.
        images: Where the images lie now, if they were moved; or the data set that was embedded from memory.

    Raises:
        SourceError: a newer clipaudit has another way to the images.
    """

    def __init__(self, origin: Origin, images: str | Path | Dataset | None = None) -> None:
        if is_dataset(images):
            self._way: _Way = DatasetSource(images, SourceOptions(image_column=origin.image_column))
            return
        access = access_of(origin)
        if access not in _WAYS:
            raise SourceError(f"this clipaudit does not know how to reach images by {access!r}. Update clipaudit.")
        self._way = _WAYS[access](to_path(str(images or origin.root)), origin.image_column)

    def read(self, sample_id: str) -> bytes:
        """The bytes of one image; safe to call from several threads. Raises ImageError."""
        return self._way.read(sample_id)
