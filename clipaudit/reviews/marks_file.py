"""Tables of marks: what the report and the review page export, a filled-in queue.csv, a colleague's own table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipaudit.errors import SourceError, UsageError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.marks import DROP, MARKS, RELABEL, RIGHT, UNSURE
from clipaudit.remote import to_path
from clipaudit.samples.matching import NONE, Matcher
from clipaudit.samples.tables import listed, open_table, same_column
from clipaudit.samples.values import is_missing, text_of
from clipaudit.text import excerpt, unescape_formula

COLUMNS = ("id", "mark", "label")
# "suggested" stands for the label that the audit suggests; the others are the keys of the review page.
_SUGGESTED = "suggested"
_SPELLINGS = {
    **{mark: mark for mark in MARKS},
    _SUGGESTED: _SUGGESTED,
    **{"1": RIGHT, "2": _SUGGESTED, "r": RELABEL, "3": DROP, "?": UNSURE, "cannot tell": UNSURE},
}


@dataclass(frozen=True)
class Mark:
    """One line of a file.

    Attributes:
        id: The sample's, as the file has it.
        mark: One of MARKS.
        label: Class index of the label that the line names, -1 where it names none.
        where: The file and row.
    """

    id: str
    mark: str
    label: int
    where: str


@dataclass(frozen=True)
class MarksFile:
    """The marks of one file.

    Attributes:
        path: The file.
        by_row: The mark of each marked row of the index.
        notes: What had to be tolerated, in words for the user.
    """

    path: Path
    by_row: Mapping[int, Mark]
    notes: tuple[str, ...]


def read_marks(path: Path, index: CleanIndex) -> MarksFile:
    """All marks of a table, and the rows of the index that they are about.

    Raises:
        SourceError: an id, class or mark that is not known, two different marks for one sample, a missing column or
            label, a file without marks or not in UTF-8; the message names file and row.
        UsageError: a file of a kind that is not read.
    """
    lines, n_lines = [], 0
    for where, row in _rows(path):
        n_lines += 1
        if row["mark"].strip() or row["label"].strip():
            lines.append((where, row))
    if not lines:
        why = "no row has one yet" if n_lines else "there is nothing below the line that names the columns"
        raise SourceError(f"{path} holds no marks: {why}.")
    rows = _found(index, path, [(row["id"], where) for where, row in lines])
    labels, by_row = index.labels(), dict[int, Mark]()
    for (where, row), number in zip(lines, rows.numbers, strict=True):
        mark = _mark(row, index, number, int(labels[number]), where)
        earlier = by_row.setdefault(number, mark)
        if (earlier.mark, earlier.label) != (mark.mark, mark.label):
            raise SourceError(f"{where}: {mark.id} has another mark in {earlier.where}. Keep one of the two.")
    notes = [f"{path.name}: ids matched {rows.note}"] if rows.note else []
    if empty := n_lines - len(lines):
        notes.append(f"{path.name}: {empty:,} of {n_lines:,} rows have no mark yet")
    return MarksFile(path, by_row, tuple(notes))


@dataclass(frozen=True)
class _Rows:
    numbers: Sequence[int]
    note: str


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    table = open_table(path)
    found = {name: [column for column in table.columns if same_column(column, name)] for name in COLUMNS}
    for name, columns in found.items():
        if len(columns) != 1:
            fault = "two columns named" if columns else "no column"
            raise SourceError(
                f"{path} has {fault} {name!r}. Marks have the columns {', '.join(COLUMNS)};"
                f" the file has: {listed(table.columns)}."
            )
    for where, row in table.rows([columns[0] for columns in found.values()]):
        yield where, {name: _text(row[columns[0]], name, where) for name, columns in found.items()}


def _text(value: object, role: str, where: str) -> str:
    return "" if not isinstance(value, str) and is_missing(value) else text_of(value, role, where)


def _found(index: CleanIndex, path: Path, ids: Sequence[tuple[str, str]]) -> _Rows:
    """The rows of the index that have these ids; each id comes with its place in the file."""
    for text, where in ids:
        if not text.strip():
            raise SourceError(f"{where}: the id is missing.")
    matcher = Matcher(index.table["id"].to_pylist(), to_path(index.metadata.root), path.resolve().parent)
    match = matcher.match([text for text, _ in ids])
    unknown = [entry for entry, row in zip(ids, match.numbers, strict=True) if row == NONE]
    if unknown:
        count, total = len({text for text, _ in unknown}), len({text for text, _ in ids})
        text, where = unknown[0]
        raise SourceError(
            f"{where}: the index has no sample {excerpt(text)} ({count:,} of {total:,} ids are not in it). Apply marks"
            " to the index that they were made on."
        )
    return _Rows(match.numbers, match.note or "")


def _mark(row: Mapping[str, str], index: CleanIndex, number: int, own: int, where: str) -> Mark:
    """One line, about the sample in row `number` of the index, whose label is `own`."""
    word = _SPELLINGS.get(row["mark"].strip().lower())
    if word is None:
        fault = f"unknown mark {excerpt(row['mark'])}" if row["mark"].strip() else "there is a label, but no mark"
        raise SourceError(f"{where}: {fault}. Use one of: {', '.join((*MARKS, _SUGGESTED))}.")
    label = _label(row["label"], word, index, where)
    if word == _SUGGESTED:
        return _suggested(row["id"], index, number, own, label, where)
    # A label beside "right" or "drop" is no order to relabel; it may be there if it is the sample's own.
    if word != RELABEL and label not in (-1, own):
        raise SourceError(
            f"{where}: {word!r} keeps the label of {row['id']}, which is {index.class_names[own]!r} in the index, not"
            f" {index.class_names[label]!r}. Write {RELABEL!r}, or leave the label empty."
        )
    return Mark(row["id"], word, label if word == RELABEL else -1, where)


def _suggested(sample_id: str, index: CleanIndex, number: int, own: int, label: int, where: str) -> Mark:
    name = index.table["suggested_label"][number].as_py()
    if name is None:
        readable = index.table["status"][number].as_py() == "ok"
        why = "shows none of the classes" if readable else "could not be read"
        raise SourceError(f"{where}: {sample_id} has no suggested label, because its image {why}.")
    suggested = index.class_index(name)
    if label not in (-1, suggested):
        raise SourceError(
            f"{where}: the suggested label of {sample_id} is {name!r}, not {index.class_names[label]!r}. Write"
            f" {RELABEL!r}, or leave the label empty."
        )
    return Mark(sample_id, RIGHT, -1, where) if suggested == own else Mark(sample_id, RELABEL, suggested, where)


def _label(text: str, word: str, index: CleanIndex, where: str) -> int:
    """The class that a line names, in any spelling that could mean no other one; -1 where it names none."""
    for spelling in (text, unescape_formula(text)):
        try:
            return index.class_index(spelling)
        except UsageError as error:
            fault = error
    if not is_missing(text):
        raise SourceError(f"{where}: {fault}") from None
    if word == RELABEL:
        raise SourceError(f"{where}: {RELABEL} needs a class in the column 'label'.")
    return -1
