"""What a clean index's table must hold, as data: its columns, and the digest that shows damage.

`read_index` passes every file through here, so that whatever takes a CleanIndex may rely on all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipaudit.images.quality import ISSUES, flag_column, score_column
from clipaudit.index.marks import MARKS
from clipaudit.vocabulary import SCORES, EstimateTerm, verdicts_of

TEXT, FLAG, CLASS = pa.string(), pa.bool_(), pa.dictionary(pa.int32(), pa.string())
SINGLE, DOUBLE = pa.float32(), pa.float64()
# Rounding may carry a probability or a loss past its bound by a few of the last digits of single precision.
_ROUNDING = 1e-5
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Column:
    """One column of the index.

    Attributes:
        name: Its name.
        type: What it is in memory; a file may hold the same values in another type (see `_typed`).
        nulls: "never", "unreadable" (only where the image could not be read) or "anywhere".
        range: Least and largest number.
        values: All values that a text may have.
    """

    name: str
    type: pa.DataType
    nulls: str = "unreadable"
    range: tuple[float, float] = (0.0, 1.0)
    values: tuple[str, ...] = ()


P_WRONG, REVIEW_CHANCE = "p_wrong", "review_chance"
OFF_TOPIC_SCORE, LOOKS_LIKE = "off_topic_score", "looks_like"
DUPLICATE_GROUP, DUPLICATE_KIND, DUPLICATE_CONFLICT = "duplicate_group", "duplicate_kind", "duplicate_conflict"
EXACT, NEAR = "exact", "near"
# `apply` writes them: both or neither.
_OF_REVIEWS = (Column("reviewed", TEXT, "anywhere", values=MARKS), Column("label_given", CLASS, "never"))


# Files of an earlier clipaudit lack some of them, those from which nothing was drawn `review_chance`, those of few
# images the scores of strangers, and those of images that were not measured their quality.
_OPTIONAL = (
    Column(P_WRONG, SINGLE),
    Column(REVIEW_CHANCE, DOUBLE, "anywhere"),
    Column(OFF_TOPIC_SCORE, SINGLE),
    Column(LOOKS_LIKE, TEXT, "anywhere"),
    Column(DUPLICATE_GROUP, TEXT, "anywhere"),
    Column(DUPLICATE_KIND, TEXT, "anywhere", values=(EXACT, NEAR)),
    Column(DUPLICATE_CONFLICT, FLAG),
    *(Column(flag_column(issue), FLAG, "anywhere") for issue in ISSUES),
    *(Column(score_column(issue), SINGLE, "anywhere") for issue in ISSUES),
)


def columns_of(estimates: Sequence[EstimateTerm]) -> tuple[Column, ...]:
    """The columns of an index of these estimates, in their order; those that may lack last."""
    return (
        Column("id", TEXT, "never"),
        Column("path", TEXT, "never"),
        Column("status", TEXT, "never", values=("ok", "unreadable")),
        Column("reason", TEXT, "anywhere"),
        Column("label", CLASS, "never"),
        Column("is_clean", FLAG, "never"),
        Column("clean_score", DOUBLE),
        # Empty as well where an image shows none of the classes.
        Column("suggested_label", CLASS, "anywhere"),
        Column("suggested_probability", SINGLE, "anywhere"),
        *(Column(verdict.column, FLAG) for verdict in verdicts_of(estimates)),
        Column("fallback", FLAG),
        *(column for term in estimates for column in _of_estimate(term)),
        *_OPTIONAL,
        *_OF_REVIEWS,
    )


def _of_estimate(term: EstimateTerm) -> Iterator[Column]:
    yield Column(term.column("label"), CLASS)
    for score in SCORES:
        high = _LARGEST if score.high is None else score.high
        yield Column(term.column(score.name), SINGLE if score.single else DOUBLE, range=(0.0, high))


def checked_table(table: pa.Table, columns: Sequence[Column], class_names: Sequence[str]) -> pa.Table | str:
    """The table with each known column in its own type and all others as they are; or, in words, what is wrong.

    Args:
        table: As the file holds it.
        columns: Those that it must have; of reviews, both or neither; others may lack.
        class_names: K names, valid.
    """
    if fault := _columns_fault(table, columns):
        return fault
    present = [column for column in columns if column.name in table.column_names]
    for column in present:
        values = _typed(table[column.name], column, class_names)
        if isinstance(values, str):
            return values
        table = table.set_column(table.column_names.index(column.name), column.name, values)
    readable = pc.equal(table["status"], "ok")
    for column in present:
        if fault := _values_fault(table[column.name], column, readable):
            return fault
    if (row := _first(pc.and_(table["is_clean"], pc.invert(readable)))) is not None:
        return f"column 'is_clean' is true in row {row}, where the image could not be read"
    return _ids_fault(table["id"]) or table


def _columns_fault(table: pa.Table, columns: Sequence[Column]) -> str | None:
    names = table.column_names
    missing = [column.name for column in columns if column.name not in names]
    optional = [column.name for column in _OPTIONAL]
    of_reviews = [column.name for column in _OF_REVIEWS]
    if required := [name for name in missing if name not in (*optional, *of_reviews)]:
        more = f" and {len(required) - 1} more" if len(required) > 1 else ""
        return f"it has no column {required[0]!r}{more}"
    if len(halves := [name for name in missing if name in of_reviews]) == 1:
        return f"it has no column {halves[0]!r}, though it was reviewed"
    if repeated := [name for name in names if names.count(name) > 1]:
        return f"it has the column {repeated[0]!r} more than once"
    for field in table.schema:
        if not _is_plain(field.type):
            return f"column {field.name!r} holds {field.type}, but an index holds text, numbers, true and false"
    return None if len(table) else "it has no rows"


def _is_plain(kind: pa.DataType) -> bool:
    """A value that every export can write; columns of the user's own may be others than ours."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (_is_text_type, is_number_type, pa.types.is_boolean, pa.types.is_null)
    return any(test(kind) for test in tests)


