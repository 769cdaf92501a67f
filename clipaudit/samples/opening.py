"""What a path is as a source: every guess is checked, and what cannot be right is refused."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipaudit.errors import SourceError, UsageError
from clipaudit.files import irregular
from clipaudit.samples.base import Source, SourceOptions, shown, utf8
from clipaudit.samples.folder import FolderSource, no_images, top_folders
from clipaudit.samples.image_column import bytes_columns, image_column
from clipaudit.samples.layout import different_splits, is_split
from clipaudit.samples.manifest import ManifestSource
from clipaudit.samples.outputs import own_folder, own_table
from clipaudit.samples.parquet import ParquetSource
from clipaudit.samples.tables import PATH_COLUMNS, TABLE_SUFFIXES, open_parquet
from clipaudit.samples.walk import Walk, is_folder

_HUB_NAME = re.compile(r"(.+?)-\d+-of-\d+(-[0-9a-f]+)?")
_SHARD_NUMBER = re.compile(r"[-_. ]?\d+$")
NAMES_SHOWN = 3


def open_source(path: str | Path, options: SourceOptions | None = None) -> Source:
    """Recognise what `path` is and open it; of tables nothing but headers and first values are read.

    A folder is read as one subfolder a class, or, where it holds Parquet files with images, as one Parquet data set. A
    Parquet file with an image column (bytes, or the Hugging Face struct `{bytes, path}`) is a data set, without one a
    manifest. CSV, TSV and JSONL files are manifests. `data/train-*.parquet` names the Parquet files that match.
    docs/sources.md tells how each is decided, and what is refused.

    Raises:
        SourceError: nothing is there, what is there has no labelled images, or it cannot be what it looks like.
        UsageError: a file of a kind that is not known, or an option that does not fit the source.
    """
    path, options = Path(path), options or SourceOptions()
    if not utf8(str(path.absolute())):
        raise SourceError(f"{shown(str(path))}: the path is not valid UTF-8. Rename the folder or file.")
    try:
        kind = irregular(path)
    except FileNotFoundError:
        if any(sign in path.name for sign in "*?["):
            return _open_pattern(path, options)
        raise SourceError(
            f"{path} does not exist. Name a folder of class folders, a manifest or a Parquet file."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} cannot be opened: {reason}. Check the path and its permissions.") from None
    if kind == "a folder":
        return _open_folder(path, options)
    if kind:
        raise SourceError(f"{path} is {kind}, not a file or folder.")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise UsageError(
            f"{path} is not a kind of source that clipaudit reads. Use a folder with one subfolder a class, a manifest"
            f" ({', '.join(TABLE_SUFFIXES)}) or Parquet files with an image column."
        )
    if path.suffix.lower() == ".parquet" and _is_data_set(path, options):
        return ParquetSource([path], options)
    return ManifestSource(path, options)


def _is_data_set(path: Path, options: SourceOptions) -> bool:
    """Whether a Parquet file holds images; SourceError where it could be neither that nor a manifest."""
    if image_column(path, options) is not None:
        return True
    columns = open_parquet(path).schema_arrow.names
    if options.path_column is None and not any(name.strip().lower() in PATH_COLUMNS for name in columns):
        raise SourceError(
            f"{path} has no column of images and none of paths that clipaudit recognises. Its columns:"
            f" {', '.join(columns)}. Say which one it is with --image-column or --path-column."
        )
    return False


@dataclass
class _ParquetFiles:
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
    def sort(cls, files: Sequence[Path], options: SourceOptions) -> _ParquetFiles:
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

    def notes(self) -> list[str]:
        """What is passed over."""
        return [f"{name} ({kind}) passed over" for name, kind in self.own.items()]


def _holds_images(file: Path, schema: Any, options: SourceOptions) -> bool:
    if options.image_column:
        return options.image_column in bytes_columns(schema)
    return image_column(file, options) is not None


def _open_folder(path: Path, options: SourceOptions) -> Source:
    if kind := own_folder(path):
        raise SourceError(f"{path} is {kind}, not a source. Name the images: a folder, a manifest or Parquet files.")
    files = [Path(entry.path) for entry in Walk(path).entries(path) if not is_folder(entry)]
    tables = [file for file in files if file.suffix.lower() in TABLE_SUFFIXES and _is_regular(file)]
    parquet = _ParquetFiles.sort([file for file in tables if file.suffix.lower() == ".parquet"], options)
    classes = [top.name for top in top_folders(path.resolve())]
    if parquet.images and classes:
        raise SourceError(
            f"{path} has class folders with images ({_some(classes)}) and Parquet files with images"
            f" ({_some(file.name for file in parquet.images)}). Say which are meant: name the files with"
            f" '{path / '*.parquet'}' (in quotes), or move them elsewhere to read the folders."
        )
    if classes:
        others = [file.name for file in files if file.suffix.lower() in TABLE_SUFFIXES and file.name not in parquet.own]
        notes = [
            f"{shown(name)} passed over; name it as the source to read images and labels from it" for name in others
        ]
        return FolderSource(path, options, [*parquet.notes(), *notes])
    if parquet.images:
        _refuse_splits(path, parquet.images)
        return _open_parquet(parquet, options)
    if parquet.faults:
        raise parquet.faults[0]
    raise SourceError(_nothing_found(path, tables))


def _open_pattern(path: Path, options: SourceOptions) -> Source:
    files = sorted(file for file in path.parent.glob(path.name) if file.suffix.lower() == ".parquet")
    parquet = _ParquetFiles.sort([file for file in files if _is_regular(file)], options)
    if not files:
        raise SourceError(f"no Parquet file has a name like {path}. Check the pattern, or name a folder.")
    return _open_parquet(parquet, options, location=path.parent.resolve() / path.name)


def _open_parquet(parquet: _ParquetFiles, options: SourceOptions, location: Path | None = None) -> ParquetSource:
    """Several files as one data set; SourceError where not all of them hold images."""
    if parquet.faults:
        raise parquet.faults[0]
    if parquet.tables:
        file = parquet.tables[0]
        raise SourceError(
            f"{file} has no images, unlike the Parquet files beside it. Its columns:"
            f" {', '.join(open_parquet(file).schema_arrow.names)}. Move it elsewhere, or name the files to read with a"
            f" pattern in quotes, for example '{file.parent / 'train-*.parquet'}'."
        )
    if not parquet.images:
        name, kind = next(iter(parquet.own.items()))
        raise SourceError(f"{name} is {kind}, not a source. Name files with images.")
    return ParquetSource(parquet.images, options, location=location, notes=parquet.notes())


def _refuse_splits(path: Path, files: Sequence[Path]) -> None:
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


def _nothing_found(path: Path, tables: Sequence[Path]) -> str:
    folders = [entry for entry in Walk(path).entries(path) if is_folder(entry)]
    shards = [Path(entry.path) for entry in folders if next(Path(entry.path).glob("*.parquet"), None)]
    if shards:
        return f"{path} has no images itself, but {shards[0].name} holds Parquet files: name {shards[0]}"
    if tables:
        return f"{path} has no class folders with images. Name the table instead, if it lists images: {tables[0]}"
    if folders:
        return no_images(path)
    return (
        f"{path} has no class folders. Put the images of each class into a subfolder named after the class"
        " (photos/cat/1.jpg), or name a manifest with a path and a label column instead."
    )


def _is_regular(file: Path) -> bool:
    try:
        return irregular(file) is None
    except OSError:
        return False


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
