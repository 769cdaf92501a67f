"""What `--embeddings` may name: a Parquet or `.npy` file, a folder or a pattern of them, what clip-retrieval writes."""

from __future__ import annotations

import re
from pathlib import Path

from clipaudit.errors import SourceError, UsageError
from clipaudit.files import irregular
from clipaudit.remote import to_path
from clipaudit.samples.base import SourceOptions, shown, utf8
from clipaudit.samples.outputs import own_folder, own_table
from clipaudit.samples.tables import open_parquet
from clipaudit.vectors.files import VectorFile, with_table
from clipaudit.vectors.npy import NpyVectors
from clipaudit.vectors.parquet import ParquetVectors
from clipaudit.vectors.source import VectorSource

SUFFIXES = (".parquet", ".npy")
# The folders of clip-retrieval's `inference`.
_IMAGES, _METADATA = "img_emb", "metadata"
_NUMBER = re.compile(r"(\d+)$")
_KINDS = "a Parquet file with a column of vectors, a .npy file, or a folder or quoted pattern of them"


def open_vectors(path: str | Path, options: SourceOptions | None = None) -> VectorSource:
    """Recognise what `path` is and open it; of the vectors nothing but the first row is read.

    A folder with `img_emb/*.npy` (and `metadata/*.parquet`) is what clip-retrieval writes. A `.npy` file may have its
    ids and labels in a Parquet file of the same name beside it.

    Raises:
        SourceError: nothing is there, or it holds no vectors, or vectors that cannot be one data set.
        UsageError: a file of another kind, or an option that does not fit.
    """
    path, options = to_path(path), options or SourceOptions()
    if options.image_column is not None:
        raise UsageError("image_column would have no effect on vectors: there are no images in their files.")
    if not utf8(str(path.absolute())):
        raise SourceError(f"{shown(str(path))}: the path is not valid UTF-8. Rename the folder or file.")
    location = path.parent.resolve() / path.name
    return VectorSource([_file(file, options) for file in _files(path)], location, options)


def _files(path: Path) -> list[Path]:
    """The files with the vectors, in their order."""
    try:
        kind = irregular(path)
    except FileNotFoundError:
        if any(sign in path.name for sign in "*?["):
            return _all_of([file for file in path.parent.glob(path.name) if file.is_file()], path)
        raise SourceError(f"{path} does not exist. Name {_KINDS}.") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
    if kind is None:
        return _all_of([path], path)
    if kind != "a folder":
        raise SourceError(f"{path} is {kind}, not a file or folder.")
    if own := own_folder(path):
        raise SourceError(f"{path} is {own}, which holds vectors that clipaudit has already. Name {_KINDS}.")
    folder = path / _IMAGES if (path / _IMAGES).is_dir() else path
    try:
        found = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}. Check its permissions.") from None
    arrays = [file for file in found if file.suffix.lower() == ".npy"]
    return _all_of(arrays or found, path)


def _all_of(files: list[Path], path: Path) -> list[Path]:
    """The files of what was named, by their numbers where they have some; refuse what is none of vectors."""
    if not files:
        raise SourceError(f"no file of vectors has a name like {path} or lies in it. Name {_KINDS}.")
    if other := [file for file in files if file.suffix.lower() not in SUFFIXES]:
        raise UsageError(f"{other[0]} is no file of vectors that clipaudit reads. Name {_KINDS}.")
    if len({file.suffix.lower() for file in files}) > 1:
        # The tables of arrays are found by themselves.
        files = [file for file in files if file.suffix.lower() == ".npy"]
    ordered = sorted(files, key=lambda file: (_NUMBER.sub("", file.stem), int(_number(file) or 0), file.name))
    _refuse_lost(ordered)
    return ordered


def _file(path: Path, options: SourceOptions) -> VectorFile:
    if path.suffix.lower() == ".npy":
        if options.vector_column is not None:
            raise UsageError("vector_column would have no effect: .npy files have no columns.")
        return with_table(NpyVectors(path), _table_of(path), options)
    if own_table(open_parquet(path).schema_arrow) == "a part of an embeddings cache":
        raise SourceError(f"{path} is a part of an embeddings cache, which clipaudit select reads as it is.")
    return with_table(ParquetVectors(path, options.vector_column), path, options)


def _table_of(array: Path) -> Path | None:
    """The table beside an array: of its own name, or with its number as clip-retrieval has it; None where none is."""
    numbered = f"{_METADATA}_{_number(array)}.parquet"
    beside = [array.with_suffix(".parquet"), array.parent / numbered, array.parent.parent / _METADATA / numbered]
    found = next((table for table in beside if table.is_file()), None)
    if found is None and array.parent.name == _IMAGES and (array.parent.parent / _METADATA).is_dir():
        raise SourceError(
            f"{array} has no {numbered} in {array.parent.parent / _METADATA}, which should name its rows."
        )
    return found


def _refuse_lost(files: list[Path]) -> None:
    """Refuse tables of clip-retrieval whose array is gone: their rows would be missing unseen."""
    folders = {file.parent.parent / _METADATA for file in files if file.parent.name == _IMAGES}
    every = {number for folder in {file.parent for file in files} for number in map(_number, folder.glob("*.npy"))}
    for folder in sorted(folders):
        for table in sorted(folder.glob(f"{_METADATA}_*.parquet")):
            if _number(table) not in every:
                raise SourceError(
                    f"{table} has no array {_IMAGES}_{_number(table)}.npy. Copy it there, or remove the table."
                )


def _number(file: Path) -> str:
    found = _NUMBER.search(file.stem)
    return found[1] if found else ""