def _typed(values: pa.ChunkedArray, column: Column, class_names: Sequence[str]) -> pa.ChunkedArray | str:
    """A column in its own type: other software writes text for a class, wide text, or a number in double precision."""
    held = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    words, fits = _KINDS[column.type]
    # A column without any value may have lost its type.
    if not fits(held) and not (pa.types.is_null(held) and column.nulls != "never"):
        return f"column {column.name!r} holds {held}, not {words}"
    values = values.cast(held)
    if column.type in (SINGLE, DOUBLE):
        return _numbers(values, column.type)
    if column.type != CLASS:
        return values.cast(column.type)
    names, texts = pa.array(class_names, pa.string()), values.cast(pa.string())
    numbers = pc.index_in(texts, names)
    if (row := _first(pc.and_(pc.is_null(numbers), pc.is_valid(texts)))) is not None:
        return f"column {column.name!r} has {texts[row].as_py()!r} in row {row}, which is none of its classes"
    return pa.chunked_array([pa.DictionaryArray.from_arrays(chunk, names) for chunk in numbers.chunks], CLASS)


def _numbers(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """NaN, which other software writes where there is no value, becomes null."""
    values = values.cast(kind, safe=False)
    return pc.if_else(pc.is_nan(values), None, values)


def _is_text_type(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def is_number_type(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


_KINDS = {
    TEXT: ("text", _is_text_type),
    CLASS: ("class names", _is_text_type),
    FLAG: ("true and false", pa.types.is_boolean),
    SINGLE: ("numbers", is_number_type),
    DOUBLE: ("numbers", is_number_type),
}


def _values_fault(values: pa.ChunkedArray, column: Column, readable: pa.ChunkedArray) -> str | None:
    if column.nulls != "anywhere":
        empty = pc.is_null(values) if column.nulls == "never" else pc.and_(pc.is_null(values), readable)
        if (row := _first(empty)) is not None:
            return f"column {column.name!r} has no value in row {row}"
    if column.type in (SINGLE, DOUBLE):
        low, high = column.range
        inside = pc.and_(pc.greater_equal(values, low - _ROUNDING), pc.less_equal(values, high + _ROUNDING))
        if (row := _first(pc.invert(inside))) is not None:
            bounds = f"outside {low:g} to {high:g}" if high == 1 else "which is negative or infinite"
            return f"column {column.name!r} has {values[row].as_py():g} in row {row}, {bounds}"
    if column.type == TEXT and (row := _first(pc.match_substring(values, "\0"))) is not None:
        return f"column {column.name!r} has the character NUL in row {row}"
    if column.values and (row := _first(pc.invert(pc.is_in(values, pa.array([*column.values, None]))))) is not None:
        return f"column {column.name!r} has {values[row].as_py()!r} in row {row}, not one of {', '.join(column.values)}"
    return None


def _ids_fault(ids: pa.ChunkedArray) -> str | None:
    if (row := _first(pc.equal(ids, ""))) is not None:
        return f"column 'id' is empty in row {row}"
    if pc.count_distinct(ids).as_py() == len(ids):
        return None
    seen: set[str] = set()
    for row, sample_id in enumerate(ids.to_pylist()):
        if sample_id in seen:
            return f"column 'id' has {sample_id!r} in row {row} and in an earlier one"
        seen.add(sample_id)
    return None


def _first(found: pa.ChunkedArray) -> int | None:
    """The first row that is true."""
    row = pc.index(found, True).as_py()
    return None if row < 0 else int(row)


def content_digest(table: pa.Table, columns: Sequence[Column], metadata: bytes) -> str:
    """A hash of the metadata and of all known columns, whatever else the file holds and however it stores them.

    Args:
        table: With each known column in its own type, or as other software made it.
        columns: The known ones.
        metadata: The JSON document, as it is in the file.
    """
    digest = blake2b(metadata, digest_size=16)
    for column in columns:
        if column.name in table.column_names:
            digest.update(f"{column.name} {column.type} {len(table)}\0".encode())
            _update(digest, table[column.name], column.type)
    return digest.hexdigest()


def _update(digest: Any, values: pa.ChunkedArray, kind: pa.DataType) -> None:
    """Hash values and which of them are null, but not what lies in memory below a null."""
    if kind in (SINGLE, DOUBLE):
        values = _numbers(values, kind)
    digest.update(np.packbits(pc.is_valid(values).to_numpy()))
    if kind not in (TEXT, CLASS):
        filled = pc.fill_null(values, False if kind == FLAG else 0)
        digest.update(np.ascontiguousarray(filled.to_numpy()))
        return
    texts = pc.fill_null(values.cast(TEXT), "")
    digest.update(np.ascontiguousarray(pc.binary_length(texts).to_numpy()))
    for chunk in texts.chunks:
        _, offsets, data = chunk.buffers()
        start, *_, end = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        digest.update(memoryview(data)[start:end] if data is not None else b"")
