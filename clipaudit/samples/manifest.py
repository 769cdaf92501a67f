"""Manifests: a table with a path and a label a row, as CSV, TSV, JSONL or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.remote import joined
from clipaudit.samples.base import (
    FILES,
    FaultySample,
    Sample,
    SourceOptions,
    UniqueIds,
    read_file,
    relative_id,
    stat_sample,
)
from clipaudit.samples.labels import LabelReader, label_notes
from clipaudit.samples.paths import other_spelling
from clipaudit.samples.place import COLUMN_SUFFIXES, Kind, Place
from clipaudit.samples.stamps import Stamp, mapped, stamps_of
from clipaudit.samples.tables import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    TABLE_SUFFIXES,
    open_table,
    pick_column,
)
from clipaudit.samples.values import is_missing, text_of
from clipaudit.text import excerpt


class ManifestSource:
    """One image a row; relative paths are resolved against the manifest's own folder."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.location = path.resolve()
        self.root = self.location.parent
        self.class_names: Sequence[str] | None = options.names
        self.access, self.image_column = FILES, None
        self._path = path
        self._table = open_table(path)
        columns = self._table.columns
        self._path_column = pick_column(path, columns, options.path_column, PATH_COLUMNS, "path")
        others = [column for column in columns if column != self._path_column]
        self._label_column = pick_column(path, others, options.label_column, LABEL_COLUMNS, "label")
        self._labels = LabelReader(options.names)
        self._n_respelled, self._respelled = 0, ("", "")
        self.stamps: dict[str, Stamp] = stamps_of([self.location])

    def samples(self) -> Iterator[Sample]:
        """All rows in the manifest's order."""
        self._n_respelled, self._labels = 0, LabelReader(self.class_names)
        self.stamps = stamps_of([self.location])
        unique, count = UniqueIds(), 0
        for path, found in mapped(self._look, self._images()):
            sample = self._meant(path, found)
            unique.add(sample.id)
            count += 1
            yield sample
        if not count:
            raise SourceError(f"{self._path} has a header but no rows.")
        if repetition := unique.first_repetition():
            first, second = (self._row_name(number) for number in repetition)
            raise SourceError(f"{second}: the path was listed before, in {first}. Keep one row an image.")

    def _images(self) -> Iterator[tuple[str, str]]:
        """The path and the label in each row."""
        for where, row in self._table.rows((self._path_column, self._label_column)):
            yield _path(row[self._path_column], where), self._labels.read(row[self._label_column], where)

    def _look(self, row: tuple[str, str]) -> tuple[str, Sample]:
        path, label = row
        return path, stat_sample(self.root, relative_id(self.root, path), label)

    def _meant(self, path: str, sample: Sample) -> Sample:
        """The sample of a row; that of another file where only the spelling differs."""
        if isinstance(sample, FaultySample) and (meant := other_spelling(self.root, path)):
            self._respelled = self._respelled if self._n_respelled else (path, meant)
            self._n_respelled += 1
            return stat_sample(self.root, relative_id(self.root, meant), sample.label)
        return sample

    def _row_name(self, position: int) -> str:
        return next(islice(self._table.rows((self._path_column,)), position, None))[0]

    def read(self, sample_id: str) -> bytes:
        """The bytes of the image file."""
        return read_file(joined(self.root, sample_id))

    def decided(self) -> dict[str, str]:
        """Which columns hold what, and how the file was read."""
        return {
            "source": f"manifest {self._table.form}",
            "images": f"column {self._path_column!r}",
            "labels": f"column {self._label_column!r}",
        }

    def notes(self) -> list[str]:
        """Labels that may not be meant, and how many paths were found in another spelling than the manifest's."""
        notes = label_notes([self._labels])
        if not self._n_respelled:
            return notes
        path, meant = self._respelled
        return [
            *notes,
            f"{self._n_respelled:,} path(s) differ from their files in blanks, backslashes or Unicode form:"
            f" {excerpt(path)} was read as {excerpt(meant)}",
        ]


def _path(value: object, where: str) -> str:
    if is_missing(value):
        raise SourceError(f"{where}: the path is missing. Name an image, or remove the row.")
    if not isinstance(value, str | bytes):
        raise SourceError(f"{where}: the path is not a path: {excerpt(value)}. Name the column: --path-column.")
    path = text_of(value, "path", where)
    if "\0" in path:
        raise SourceError(f"{where}: the path is not a path: {excerpt(path)}.")
    return path


def _found(place: Place) -> str | None:
    return "rows of paths and labels" if place.suffix in TABLE_SUFFIXES and not place.holds_images else None


def _open(place: Place) -> ManifestSource:
    if place.suffix in COLUMN_SUFFIXES and place.options.path_column is None:
        columns = open_table(place.path).columns
        # Who has a Parquet file may have meant its images as well as its paths.
        if not any(name.strip().lower() in PATH_COLUMNS for name in columns):
            raise SourceError(
                f"{place.path} has no column of images and none of paths that clipaudit recognises. Its columns:"
                f" {', '.join(columns)}. Say which one it is with --image-column or --path-column."
            )
    return ManifestSource(place.path, place.options)


def _missed(place: Place) -> str | None:
    if place.form != "folder" or not place.tables:
        return None
    return (
        f"{place.path} has no class folders with images. Name the table instead, if it lists images: {place.tables[0]}"
    )


MANIFEST = Kind(
    name="a manifest",
    words=f"a manifest ({', '.join(TABLE_SUFFIXES)})",
    found=_found,
    open=_open,
    missed=_missed,
    instead=lambda place: "say which columns hold paths and labels with --path-column and --label-column",
)
