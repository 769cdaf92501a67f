"""A folder that Hugging Face `datasets` loads: the images themselves, their labels, and what the audit says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipaudit.errors import ImageError
from clipaudit.exports.base import Format
from clipaudit.files import new_folder
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.huggingface import COLUMNS, KEY, class_indices, class_label, value_feature
from clipaudit.samples.reader import ImageReader

ROWS_A_FILE, ROWS_AT_ONCE = 20_000, 500
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _write(index: CleanIndex, path: Path) -> list[str]:
    """Parquet files in `data/`, as the Hub has them."""
    reader, missing = ImageReader(index.metadata), 0
    table = _numbered(index)
    schema = _described(table.schema, index.class_names)
    n_files = max(1, -(-len(table) // ROWS_A_FILE))
    with new_folder(path) as folder:
        (folder / "data").mkdir()
        for number in range(n_files):
            file = folder / "data" / f"train-{number:05}-of-{n_files:05}.parquet"
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                for batch in _batches(table.slice(number * ROWS_A_FILE, ROWS_A_FILE)):
                    images = [_image(reader, sample_id) for sample_id in batch["id"].to_pylist()]
                    missing += images.count(None)
                    held = batch.add_column(0, "image", pa.array(images, _IMAGE))
                    writer.write_table(held.replace_schema_metadata(schema.metadata))
    return [f"{missing:,} image(s) could not be read; their rows have none"] if missing else []


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, len(table), ROWS_AT_ONCE):
        yield table.slice(start, ROWS_AT_ONCE)


def _image(reader: ImageReader, sample_id: str) -> dict[str, object] | None:
    try:
        return {"bytes": reader.read(sample_id), "path": Path(sample_id).name}
    except ImageError:
        return None


def _numbered(index: CleanIndex) -> pa.Table:
    """The index's columns without the path of an image that comes along; classes as numbers, other names as text."""
    table = index.table.drop_columns(["path"])
    for place, name in enumerate(table.column_names):
        column = table[name]
        if name in COLUMNS:
            column = class_indices(column, index.class_names)
        elif pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        elif pa.types.is_null(column.type):
            column = column.cast(pa.string())
        table = table.set_column(place, name, column)
    return table


def _described(schema: pa.Schema, class_names: list[str]) -> pa.Schema:
    """The schema with the images, and what `datasets` is told of each column."""
    features = {"image": {"_type": "Image"}} | {
        field.name: class_label(class_names) if field.name in COLUMNS else value_feature(field.type) for field in schema
    }
    said = {KEY: json.dumps({"info": {"features": features}}, ensure_ascii=False)}
    return pa.schema([pa.field("image", _IMAGE), *schema], said)


HUGGING_FACE = Format("huggingface", "", "a folder for `datasets`, with the images", _write, told=False)
