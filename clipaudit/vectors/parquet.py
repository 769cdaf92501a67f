"""Vectors in a column of a Parquet file: lists of one length, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.cache.info import MAX_DIMENSION
from clipaudit.errors import SourceError
from clipaudit.samples.tables import listed, open_parquet, pick_column, same_column
from clipaudit.vectors.rows import check_dimension, rows_at_once

# Of images first: clip-retrieval and others put the embedding of a text beside that of its image.
VECTOR_COLUMNS = (
    *("image_embedding", "image_embeddings", "img_emb", "img_embedding", "image_features", "image_vector"),
    *("embedding", "embeddings", "vector", "vectors", "features", "feature", "emb", "embed", "clip_embedding"),
)
# Bytes that are read of a column at once: a row group may be as large as the file.
_BUFFER = 1 << 20


class ParquetVectors:
    """A column of vectors.

    Attributes:
        path: The file.
        n_rows: Number of vectors.
        dimension: Their length, that of the first one.
        column: Its name.
        said: What was recognised, in words.
    """

    def __init__(self, path: Path, wanted: str | None) -> None:
        """Find the column; `wanted` names it, None recognises it."""
        self.path = path
        parquet = open_parquet(path, buffer=_BUFFER)
        self.column = vector_column(path, parquet.schema_arrow, wanted)
        self.said = f"column {self.column!r}"
        self.n_rows = int(parquet.metadata.num_rows)
        self._refuse_too_long(parquet)
        self.dimension = self._first_length(parquet)
        check_dimension(self.dimension, f"{path}, row 0")

    def batches(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The number of the first row of each batch, and its (m, d) rows."""
        first = 0
        for batch in self._batches(open_parquet(self.path, buffer=_BUFFER), rows_at_once(self.dimension)):
            yield first, self._rows(batch, first)
            first += len(batch)

    def _batches(self, parquet: Any, rows: int) -> Iterator[Any]:
        import pyarrow as pa

        batches, row = parquet.iter_batches(rows, columns=[self.column]), 0
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
                column = batch.column(self.column)
            except (pa.ArrowException, OSError, ValueError, MemoryError, KeyError) as error:
                raise SourceError(f"{self.path}, after row {row:,}: damaged Parquet ({error}).") from None
            row += len(column)
            yield column.storage if isinstance(column, pa.ExtensionArray) else column

    def _refuse_too_long(self, parquet: Any) -> None:
        """Before any is decoded: a few bytes of run lengths may stand for gigabytes."""
        schema, metadata = parquet.schema, parquet.metadata
        leaves = [n for n in range(len(schema)) if schema.column(n).path.startswith(f"{self.column}.")]
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            numbers = sum(group.column(leaf).num_values for leaf in leaves)
            if numbers > MAX_DIMENSION * max(1, group.num_rows):
                raise SourceError(
                    f"{self.path}: the vectors of row group {number} have {numbers // max(1, group.num_rows):,} numbers"
                    f" on average, more than {MAX_DIMENSION:,}."
                )

    def _first_length(self, parquet: Any) -> int:
        for column in self._batches(parquet, 1):
            self._refuse_null(column, 0)
            return len(column.flatten())
        raise SourceError(f"{self.path} has no rows.")

    def _rows(self, column: Any, first: int) -> NDArray[Any]:
        import pyarrow.compute as pc

        self._refuse_null(column, first)
        lengths = np.asarray(pc.list_value_length(column).to_numpy(zero_copy_only=False))
        if (other := np.flatnonzero(lengths != self.dimension)).size:
            row = int(other[0])
            raise SourceError(
                f"{self.path}, row {first + row:,}: the vector has {lengths[row]:,} numbers, those before it have"
                f" {self.dimension:,}. All must have the same number."
            )
        values = column.flatten()
        if values.null_count:
            row = int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False))) // self.dimension
            raise SourceError(f"{self.path}, row {first + row:,}: the vector has an empty number. Compute it again.")
        numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return numbers.reshape(len(column), self.dimension)

    def _refuse_null(self, column: Any, first: int) -> None:
        if column.null_count:
            row = int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
            raise SourceError(f"{self.path}, row {first + row:,}: there is no vector. Remove the row.")


def vector_column(path: Path, schema: Any, wanted: str | None) -> str:
    """The column with the vectors.

    Raises:
        SourceError: there is none, or several that it may be, or the wanted one is none.
    """
    fitting = [field.name for field in schema if _holds_vectors(field.type)]
    if wanted is not None:
        name = pick_column(path, schema.names, wanted, VECTOR_COLUMNS, "vector")
        if name not in fitting:
            held = schema.field(name).type
            raise SourceError(
                f"{path}: column {name!r} holds {held}, not lists of float16, float32 or float64 numbers."
            )
        return name
    usual = [name for known in VECTOR_COLUMNS for name in fitting if same_column(name, known)]
    if len(set(fitting)) < len(fitting):
        raise SourceError(f"{path} has two columns of the same name. Its columns: {listed(schema.names)}.")
    if usual or len(fitting) == 1:
        return str((usual or fitting)[0])
    if fitting:
        raise SourceError(
            f"{path} has several columns that may hold the vectors: {listed(fitting)}. Say which one it is with"
            " --vector-column."
        )
    raise SourceError(
        f"{path} has no column of vectors (lists of float16, float32 or float64 numbers). Its columns:"
        f" {listed(schema.names)}."
    )


def _holds_vectors(kind: Any) -> bool:
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))
