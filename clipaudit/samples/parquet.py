"""Parquet files that hold the images themselves, as the Hugging Face Hub stores image data sets."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from clipaudit.errors import ImageError, SourceError
from clipaudit.samples.base import Sample, SourceOptions, label_name
from clipaudit.samples.tables import LABEL_COLUMNS, open_parquet, pick_column, table_rows

# Decoding threads work on neighbouring rows, so that two row groups at a time are enough.
CACHED_ROW_GROUPS = 2


class ParquetSource:
    """One image a row; its id is `file.parquet#row`. Several files follow each other in order of their names."""

    def __init__(self, files: Sequence[Path], options: SourceOptions) -> None:
        self.location = files[0].resolve() if len(files) == 1 else files[0].resolve().parent
        self.root = files[0].resolve().parent
        column = image_column(files[0], options)
        if column is None:
            raise SourceError(f"{files[0]} has no column of image bytes.")
        self.image_column = column
        self._files = {file.name: file for file in files}
        columns = open_parquet(files[0]).schema_arrow.names
        self._label_column = pick_column(files[0], columns, options.label_column, LABEL_COLUMNS, "label")
        self.class_names: Sequence[str] | None = options.names or _hub_class_names(files[0], self._label_column)
        self._images = {name: ImageColumn(file, column) for name, file in self._files.items()}

    def samples(self) -> Iterator[Sample]:
        """All rows, file by file."""
        known, found = frozenset(self.class_names or ()), False
        for name, file in self._files.items():
            status = file.stat()
            for number, (where, row) in enumerate(table_rows(file, (self._label_column,))):
                label = label_name(row[self._label_column], self.class_names, known, where)
                found = True
                yield Sample(f"{name}#{number}", label, status.st_size, status.st_mtime_ns)
        if not found:
            raise SourceError(f"{self.location} has no rows.")

    def read(self, sample_id: str) -> bytes:
        """The bytes of the image in one row."""
        name, _, row = sample_id.rpartition("#")
        return self._images[name].read(int(row))

    def notes(self) -> list[str]:
        """Nothing is passed over."""
        return []


class ImageColumn:
    """Random access to the images of one file, a row group at a time."""

    def __init__(self, file: Path, column: str) -> None:
        self._file, self._column = file, column
        self._lock = Lock()
        self._parquet: Any = None
        self._starts: list[int] = []
        self._groups: OrderedDict[int, Any] = OrderedDict()

    def read(self, row: int) -> bytes:
        """The bytes in one row; safe to call from several threads. Raises ImageError."""
        with self._lock:
            group = self._row_group(row)
            value = group[0][row - group[1]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            raise ImageError("the row holds no image bytes")
        return bytes(data)

    def _row_group(self, row: int) -> Any:
        if self._parquet is None:
            self._parquet = open_parquet(self._file)
            sizes = [self._parquet.metadata.row_group(i).num_rows for i in range(self._parquet.num_row_groups)]
            self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        number = bisect_right(self._starts, row) - 1
        if number not in self._groups:
            try:
                column = self._parquet.read_row_group(number, columns=[self._column])[self._column]
            except Exception as error:
                raise ImageError(f"row group {number} of {self._file.name} is damaged: {error}") from None
            self._groups[number] = (column, self._starts[number])
            if len(self._groups) > CACHED_ROW_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(number)
        return self._groups[number]


def image_column(path: Path, options: SourceOptions) -> str | None:
    """The column of a Parquet file that holds image bytes (binary or `{bytes, path}`), or None.

    Raises:
        SourceError: the file is no Parquet, or the column named in the options holds no bytes.
    """
    import pyarrow as pa

    def holds_bytes(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    schema = open_parquet(path).schema_arrow
    fitting = [field.name for field in schema if holds_bytes(field.type)]
    wanted = options.image_column
    if wanted is None:
        return fitting[0] if fitting else None
    if wanted not in fitting:
        raise SourceError(
            f"{path} has no column {wanted!r} of image bytes. Columns with bytes: {', '.join(fitting) or 'none'}."
        )
    return wanted


def _hub_class_names(path: Path, label_column: str) -> list[str] | None:
    """The class names that the Hugging Face Hub writes into a file's schema beside integer labels."""
    metadata = open_parquet(path).schema_arrow.metadata or {}
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][label_column]
        return [str(name) for name in feature["names"]]
    except (KeyError, TypeError, ValueError):
        return None
