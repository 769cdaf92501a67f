"""Manifests: a table with a path and a label a row, as CSV, TSV, JSONL or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.samples.base import (
    Sample,
    SourceOptions,
    UniqueIds,
    label_name,
    read_file,
    relative_id,
    stat_sample,
)
from clipaudit.samples.tables import LABEL_COLUMNS, PATH_COLUMNS, pick_column, table_columns, table_rows


class ManifestSource:
    """One image a row; relative paths are resolved against the manifest's own folder."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.location = path.resolve()
        self.root = self.location.parent
        self.class_names: Sequence[str] | None = options.names
        self._path = path
        columns = table_columns(path)
        self._path_column = pick_column(path, columns, options.path_column, PATH_COLUMNS, "path")
        self._label_column = pick_column(path, columns, options.label_column, LABEL_COLUMNS, "label")

    def samples(self) -> Iterator[Sample]:
        """All rows in the manifest's order."""
        unique, known, count = UniqueIds(), frozenset(self.class_names or ()), 0
        for where, row in table_rows(self._path, (self._path_column, self._label_column)):
            value = row[self._path_column]
            if not isinstance(value, str) or not value or "\0" in value:
                raise SourceError(f"{where}: the path is {'missing' if not value else 'not a path: ' + repr(value)}.")
            label = label_name(row[self._label_column], self.class_names, known, where)
            sample_id = relative_id(self.root, value)
            sample = stat_sample(self.root, sample_id, label)
            unique.add(sample.id)
            count += 1
            yield sample
        if not count:
            raise SourceError(f"{self._path} has a header but no rows.")
        if repetition := unique.first_repetition():
            first, second = (self._row_name(number) for number in repetition)
            raise SourceError(f"{second}: the path was listed before, in {first}. Keep one row an image.")

    def _row_name(self, position: int) -> str:
        rows = table_rows(self._path, (self._path_column,))
        return next(where for number, (where, _) in enumerate(rows) if number == position)

    def read(self, sample_id: str) -> bytes:
        """The bytes of the image file."""
        return read_file(self.root / sample_id)

    def notes(self) -> list[str]:
        """Nothing in a manifest is passed over."""
        return []
