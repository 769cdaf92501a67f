"""What a user named as a source, looked at once, and the kinds of source that recognise themselves in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from clipaudit.errors import SourceError, UsageError
from clipaudit.files import irregular
from clipaudit.remote import to_path
from clipaudit.samples.base import Source, SourceOptions
from clipaudit.samples.documents import read_json
from clipaudit.samples.image_column import image_column
from clipaudit.samples.parquet_files import ParquetFiles
from clipaudit.samples.tables import LABEL_COLUMNS, TABLE_SUFFIXES, open_table, same_column
from clipaudit.samples.walk import Walk, is_folder

# Files of columns that may hold the images themselves.
COLUMN_SUFFIXES = (".parquet", ".arrow")
MAX_PATTERNS = 1_000_000
_BRACES = re.compile(r"\{(?:(?P<first>[0-9]{1,9})\.\.(?P<last>[0-9]{1,9})|(?P<names>[^{},]*,[^{}]*))\}")
METADATA_NAMES, PATHS_COLUMN = ("metadata.csv", "metadata.jsonl", "metadata.parquet"), "file_name"


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
            return sorted({file for pattern in expanded(str(self.path)) for file in _matching(to_path(pattern))})
        return [to_path(entry.path) for entry in Walk(self.path).entries(self.path) if not is_folder(entry)]

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
        """Whether it is a file of columns, one of them of images; SourceError where that cannot be said."""
        return self.suffix in COLUMN_SUFFIXES and image_column(self.path, self.options) is not None

    @cached_property
    def described(self) -> Path | None:
        """The one table in a folder that lists its images with their labels, as `datasets` reads an image folder."""
        tables = [file for file in self.tables if file.name.lower() in METADATA_NAMES] if self.form == "folder" else []
        for table in tables:
            columns = open_table(table).columns
            has = [any(same_column(name, usual) for name in columns) for usual in (PATHS_COLUMN, *LABEL_COLUMNS)]
            if has[0] and (any(has[1:]) or self.options.label_column in columns):
                return table
        return None

    @cached_property
    def hub(self) -> Place:
        """The folder with the Parquet files: `data` in a folder as the Hugging Face Hub lays it out, else this one."""
        inside = self.path / "data"
        is_hub = self.form == "folder" and not self.parquet_files and next(inside.glob("*.parquet"), None) is not None
        return Place(inside, self.options, "folder") if is_hub else self

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


def expanded(pattern: str) -> list[str]:
    """The patterns behind one with braces, as WebDataset writes them: `{000..099}` and `{train,val}`.

    Raises:
        UsageError: there are more than MAX_PATTERNS.
    """
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    if match["first"]:
        first, last = int(match["first"]), int(match["last"])
        if not 0 <= last - first < MAX_PATTERNS:
            raise UsageError(f"{pattern}: {match[0]} is no range of 1 to {MAX_PATTERNS:,} numbers.")
        inside = [f"{number:0{len(match['first'])}}" for number in range(first, last + 1)]
    else:
        inside = match["names"].split(",")
    head, tail = pattern[: match.start()], expanded(pattern[match.end() :])
    if len(inside) * len(tail) > MAX_PATTERNS:
        raise UsageError(f"{pattern} stands for more than {MAX_PATTERNS:,} files. Name a folder.")
    return [f"{head}{one}{rest}" for one in inside for rest in tail]


def _matching(pattern: Path) -> list[Path]:
    """The files that a pattern without braces means; SourceError where it names a single one that is not there."""
    if any(sign in pattern.name for sign in "*?["):
        return list(pattern.parent.glob(pattern.name))
    if not pattern.exists():
        raise SourceError(f"{pattern} does not exist. Name the files that there are.")
    return [pattern]


def _is_regular(file: Path) -> bool:
    try:
        return irregular(file) is None
    except OSError:
        return False
