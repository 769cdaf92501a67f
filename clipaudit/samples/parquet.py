"""Parquet files that hold the images themselves, as the Hugging Face Hub stores image data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipaudit.errors import SourceError
from clipaudit.remote import to_path
from clipaudit.samples.arrow_files import open_columns
from clipaudit.samples.base import ROWS, Sample, SourceOptions, modified, some
from clipaudit.samples.image_column import ImageColumn, bytes_columns, image_column
from clipaudit.samples.labels import LabelReader, label_notes
from clipaudit.samples.parquet_files import refuse_splits
from clipaudit.samples.place import Kind, Place
from clipaudit.samples.stamps import Stamp, stamps_of
from clipaudit.samples.tables import LABEL_COLUMNS, pick_column, table_rows
from clipaudit.samples.walk import Walk, is_folder
from clipaudit.spelling import tidy

FILES_SHOWN = 3


@dataclass(frozen=True)
class _File:
    """One of the files: its images, and what its label numbers mean where it says so itself."""

    path: Path
    images: ImageColumn
    label_names: Sequence[str] | None


class ParquetSource:
    """One image a row; its id is `file.parquet#row`. Several files follow each other in order of their names."""

    def __init__(
        self, files: Sequence[Path], options: SourceOptions, *, location: Path | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.root = files[0].resolve().parent
        self.location = location or (files[0].resolve() if len(files) == 1 else self.root)
        column = image_column(files[0], options)
        if column is None:
            raise SourceError(f"{files[0]} has no column of image bytes.")
        self.access, self.image_column, self._notes = ROWS, column, notes
        names = open_columns(files[0]).schema_arrow.names
        self._label_column = pick_column(files[0], names, options.label_column, LABEL_COLUMNS, "label")
        self._files = {file.name: self._open(file, files[0]) for file in files}
        self._say_which_names(options)
        self._given = options.names
        self._readers: dict[str, LabelReader] = {}
        self.stamps: dict[str, Stamp] = stamps_of(file.absolute() for file in files)
        self.class_names: Sequence[str] | None = options.names or self._declared_names()

    def _open(self, path: Path, first: Path) -> _File:
        """One file; SourceError where it lacks a column that the first file has."""
        schema = open_columns(path).schema_arrow
        for column, role, there in (
            (self.image_column, "images", bytes_columns(schema)),
            (self._label_column, "labels", schema.names),
        ):
            if there.count(column) != 1:
                raise SourceError(
                    f"{path} has not one column {column!r} of {role}, as {first.name} has. Its columns:"
                    f" {', '.join(schema.names)}. Rename the column, or embed the files one by one."
                )
        return _File(path, ImageColumn(path, self.image_column), hub_class_names(path, schema, self._label_column))

    def _say_which_names(self, options: SourceOptions) -> None:
        """Refuse files whose label numbers cannot mean the same classes."""
        import pyarrow as pa

        named = {tuple(file.label_names): file for file in self._files.values() if file.label_names is not None}
        for file in self._files.values():
            kind = open_columns(file.path).schema_arrow.field(self._label_column).type
            if named and file.label_names is None and pa.types.is_integer(kind) and options.names is None:
                other = next(iter(named.values())).path.name
                raise SourceError(
                    f"{file.path} does not say what the numbers in its column {self._label_column!r} mean, as {other}"
                    " does. Name the classes in their order with --names."
                )
        if len(named) > 1 and options.names is not None:
            raise SourceError(
                f"{' and '.join(file.path.name for file in list(named.values())[:2])} number their classes differently,"
                " so --names cannot be right for both. Leave it away: the files name their classes themselves."
            )

    def _declared_names(self) -> list[str] | None:
        """The classes of all files, in the first one's order, if each file says what its labels mean."""
        every = [file.label_names for file in self._files.values()]
        if any(names is None for names in every):
            return None
        return list(dict.fromkeys(name for names in every for name in names or ()))

    def samples(self) -> Iterator[Sample]:
        """All rows, file by file."""
        self.stamps, found = {}, False
        for name, file in self._files.items():
            labels = self._readers[name] = LabelReader(self._given or file.label_names)
            try:
                status = file.path.stat()
            except OSError as error:
                raise SourceError(f"{file.path} cannot be opened: {error.strerror}.") from None
            self.stamps[str(file.path.absolute())] = status.st_size, modified(status)
            for number, (where, row) in enumerate(table_rows(file.path, (self._label_column,))):
                label = labels.read(row[self._label_column], where)
                found = True
                yield Sample(self._id(name, number), label, status.st_size, modified(status))
        if not found:
            raise SourceError(f"{self.location} has no rows.")

    def read(self, sample_id: str) -> bytes:
        """The bytes of the image in one row."""
        name, _, row = sample_id.rpartition("#")
        return self._files[name].images.read(int(row))

    def _id(self, file: str, row: int) -> str:
        return f"{file}#{row}"

    def decided(self) -> dict[str, str]:
        """Which files and columns are read."""
        shown = ", ".join(list(self._files)[:FILES_SHOWN]) + (", ..." if len(self._files) > FILES_SHOWN else "")
        named = self._given is None and any(file.label_names for file in self._files.values())
        return {
            "source": f"{len(self._files):,} Parquet file(s) with images in {self.root}: {shown}",
            "images": f"column {self.image_column!r}",
            "labels": f"column {self._label_column!r}"
            + (", with class names from the file's metadata" if named else ""),
        }

    def notes(self) -> list[str]:
        """Which other files were passed over, and labels that may not be meant."""
        return [*self._notes, *label_notes(self._readers.values())]


def hub_class_names(path: Path, schema: Any, label_column: str) -> list[str] | None:
    """The class names that the Hugging Face Hub writes into a file's schema beside integer labels.

    Raises:
        SourceError: one of them cannot be written down.
    """
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        raise SourceError(f"{path}: a class name in its metadata is not valid UTF-8. Write the file again.") from None
    return [tidy(name) for name in names]


def _found(place: Place) -> str | None:
    if place.form == "file":
        return "images in a column" if place.holds_images else None
    # A pattern means Parquet files whatever they hold: who opens them says what is wrong with one.
    files = place.parquet_files if place.form == "pattern" else place.hub.parquet.images
    return f"Parquet files with images ({some(file.name for file in files)})" if files else None


def _open(place: Place) -> ParquetSource:
    if place.form == "file":
        return ParquetSource([place.path], place.options)
    location = place.path.parent.resolve() / place.path.name if place.form == "pattern" else None
    if place.form == "folder":
        place = place.hub
        refuse_splits(place.path, place.parquet.images)
    return ParquetSource(place.parquet.data_set(), place.options, location=location, notes=place.parquet.notes())


def _missed(place: Place) -> str | None:
    if place.form == "pattern":
        return f"no Parquet file has a name like {place.path}. Check the pattern, or name a folder."
    if place.form == "file":
        return None
    if place.parquet.faults:
        return str(place.parquet.faults[0])
    folders = [to_path(entry.path) for entry in Walk(place.path).entries(place.path) if is_folder(entry)]
    shards = next((folder for folder in folders if next(folder.glob("*.parquet"), None)), None)
    if shards is None:
        return None
    return f"{place.path} has no images itself, but {shards.name} holds Parquet files: name {shards}"


PARQUET = Kind(
    name="a Parquet file",
    words="Parquet files with an image column",
    found=_found,
    open=_open,
    missed=_missed,
    instead=lambda place: f"name the files with '{place.path / '*.parquet'}' (in quotes)",
)
