"""The parts of an embeddings cache: their columns, and the check of everything that is read from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipaudit.copies.hashes import DIGEST_BYTES, ImageHashes
from clipaudit.errors import CacheError
from clipaudit.images.quality import MEASURES, Measures
from clipaudit.remote import library_input

DELETE = "Delete it and run the same embed command again."
MAX_PART = 4096
# Of the image; null where it could not be read or nobody looked. Parts of an earlier clipaudit have none of them.
HASHES = {"content": pa.binary(DIGEST_BYTES), "pixels": pa.binary(DIGEST_BYTES), "look": pa.uint64()}
FACTS = {**HASHES, "quality": pa.struct([(name, pa.float64()) for name in MEASURES])}


@dataclass(frozen=True)
class ImageFacts:
    """What is kept of an image beside its embedding.

    Attributes:
        hashes: To find its copies by.
        quality: What `clipaudit.images.quality` measured; None where it did not.
    """

    hashes: ImageHashes
    quality: Measures | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ImageFacts | None:
        """What the columns FACTS of a part's row say."""
        if row["content"] is None:
            return None
        return cls(ImageHashes(**{name: row[name] for name in HASHES}), row["quality"])

    def value(self, column: str) -> Any:
        """What one of FACTS holds."""
        return self.quality if column == "quality" else getattr(self.hashes, column)


def part_columns(dimension: int) -> dict[str, pa.DataType]:
    """The columns of a part."""
    return {
        "id": pa.string(),
        "label": pa.string(),
        "size": pa.int64(),
        "modified": pa.int64(),
        "status": pa.string(),
        "reason": pa.string(),
        **FACTS,
        "embedding": pa.list_(pa.float16(), dimension),
    }


def read_part(file: Path, columns: Mapping[str, pa.DataType], digest: str) -> pa.Table | None:
    """Some columns of a part, checked; None where it holds embeddings of another model.

    Args:
        file: The part. Its checksum is right, so that a fault in it is somebody's, not the disk's.
        columns: What to read, of `part_columns`.
        digest: Of the model's fingerprint.

    Raises:
        CacheError: what is wrong with it.
        FileNotFoundError: it is gone.
    """
    try:
        with pq.ParquetFile(library_input(file)) as part:
            if (part.schema_arrow.metadata or {}).get(b"clipaudit.model") != digest.encode():
                return None
            if part.metadata.num_rows > MAX_PART:
                raise CacheError(f"{file} holds more than {MAX_PART:,} samples. {DELETE}")
            table = part.read(list(columns))
        for name in FACTS.keys() & (columns.keys() - set(table.column_names)):
            table = table.append_column(name, pa.nulls(len(table), FACTS[name]))
        table.validate(full=True)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CacheError(f"{file} cannot be read: {error}. {DELETE}") from None
    if fault := _part_fault(table, columns):
        raise CacheError(f"{file} is damaged: {fault}. {DELETE}")
    return table


def holds_unreadable(file: Path) -> bool:
    """Whether a part has images that could not be read, by the end of the file alone.

    Raises:
        OSError, ValueError, pa.ArrowException: it is gone, or no whole Parquet file.
    """
    metadata = pq.read_metadata(library_input(file))
    column = list(part_columns(1)).index("status")
    groups = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
    return not all(group is not None and group.has_min_max and group.max == "ok" for group in groups)


def _part_fault(table: pa.Table, columns: Mapping[str, pa.DataType]) -> str | None:
    held = {field.name: field.type for field in table.schema}
    if len(held) < table.num_columns:
        return "it has a column more than once"
    for name, kind in columns.items():
        if held.get(name) != kind:
            return f"its column {name!r} is {held.get(name, 'missing')}, not {kind}"
        if name not in ("reason", *FACTS) and table[name].null_count:
            return f"its column {name!r} has empty rows"
    if "status" in columns and not pc.all(pc.is_in(table["status"], pa.array(["ok", "unreadable"]))).as_py():
        return "its column 'status' has other values than 'ok' and 'unreadable'"
    finite = all(map(_is_finite, table["embedding"].chunks)) if "embedding" in columns else True
    return None if finite else "an embedding is not finite"


def _is_finite(vectors: pa.FixedSizeListArray) -> bool:
    numbers = vectors.flatten()
    # Half-precision numbers whose exponent has all bits set are infinite or NaN.
    return not numbers.null_count and not ((numbers.to_numpy().view(np.uint16) & 0x7C00) == 0x7C00).any()


def checksum(data: bytes) -> str:
    """What the name of a file of the cache says about its content."""
    return blake2b(data, digest_size=8).hexdigest()
