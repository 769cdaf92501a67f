"""`apply`: persons' marks on a clean index. A mark overrules every selector; what was before is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.errors import UsageError
from clipaudit.index.building import class_column, with_column
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.copies import copies_in
from clipaudit.index.marks import DROP, MARKS, RELABEL, RIGHT, UNSURE, overrule
from clipaudit.options.arguments import typed
from clipaudit.options.shared import COPIES, ON_CONFLICT
from clipaudit.remote import to_path
from clipaudit.reviews.agreement import Agreement, Disagreement, agreements, united
from clipaudit.reviews.marks_file import Mark, MarksFile, read_marks
from clipaudit.reviews.survey import calibrated
from clipaudit.reviews.tool_marks import TOOL_SUFFIXES, tool_marks


@dataclass(frozen=True)
class ReviewSummary:
    """What files of marks did.

    Attributes:
        right, relabel, drop, unsure: Samples with each mark.
        overruled: Samples whose verdict has changed.
        again: Samples that an earlier review had marked, too; the later mark holds.
        unreadable: Samples marked right or relabelled whose image cannot be read: they stay out of the clean subset.
        notes: What had to be tolerated to find the samples, in words for the user.
        agreements: Of each pair of files.
        disagreements: Samples that files disagree on.
    """

    right: int
    relabel: int
    drop: int
    unsure: int
    overruled: int
    again: int
    unreadable: int
    notes: tuple[str, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()


@typed
def apply_marks(
    index: CleanIndex,
    marks: str | Path | Sequence[str | Path],
    *,
    on_conflict: str = "refuse",
    copies: bool = False,
) -> tuple[CleanIndex, ReviewSummary]:
    """Merge the marks of a review into an index.

    "right" makes a sample clean and keeps its label, "relabel" gives it another label and makes it clean, "drop" makes
    it noisy; "unsure" settles nothing, and takes back what an earlier review has said. All scores stay: they are about
    the label given before, which the column `label_given` keeps. Once enough samples that `review` drew are marked,
    `p_wrong` is calibrated by them.

    Args:
        index: From `select`, `read_index` or an earlier review.
        marks: A table (CSV, TSV, JSONL, Parquet) with the columns `id`, `mark` and `label`, or several tables, one a
            reviewer; `label` only for "relabel". Rows without a mark are passed over. Or what Label Studio (.json) or
            CVAT (.xml) exported after a review there: another label there is "relabel", and one that was submitted
            unchanged is "right".
        on_conflict: What to do where files disagree: "refuse"; take the mark of the "first" or "last" file; "unsure".
        copies: A mark counts for the copies of its image, too, unless they have marks of their own.

    Returns:
        The index with the columns `reviewed` and `label_given` and more entries in its metadata's `reviews`; and what
        was done.

    Raises:
        SourceError: an id, class or mark that is not known, two different marks for one sample, a missing column or
            label, a file without marks or not in UTF-8, files that disagree; the message names file and row.
        UsageError: a file of a kind that is not read, or another word for `on_conflict`.
    """
    decided_by = ON_CONFLICT.take(on_conflict)
    files = [_read(to_path(file), index) for file in ([marks] if isinstance(marks, str | Path) else marks)]
    by_row, disagreements = united(files, index, decided_by)
    if COPIES.take(copies):
        by_row = {**_of_copies(index, by_row), **by_row}
    rows = np.array(list(by_row), np.int64)
    words = np.array([mark.mark for mark in by_row.values()], object)
    targets = np.array([mark.label for mark in by_row.values()], np.int64)
    table, summary = _merge(index, rows, words, targets)
    metadata = replace(index.metadata, reviews=[*index.metadata.reviews, *map(_record, files)])
    notes = tuple(note for file in files for note in file.notes)
    found = replace(summary, notes=notes, agreements=agreements(files), disagreements=tuple(disagreements))
    return calibrated(CleanIndex(table, metadata)), found


def _read(file: Path, index: CleanIndex) -> MarksFile:
    return (tool_marks if file.suffix.lower() in TOOL_SUFFIXES else read_marks)(file, index)


def _of_copies(index: CleanIndex, by_row: Mapping[int, Mark]) -> dict[int, Mark]:
    """What marks say of the copies of their images: the same label, or that none fits. Contradictions say nothing."""
    found = copies_in(index.table)
    if found is None:
        raise UsageError("the index knows no copies: embed and select again, or leave --copies out.")
    given = index.scored_labels()
    said: dict[int, set[tuple[str, int]]] = {}
    for row, mark in by_row.items():
        if found.group[row] >= 0 and mark.mark != UNSURE:
            label = {RIGHT: int(given[row]), RELABEL: mark.label, DROP: -1}[mark.mark]
            said.setdefault(int(found.group[row]), set()).add((mark.where, label))
    marks = {}
    for row in np.flatnonzero(np.isin(found.group, list(said))).tolist():
        where, labels = zip(*said[int(found.group[row])], strict=True)
        if len(set(labels)) == 1:
            word = DROP if labels[0] < 0 else RIGHT if labels[0] == given[row] else RELABEL
            marks[row] = Mark("", word, labels[0] if word == RELABEL else -1, where[0])
    return marks


def _record(file: MarksFile) -> dict[str, Any]:
    """What the metadata keep of a file: its name, its hash, and how many samples have each mark."""
    counts = Counter(mark.mark for mark in file.by_row.values())
    digest = sha256(file.path.read_bytes()).hexdigest()
    return {"file": file.path.name, "sha256": digest, **{mark: counts[mark] for mark in MARKS}}


def _merge(
    index: CleanIndex, rows: NDArray[np.int64], words: NDArray[Any], targets: NDArray[np.int64]
) -> tuple[pa.Table, ReviewSummary]:
    """The table after a review, and what changed.

    Args:
        index: Before it.
        rows: (m,) marked rows, each once.
        words: (m,) their marks.
        targets: (m,) class index of the new label, where the mark is "relabel".
    """
    before, readable, relabelled = index.is_clean, index.readable, words == RELABEL
    reviewed: NDArray[Any] = np.full(len(index), None, object)
    if index.has_reviews:
        reviewed[:] = index.table["reviewed"].to_pylist()
    again = sum(word is not None for word in reviewed[rows])
    reviewed[rows] = words
    labels, unsure = index.labels(), rows[words == UNSURE]
    labels[rows[relabelled]] = targets[relabelled]
    labels[unsure] = index.scored_labels()[unsure]
    marks = pa.array(reviewed, pa.string())
    is_clean = overrule(index.selected, marks, readable)
    table = with_column(index.table, "label", class_column(labels, index.class_names))
    table = with_column(table, "is_clean", pa.array(is_clean))
    table = with_column(table, "reviewed", marks)
    table = with_column(table, "label_given", class_column(index.scored_labels(), index.class_names))
    counts = Counter(words.tolist())
    summary = ReviewSummary(
        right=counts[RIGHT],
        relabel=counts[RELABEL],
        drop=counts[DROP],
        unsure=counts[UNSURE],
        overruled=int((before != is_clean).sum()),
        again=again,
        unreadable=int((~readable[rows] & np.isin(words.astype(str), (RIGHT, RELABEL))).sum()),
    )
    return table, summary
