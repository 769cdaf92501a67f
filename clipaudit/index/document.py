"""What a clean index's file says about itself, as `read_index` takes it: its format, and names of an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from clipaudit import __version__
from clipaudit.checked import NewerError, is_count, parse_json
from clipaudit.errors import IndexFileError
from clipaudit.index.file import REMEDY
from clipaudit.index.format1 import former_names, upgraded
from clipaudit.index.metadata import IndexMetadata
from clipaudit.vocabulary import EstimateTerm

FORMAT = 2


def parsed_metadata(path: Path, document: bytes) -> tuple[int, IndexMetadata]:
    """The number of the file's format, and what the file says about itself, as the newest format has it."""
    try:
        content = parse_json(document)
        number = content.pop("format")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IndexFileError(f"{path} has damaged metadata. {REMEDY}") from None
    if not is_count(number) or not 1 <= number <= FORMAT:
        raise IndexFileError(
            f"{path} has the format {number!r:.40}, and this clipaudit ({__version__}) reads 1 to {FORMAT}: another"
            " version wrote it. Update clipaudit, or make it again with: clipaudit select"
        )
    try:
        return number, IndexMetadata.from_dict(upgraded(content) if number == 1 else content)
    except NewerError as error:
        raise IndexFileError(
            f"{path} has {str(error)!r} in its metadata, which this clipaudit ({__version__}) does not know: a newer"
            " version wrote it. Update clipaudit, or make it again with: clipaudit select"
        ) from None
    except ValueError as error:
        raise IndexFileError(f"{path} has damaged metadata: {error}. {REMEDY}") from None


def renamed(path: Path, table: pa.Table, estimates: Sequence[EstimateTerm]) -> pa.Table:
    """A table of format 1 with the names of its columns in format 2."""
    names = {former: now for now, former in former_names(estimates).items()}
    if taken := [name for name in names.values() if name in table.column_names]:
        raise IndexFileError(
            f"{path} is of format 1 and has a column {taken[0]!r} that is not clipaudit's, which is the name of another"
            " column now. Rename it, or make the index again with: clipaudit select"
        )
    return table.rename_columns([names.get(name, name) for name in table.column_names])


def without_metadata(path: Path, table: pa.Table) -> str:
    """What to say of a file without the metadata of an index."""
    if {"id", "label", "status", "is_clean"} <= set(table.column_names):
        return (
            f"{path} has the columns of a clean index, but lost its metadata, which pandas, polars and other software"
            f" leave out. {REMEDY}"
        )
    return f"{path} is no clean index: clipaudit did not write it. Make one with: clipaudit select"
