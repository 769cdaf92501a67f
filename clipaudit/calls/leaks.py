"""`find_leaks`: images of a data set that another one holds, too, such as test images among those to train on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.cache.info import CacheInfo
from clipaudit.cache.matrix import ChosenRows, Vectors
from clipaudit.copies.cells import has_faiss
from clipaudit.copies.near import near_copies_between
from clipaudit.errors import CacheError
from clipaudit.files import write_atomically
from clipaudit.index.check import EXACT, NEAR
from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.remote import to_path
from clipaudit.text import escape_formulas


@dataclass(frozen=True)
class Leak:
    """An image that is in both data sets.

    Attributes:
        id, label: The sample's.
        other: The other cache.
        other_id, other_label: The sample's there.
        kind: "exact", by bytes or pixels, or "near".
    """

    id: str
    label: str
    other: str
    other_id: str
    other_label: str
    kind: str


@typed
def find_leaks(cache: str | Path, against: Iterable[str | Path], *, index: CleanIndex | None = None) -> list[Leak]:
    """The images of a cache that have a copy in others: of each image and cache one copy, an exact one where there is.

    Args:
        cache: The cache of the images.
        against: Caches of other images, of the same model. Only exact copies are found without faiss, and where so many
            images look alike (digits, scans) that near ones cannot be told.
        index: An audit of the cache, whose labels to tell, as they were given; None tells the source's own.

    Raises:
        CacheError: a cache is missing, incomplete, damaged, of another model, or from a clipaudit without hashes.
    """
    mine = _readable(to_path(cache))
    leaks = [
        leak for other in against for leak in _leaks(mine, _readable(to_path(other)), to_path(other), to_path(cache))
    ]
    return leaks if index is None else _labelled(leaks, index)


def _labelled(leaks: Sequence[Leak], index: CleanIndex) -> list[Leak]:
    """The leaks with the labels of an index; those that it has no row of keep their own."""
    # One array of text would end at 2 GiB.
    ids = index.table["id"].cast(pa.large_string()).combine_chunks()
    rows = pc.index_in(pa.array([leak.id for leak in leaks], pa.large_string()), ids)
    names, labels = index.class_names, index.scored_labels()
    return [
        leak if row is None else replace(leak, label=names[labels[row]])
        for leak, row in zip(leaks, rows.to_pylist(), strict=True)
    ]


@typed
def write_leaks(leaks: Sequence[Leak], file: str | Path, *, raw: bool = False) -> None:
    """A list to remove them by: a CSV file with the fields of Leak; cells hold no formulas unless `raw`."""
    columns = {
        field.name: pa.array([getattr(leak, field.name) for leak in leaks], pa.string()) for field in fields(Leak)
    }
    table = pa.table(columns if raw else {name: escape_formulas(texts) for name, texts in columns.items()})
    write_atomically(to_path(file), lambda place: pyarrow.csv.write_csv(table, place))


@dataclass(frozen=True)
class _Images:
    """The readable images of a cache: a row of the table and a vector each."""

    table: pa.Table
    vectors: Vectors | ChosenRows
    info: CacheInfo


def _readable(cache: Path) -> _Images:
    found = EmbeddingsCache.open(cache).read()
    table = found.table.filter(pa.array(found.readable))
    if found.info.fingerprint.is_own:
        raise CacheError(
            f"{cache} holds vectors that were computed elsewhere, without images to find copies by. Embed the images."
        )
    if table["look"].null_count:
        raise CacheError(
            f"{cache} was made by an earlier clipaudit, which kept no hashes to find copies by. Embed again with"
            " another --cache."
        )
    return _Images(table, found.readable_vectors, found.info)


def _leaks(mine: _Images, other: _Images, place: Path, own: Path) -> list[Leak]:
    if other.info.fingerprint.digest != mine.info.fingerprint.digest:
        difference = mine.info.fingerprint.differences(other.info.fingerprint)
        raise CacheError(
            f"{place} holds embeddings of another model than {own} ({difference}). Embed one of them anew."
        )
    found: dict[int, tuple[int, str]] = {}
    for name in ("content", "pixels"):
        theirs = pc.index_in(mine.table[name], other.table[name].combine_chunks())
        rows = np.flatnonzero(pc.is_valid(theirs).to_numpy())
        values = pc.fill_null(theirs, -1).to_numpy()
        for row in rows.tolist():
            found.setdefault(row, (int(values[row]), EXACT))
    if has_faiss():
        looks = [table["look"].to_numpy() for table in (mine.table, other.table)]
        near = near_copies_between(mine.vectors, looks[0], other.vectors, looks[1])
        for row, their in near.pairs.tolist() if near.can_tell else ():
            found.setdefault(row, (their, NEAR))
    rows_here = sorted(found)
    here = mine.table.select(["id", "label"]).take(pa.array(rows_here, pa.int64())).to_pylist()
    there = other.table.select(["id", "label"]).take(pa.array([found[row][0] for row in rows_here], pa.int64()))
    return [
        Leak(a["id"], a["label"], str(place), b["id"], b["label"], found[row][1])
        for row, a, b in zip(rows_here, here, there.to_pylist(), strict=True)
    ]
