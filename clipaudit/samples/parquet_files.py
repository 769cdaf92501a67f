"""Several Parquet files that lie together: which of them hold images, and whether these are one data set."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipaudit.errors import SourceError
from clipaudit.samples.base import SourceOptions, shown, utf8
from clipaudit.samples.image_column import bytes_columns, image_column
from clipaudit.samples.layout import different_splits, is_split
from clipaudit.samples.outputs import own_table
from clipaudit.samples.tables import open_parquet

_HUB_NAME = re.compile(r"(.+?)-\d+-of-\d+(-[0-9a-f]+)?")
_SHARD_NUMBER = re.compile(r"[-_. ]?\d+$")


@dataclass
class ParquetFiles:
    """Parquet files by what they are.

    Attributes:
        images: Data sets.
        tables: Others, that hold no images.
        faults: What is wrong with those that cannot be either.
        own: Names of those that clipaudit wrote, with what they are.
    """

    images: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    faults: list[SourceError] = field(default_factory=list)
    own: dict[str, str] = field(default_factory=dict)

    @classmethod
    def sort(cls, files: Sequence[Path], options: SourceOptions) -> ParquetFiles:
        """Look at each file."""
        sorted_files = cls()
        for file in files:
            try:
                if not utf8(file.name):
                    raise SourceError(f"{shown(str(file))}: the name is not valid UTF-8. Rename the file.")
                schema = open_parquet(file).schema_arrow
                if kind := own_table(schema):
                    sorted_files.own[file.name] = kind
                elif _holds_images(file, schema, options):
                    sorted_files.images.append(file)
                else:
                    sorted_files.tables.append(file)
            except SourceError as error:
                sorted_files.faults.append(error)
        return sorted_files

    def data_set(self) -> list[Path]:
        """The files with images; SourceError where others that clipaudit has not written lie beside them."""
        if self.faults:
            raise self.faults[0]
        if self.tables:
            file = self.tables[0]
            raise SourceError(
                f"{file} has no images, unlike the Parquet files beside it. Its columns:"
                f" {', '.join(open_parquet(file).schema_arrow.names)}. Move it elsewhere, or name the files to read"
                f" with a pattern in quotes, for example '{file.parent / 'train-*.parquet'}'."
            )
        if not self.images:
            name, kind = next(iter(self.own.items()))
            raise SourceError(f"{name} is {kind}, not a source. Name files with images.")
        return self.images

    def notes(self) -> list[str]:
        """What is passed over."""
        return [f"{name} ({kind}) passed over" for name, kind in self.own.items()]


def refuse_splits(path: Path, files: Sequence[Path]) -> None:
    """Refuse files of several splits; in names as the Hugging Face Hub gives them, whatever stands first is a split."""
    hub = {file: match[1] for file in files if (match := _HUB_NAME.fullmatch(file.stem))}
    splits = {file: hub.get(file) or _SHARD_NUMBER.sub("", file.stem) for file in files}
    counts = Counter(splits.values())
    if len(counts) < 2:
        return
    if len(set(hub.values())) > 1 or any(map(is_split, counts)) or different_splits(counts):
        first = glob.escape(counts.most_common(1)[0][0]) + ("-[0-9]*.parquet" if hub else "*.parquet")
        found = ", ".join(f"{split or '(no name)'} ({count:,} file(s))" for split, count in counts.items())
        raise SourceError(
            f"{path} holds several splits: {found}. Name one, or all of them, with a pattern in quotes:"
            f" '{path / first}' or '{path / '*.parquet'}'"
        )


def _holds_images(file: Path, schema: Any, options: SourceOptions) -> bool:
    if options.image_column:
        return options.image_column in bytes_columns(schema)
    return image_column(file, options) is not None
