"""Arrow IPC files, as `datasets` saves them to disk, with as much of `pyarrow.parquet.ParquetFile` as sources need.

They are mapped into memory, so that a row costs nothing but its own bytes. A record batch is what a row group is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from clipaudit.errors import SourceError
from clipaudit.files import require_file
from clipaudit.remote import is_remote
from clipaudit.samples.parquet_tables import ROWS_AT_ONCE, ParquetTable, open_parquet

SUFFIX = ".arrow"
_FILE_FORMAT = b"ARROW1"


def open_columns(path: Path) -> Any:
    """A file of columns by its ending, Arrow or Parquet; SourceError where it is none."""
    return ArrowFile(path) if path.suffix.lower() == SUFFIX else open_parquet(path)


def group_sizes(file: Any) -> list[int]:
    """Rows of each row group or record batch of what `open_columns` gave."""
    if isinstance(file, ArrowFile):
        return [batch.num_rows for batch in file.batches]
    return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]


class ArrowFile:
    """One Arrow IPC file, in the stream or the file format.

    Raises:
        SourceError: it is none, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        require_file(path, SourceError)
        self.schema_arrow: Any = self._read(lambda: self._reader().schema)

    def _reader(self) -> Any:
        import pyarrow as pa

        is_far = is_remote(self._path)
        mapped = pa.PythonFile(self._path.open("rb")) if is_far else pa.memory_map(str(self._path))
        is_file = mapped.read(len(_FILE_FORMAT)) == _FILE_FORMAT
        mapped.seek(0)
        return pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)

    def _read(self, read: Callable[[], Any]) -> Any:
        import pyarrow as pa

        try:
            return read()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SourceError(f"{self._path} is not a readable Arrow file: {error}") from None

    @cached_property
    def batches(self) -> list[Any]:
        """All record batches; their columns stay on the disk until they are looked at."""

        def every() -> list[Any]:
            reader = self._reader()
            if hasattr(reader, "num_record_batches"):
                return [reader.get_batch(number) for number in range(reader.num_record_batches)]
            return list(reader)

        return list(self._read(every))

    @property
    def num_row_groups(self) -> int:
        """Number of record batches."""
        return len(self.batches)

    def read_row_group(self, number: int, columns: Sequence[str]) -> Any:
        """A record batch's columns, after a check that none of their offsets leads out of the file."""
        batch = self.batches[number].select(list(columns))
        self._read(lambda: batch.validate(full=True))
        return batch

    def iter_batches(self, rows: int, columns: Sequence[str]) -> Iterator[Any]:
        """The columns, at most so many rows at once."""
        for number in range(self.num_row_groups):
            batch = self.read_row_group(number, columns)
            yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


class ArrowTable(ParquetTable):
    """The columns of an Arrow file that hold single values."""

    kind = "Arrow"

    def _open(self) -> Any:
        return ArrowFile(self.path)

    def _batches(self, names: Sequence[str]) -> Iterator[Any]:
        return ArrowFile(self.path).iter_batches(ROWS_AT_ONCE, names)
