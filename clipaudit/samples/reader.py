"""Image bytes by sample id alone: for who holds a clean index and no longer the source."""

from __future__ import annotations

from pathlib import Path

from clipaudit.errors import ImageError, SourceError
from clipaudit.samples.base import read_file
from clipaudit.samples.image_column import ImageColumn


class ImageReader:
    """Reads the image of an id below `root`: a file, or a row of a Parquet file where there is an image column."""

    def __init__(self, root: str | Path, image_column: str | None = None) -> None:
        self.root = Path(root)
        self._column = image_column
        self._tables: dict[str, ImageColumn] = {}

    def read(self, sample_id: str) -> bytes:
        """The bytes of one image; safe to call from several threads. Raises ImageError."""
        if self._column is None:
            return read_file(self.root / sample_id)
        name, _, row = sample_id.rpartition("#")
        if name not in self._tables:
            path = self.root / name
            if not path.is_file():
                raise ImageError(f"cannot be opened: there is no file {path}")
            # Two threads may both open a file the first time; either object serves.
            self._tables[name] = ImageColumn(path, self._column)
        try:
            return self._tables[name].read(int(row))
        except SourceError as error:
            raise ImageError(str(error)) from None
