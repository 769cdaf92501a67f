"""Vectors in `.npy` files, a batch at a time. Nothing is unpickled, and nothing that a header claims is believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from clipaudit.errors import SourceError
from clipaudit.files import require_file
from clipaudit.vectors.rows import check_dimension, rows_at_once

# Versions of the format that hold plain numbers.
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpyVectors:
    """An array of n rows and d columns in a file.

    Attributes:
        path: The file.
        n_rows: n.
        dimension: d.
        said: What was recognised, in words.
    """

    def __init__(self, path: Path) -> None:
        """Read the header, and compare what it claims with the size of the file."""
        self.path, self.said = path, "rows of .npy files"
        require_file(path, SourceError)
        try:
            with path.open("rb") as file:
                shape, by_columns, self._type = _header(file)
                self._start = file.tell()
                size = file.seek(0, 2)
        # A header is a Python expression: a damaged one may be wrong in any way.
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SourceError(f"{path} is not a readable .npy file: {reason}") from None
        if self._type.kind != "f" or self._type.itemsize > 8:
            raise SourceError(
                f"{path} holds {self._type}, not float16, float32 or float64. Save numbers of these types."
            )
        if len(shape) != 2 or min(shape) < 0:
            raise SourceError(f"{path} has the shape {shape}, not (number of vectors, numbers in each).")
        if by_columns and 1 not in shape:
            raise SourceError(
                f"{path} is stored column by column. Save it again: np.save(file, np.ascontiguousarray(x))"
            )
        self.n_rows, self.dimension = shape
        check_dimension(self.dimension, str(path))
        width = self.dimension * self._type.itemsize
        if size - self._start < self.n_rows * width:
            whole = (size - self._start) // width
            raise SourceError(f"{path}, row {whole:,}: the file ends here, though it should have {self.n_rows:,} rows.")

    def batches(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The number of the first row of each batch, and its (m, d) rows."""
        rows, width = rows_at_once(self.dimension), self.dimension * self._type.itemsize
        try:
            with self.path.open("rb") as file:
                file.seek(self._start)
                for first in range(0, self.n_rows, rows):
                    count = min(rows, self.n_rows - first)
                    data = file.read(count * width)
                    if len(data) < count * width:
                        raise SourceError(f"{self.path}, row {first + len(data) // width:,}: the file ends here.")
                    yield first, np.frombuffer(data, self._type).reshape(count, self.dimension)
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read: {error.strerror or error}.") from None


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is stored column by column, and type."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its format {version} is not read")
    return _HEADERS[version](file)
