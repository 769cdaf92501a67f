"""Data sets that the library `datasets` saved to disk: Arrow files, in an order and with class names that it wrote.

They are read without that library. Ids count through all files (`train#17`), so that another number of shards changes
none of them.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from clipaudit.errors import ImageError, SourceError
from clipaudit.files import read_bounded
from clipaudit.samples.arrow_files import group_sizes, open_columns
from clipaudit.samples.base import DATASET, Sample, SourceOptions, some
from clipaudit.samples.image_column import ImageColumn
from clipaudit.samples.parquet import ParquetSource
from clipaudit.samples.place import Kind, Place
from clipaudit.samples.stamps import stamps_of

STATE, SPLITS = "state.json", "dataset_dict.json"
# Of a data set that has no split.
NO_SPLIT = "data"
_MAX_BYTES = 1 << 26


class SavedDataset:
    """The files of a saved data set, and its rows by number.

    Raises:
        SourceError: its state cannot be read, names files elsewhere, or none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        state = _read_json(folder / STATE)
        entries = state.get("_data_files")
        entries = entries if isinstance(entries, list) else []
        names = [str(entry.get("filename")) for entry in entries if isinstance(entry, dict)]
        if not names or len(names) < len(entries) or any(Path(name).name != name for name in names):
            raise SourceError(f"{folder / STATE} does not name the files of a data set. Save it again.")
        split = state.get("_split")
        self.split = split if isinstance(split, str) and split else NO_SPLIT
        self.files = [folder / name for name in names]

    @cached_property
    def starts(self) -> list[int]:
        """The number of each file's first row; the last one is that of all rows."""
        return list(accumulate((sum(group_sizes(open_columns(file))) for file in self.files), initial=0))

    def place(self, sample_id: str) -> tuple[Path, int]:
        """The file of a sample, and its row there; ImageError where there is no such row."""
        split, _, number = sample_id.rpartition("#")
        row = int(number) if number.isdecimal() else -1
        if split != self.split or not 0 <= row < self.starts[-1]:
            raise ImageError(f"cannot be opened: {self.folder} has no row {sample_id}")
        file = bisect_right(self.starts, row) - 1
        return self.files[file], row - self.starts[file]


class SavedImages:
    """The images of a saved data set, by the ids of its samples."""

    def __init__(self, folder: Path, image_column: str | None) -> None:
        self._dataset = SavedDataset(folder)
        self._columns = {file: ImageColumn(file, image_column or "") for file in self._dataset.files}

    def read(self, sample_id: str) -> bytes:
        """The bytes of one image; safe to call from several threads. Raises ImageError."""
        try:
            file, row = self._dataset.place(sample_id)
            return self._columns[file].read(row)
        except SourceError as error:
            raise ImageError(str(error)) from None


class SavedDatasetSource(ParquetSource):
    """One image a row; its id is `split#row`, the row counted through all files."""

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        self._state = stamps_of([folder.absolute() / STATE])
        self._dataset = SavedDataset(folder)
        super().__init__(self._dataset.files, options, location=folder.resolve())
        self.root, self.access = self.location, DATASET
        self._images = SavedImages(folder, self.image_column)
        self.stamps |= self._state
        self._first = dict(zip((file.name for file in self._dataset.files), self._dataset.starts, strict=False))

    def samples(self) -> Iterator[Sample]:
        """All rows, file by file."""
        yield from super().samples()
        self.stamps |= self._state

    def read(self, sample_id: str) -> bytes:
        """The bytes of the image in one row."""
        return self._images.read(sample_id)

    def decided(self) -> dict[str, str]:
        """Which files and columns are read."""
        files = f"{len(self._dataset.files):,} Arrow file(s) of a saved data set in {self.root}"
        return super().decided() | {"source": files}

    def _id(self, file: str, row: int) -> str:
        return f"{self._dataset.split}#{self._first[file] + row}"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bounded(file, _MAX_BYTES, SourceError))
    except (ValueError, RecursionError, FileNotFoundError) as error:
        raise SourceError(f"{file} is damaged: {error}. Save the data set again.") from None
    if not isinstance(content, dict):
        raise SourceError(f"{file} is damaged: it holds no JSON object. Save the data set again.")
    return content


def _holds(place: Place, name: str) -> bool:
    return place.form == "folder" and any(file.name == name for file in place.files)


def _found(place: Place) -> str | None:
    return "a data set saved by `datasets`" if _holds(place, STATE) else None


def _splits(folder: Path) -> Sequence[str]:
    names = _read_json(folder / SPLITS).get("splits")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _missed(place: Place) -> str | None:
    if not _holds(place, SPLITS):
        return None
    names = _splits(place.path)
    if not names:
        return f"{place.path / SPLITS} names no split. Save the data set again."
    return f"{place.path} holds the splits of a data set ({some(names)}). Name one: {place.path / names[0]}"


SAVED_DATASET = Kind(
    name="a saved data set",
    words="a folder that `datasets` saved to disk",
    found=_found,
    open=lambda place: SavedDatasetSource(place.path, place.options),
    missed=_missed,
    instead=lambda place: f"move {STATE} elsewhere",
    certain=True,
)
