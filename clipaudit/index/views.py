"""A clean index for those who build on it: as a data frame, some of its rows, the clean part of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clipaudit.errors import UsageError
from clipaudit.index.check import CLASS, FLAG, columns_of
from clipaudit.text import excerpt, printable

if TYPE_CHECKING:
    import pandas as pd

    from clipaudit.index.clean_index import CleanIndex

Predicate = Callable[[Mapping[str, Any]], Any]
# Of the notebook's table.
ROWS_SHOWN, TEXT_SHOWN = 5, 60
_SHOWN = ("id", "label", "suggested_label", "p_wrong")


def class_numbers(labels: pa.Array | pa.ChunkedArray, class_names: Sequence[str]) -> NDArray[np.int64]:
    """(n,) the class that each of n texts names; -1 for none of them, and for null."""
    numbers = pc.index_in(labels, pa.array(class_names, pa.string()))
    return np.asarray(pc.fill_null(numbers, -1).to_numpy(zero_copy_only=False), np.int64)


def data_frame(index: CleanIndex) -> pd.DataFrame:
    """The table with categories for classes, and pandas' own nulls in columns of true and false that have some.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("data frames need pandas: pip install pandas") from None

    frame = index.table.to_pandas()
    for column in columns_of(index.config.estimates):
        if column.name not in frame:
            continue
        values = frame[column.name]
        if column.type == CLASS:
            frame[column.name] = pd.Categorical(values, index.class_names)
        elif column.type == FLAG and values.hasnans:
            frame[column.name] = values.astype("boolean")
    return frame


def filtered(table: pa.Table, condition: Any) -> pa.Table:
    """The rows that a condition holds for; see `CleanIndex.filter`."""
    if isinstance(condition, pc.Expression):
        try:
            return table.filter(condition)
        except (pa.ArrowException, KeyError) as error:
            raise UsageError(f"the condition does not fit the index: {printable(str(error))}") from None
    return table.filter(pa.array(_held_by(table, condition) if callable(condition) else _mask(condition, len(table))))


def _held_by(table: pa.Table, condition: Predicate) -> NDArray[np.bool_]:
    rows = (row for batch in table.to_batches(max_chunksize=10_000) for row in batch.to_pylist())
    return np.fromiter((bool(condition(row)) for row in rows), bool, len(table))


def _mask(values: Any, n: int) -> NDArray[np.bool_]:
    """(n,) bool; null, which is not true, becomes false."""
    wanted = "a condition must be True or False for each sample, an expression of pyarrow, or a function of a row"
    try:
        # What pandas calls "boolean" has nulls of its own, and so has Arrow.
        mask = pa.array(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
    except (pa.ArrowException, TypeError, ValueError):
        raise UsageError(f"{wanted}, not {excerpt(values)}.") from None
    if not pa.types.is_boolean(mask.type):
        raise UsageError(f"{wanted}, not {excerpt(values)}.")
    if len(mask) != n:
        raise UsageError(f"{wanted}: there are {len(mask):,} values for {n:,} samples.")
    return np.asarray(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


def part_of(dataset: Any, rows: NDArray[np.int64], n: int) -> Any:
    """Some rows of a data set that has n; see `CleanIndex.subset`."""
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UsageError(f"a data set must have a length and numbered items, and {excerpt(dataset)} has not.")
    # `dataset[i]` of a table is a column, and so is what polars calls `select`.
    if not _is_of("datasets", dataset) and hasattr(dataset, "columns"):
        raise UsageError("a table is no data set of numbered items: take its rows by the flags in index.is_clean.")
    if len(dataset) != n:
        raise UsageError(
            f"the data set has {len(dataset):,} items, and the index {n:,} samples. Give the one that was audited, in"
            " its order."
        )
    if _is_of("datasets", dataset):
        return dataset.select(rows)
    from torch.utils.data import Subset

    return Subset(dataset, rows.tolist())


def _is_of(package: str, value: object) -> bool:
    """Its class, or one that it is made from, is of this package."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(value).__mro__)


def in_words(index: CleanIndex) -> str:
    """How many samples there are of which kind: "600 samples of 10 classes: 480 clean, 120 in doubt"."""
    counts = {"clean": index.is_clean, "in doubt": index.in_doubt, "unreadable": ~index.readable}
    told = [
        f"{count:,} {what}" for what, flags in counts.items() if (count := int(flags.sum())) or what != "unreadable"
    ]
    return f"{len(index):,} samples of {len(index.class_names):,} classes: {', '.join(told)}"


def in_html(index: CleanIndex) -> str:
    """The same as a notebook shows it, with the labels that look wrong most."""
    names = [name for name in _SHOWN if name in index.table.column_names]
    rows = _most_doubtful(index).select(names)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = ("".join(f"<td>{escape(_cell(value))}</td>" for value in row.values()) for row in rows.to_pylist())
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    caption = f"<div><b>CleanIndex</b> {escape(in_words(index))}, from {escape(_cell(index.metadata.source))}</div>"
    return f"{caption}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if body else caption


def _most_doubtful(index: CleanIndex) -> pa.Table:
    rows = np.flatnonzero(index.in_doubt)
    scores = index.table["clean_score"].take(pa.array(rows)).to_numpy()
    return index.table.take(pa.array(rows[np.argsort(scores, kind="stable")[:ROWS_SHOWN]]))


def _cell(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else "" if value is None else printable(str(value))
    return text if len(text) <= TEXT_SHOWN else f"...{text[3 - TEXT_SHOWN :]}"
