"""Small sources for the tests: files in folders, Parquet files, and what is read from them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipaudit.samples import Source


def digit(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((28, 28), 10 * number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def touch(root: Path, *paths: str) -> Path:
    """Small images below `root`; a path that ends in `/` makes an empty folder."""
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(digit())
    return root


def write_parquet(path: Path, columns: dict[str, object], names: Sequence[str] = (), label: str = "label") -> Path:
    table = pa.table(columns)
    if names:
        feature = {"info": {"features": {label: {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(feature)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def images(n: int) -> pa.Array:
    return pa.array([digit(number) for number in range(n)])


def labels(source: Source) -> list[str]:
    return [sample.label for sample in source.samples()]


def ids(source: Source) -> list[str]:
    return [sample.id for sample in source.samples()]
