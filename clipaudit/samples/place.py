"""What a user named as a source, looked at once, and the kinds of source that recognise themselves in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from clipaudit.files import irregular
from clipaudit.samples.base import Source, SourceOptions
from clipaudit.samples.documents import read_json
from clipaudit.samples.image_column import image_column
from clipaudit.samples.parquet_files import ParquetFiles
from clipaudit.samples.tables import TABLE_SUFFIXES
from clipaudit.samples.walk import Walk, is_folder


@dataclass(frozen=True)
class Place:
    """What is where the user pointed to.

    Attributes:
        path: As the user named it.
        options: How to read it.
        form: A folder, a regular file, or the pattern of files' names.
    """

    path: Path
    options: SourceOptions
    form: Literal["folder", "file", "pattern"]

    @property
    def suffix(self) -> str:
        """The ending of a file in lower case; empty for anything else."""
        return self.path.suffix.lower() if self.form == "file" else ""

    @cached_property
    def files(self) -> list[Path]:
        """What is directly in the folder and no folder, or has a name of the pattern; in order of the names.

        Raises:
            SourceError: the folder cannot be listed.
        """
        if self.form == "pattern":
            return sorted(self.path.parent.glob(self.path.name))
        return [Path(entry.path) for entry in Walk(self.path).entries(self.path) if not is_folder(entry)]

    @cached_property
    def tables(self) -> list[Path]:
        """Those of the files that may be tables."""
        return [file for file in self.files if file.suffix.lower() in TABLE_SUFFIXES and _is_regular(file)]

    @property
    def parquet_files(self) -> list[Path]:
        """Those of the tables that are Parquet."""
        return [file for file in self.tables if file.suffix.lower() == ".parquet"]

    @cached_property
    def parquet(self) -> ParquetFiles:
        """The same, by what they hold."""
        return ParquetFiles.sort(self.parquet_files, self.options)

    @cached_property
    def holds_images(self) -> bool:
        """Whether it is a Parquet file with a column of images; SourceError where that cannot be said."""
        return self.suffix == ".parquet" and image_column(self.path, self.options) is not None

    @cached_property
    def json(self) -> Any:
        """What a .json file says; None where it is none, and SourceError where it is damaged."""
        return read_json(self.path) if self.suffix == ".json" else None


@dataclass(frozen=True)
class Kind:
    """A kind of source: a row of `KINDS`.

    Attributes:
        name: What the user names, as messages and docs list it: "a folder of class folders".
        words: The same at length, for who named something else.
        found: What of this kind is at a place ("class folders with images (cat, dog)"); None where nothing is.
        open: The source at such a place.
        missed: Where nothing of any kind was found: why not of this one, and what to name instead; None where the
            place is nothing like it.
        instead: What to do where another kind is at the same place, too.
        certain: A file there says what it is, so that kinds that guess by what lies around it stand back.
        boxes: Its images may have labelled boxes, which `SourceOptions.crops` reads.
    """

    name: str
    words: str
    found: Callable[[Place], str | None]
    open: Callable[[Place], Source]
    missed: Callable[[Place], str | None]
    instead: Callable[[Place], str]
    certain: bool = False
    boxes: bool = False


def _is_regular(file: Path) -> bool:
    try:
        return irregular(file) is None
    except OSError:
        return False
