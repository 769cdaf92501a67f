"""What a clean index's file says to Hugging Face `datasets`, so that class names come with it.

`datasets` takes a column for a ClassLabel only where the file stores it as int64: it passes over what the metadata say
of any other. The columns of names stay as they are, for everything else that reads them; beside each one lies the same
as class indices, which `read_index` takes off again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clipaudit.errors import UsageError

KEY = b"huggingface"
# What pipelines train on. The estimates' own predictions stay names alone: the metadata repeat all names by the column.
COLUMNS = ("label", "suggested_label", "label_given")
_VALUE_TYPES = {"halffloat": "float16", "float": "float32", "double": "float64", "string_view": "string"}


def index_column(name: str) -> str:
    """The column with the class indices of a column of class names."""
    return f"{name}_index"


def with_indices(table: pa.Table, class_names: Sequence[str]) -> pa.Table:
    """The table as a file holds it: the columns of class indices follow those of names.

    Raises:
        UsageError: it has a column of such a name that says something else.
    """
    for name in (name for name in COLUMNS if name in table.column_names):
        indices, held = class_indices(table[name], class_names), index_column(name)
        if held in table.column_names:
            if not _same(table[held], indices):
                raise UsageError(
                    f"column {held!r} does not hold the class indices of {name!r}, for which its name stands in the"
                    " file. Remove or rename it."
                )
            table = table.drop_columns([held])
        table = table.add_column(table.column_names.index(name) + 1, held, indices)
    return table


def without_indices(table: pa.Table, class_names: Sequence[str], metadata: Mapping[bytes, bytes]) -> pa.Table | str:
    """The inverse of `with_indices`; or, in words, what is wrong.

    A file of an earlier clipaudit may have a column of the user's own by such a name, which stays.

    Args:
        table: A valid one.
        class_names: K names, in their order.
        metadata: What the file says.
    """
    said = _class_labels(metadata)
    for name in COLUMNS:
        held = index_column(name)
        if held in said and held not in table.column_names:
            return f"column {held!r} is gone"
        if name not in table.column_names or held not in table.column_names:
            continue
        if _same(table[held], class_indices(table[name], class_names)):
            table = table.drop_columns([held])
        elif held in said:
            return f"column {held!r} does not hold the class indices of {name!r}"
    return table


def features(table: pa.Table, class_names: Sequence[str]) -> bytes:
    """The features of `datasets`, as the file's metadata hold them under KEY.

    Args:
        table: With the columns of class indices.
        class_names: K names, in their order.
    """
    labels = {index_column(name) for name in COLUMNS}
    found = {
        field.name: class_label(class_names) if field.name in labels else value_feature(field.type)
        for field in table.schema
    }
    return json.dumps({"info": {"features": found}}, ensure_ascii=False).encode()


def class_label(class_names: Sequence[str]) -> dict[str, object]:
    """What `datasets` calls a column of class indices."""
    return {"names": list(class_names), "_type": "ClassLabel"}


def value_feature(kind: pa.DataType) -> dict[str, object]:
    """What `datasets` calls a column of single values."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return {"dtype": _VALUE_TYPES.get(str(kind), str(kind)), "_type": "Value"}


def _class_labels(metadata: Mapping[bytes, bytes]) -> set[str]:
    """The columns that the metadata call class labels; none where they are damaged."""
    try:
        said: Any = json.loads(metadata.get(KEY, b"{}"))["info"]["features"]
        return {name for name, feature in said.items() if feature["_type"] == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def class_indices(names: pa.ChunkedArray, class_names: Sequence[str]) -> pa.ChunkedArray:
    """A column of class names as class indices: (n,) int64, null where there is no class."""
    return pc.index_in(_texts(names), pa.array(class_names, pa.string())).cast(pa.int64())


def _texts(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """The names, of whatever text type; null where they are no text at all."""
    try:
        return names.cast(pa.string())
    except pa.ArrowException:
        return pa.chunked_array([pa.nulls(len(names), pa.string())])


def _same(held: pa.ChunkedArray, indices: pa.ChunkedArray) -> bool:
    """The same numbers; other software stores them as floating-point numbers, with NaN for null."""
    try:
        numbers = held.cast(pa.float64())
    except pa.ArrowException:
        return False
    numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
    return bool(numbers.equals(indices.cast(pa.float64())))
