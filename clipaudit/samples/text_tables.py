"""Tables that are text: CSV and TSV with any usual separator, JSON lines; UTF-8 or UTF-16."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from clipaudit.errors import SourceError
from clipaudit.samples.values import is_missing
from clipaudit.text import excerpt

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# A longer line is no row; reading it would only exhaust the memory.
MAX_LINE = 1 << 24
# Rows that are looked at to learn how a table is built.
ROWS_LOOKED_AT = 100
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_EXCEL_SEPARATOR = re.compile(r"sep=(.)\s*")

Rows = Iterator[tuple[str, dict[str, Any]]]


class DelimitedTable:
    """A CSV or TSV file; its first line names the columns, and the separator is recognised from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        encoding = _encoding(path)
        self._lines_before, self._separator = self._recognise()
        header = next(self._fields(), None)
        if header is None:
            raise SourceError(f"{path} is empty: its first line must name the columns.")
        self.columns = self.texts = header[1]
        self.form = f"{path.name}, separated by {SEPARATORS[self._separator]}{_in_words(encoding)}"

    def rows(self, columns: Sequence[str], optional: Sequence[str] = ()) -> Rows:
        """Each row with the wanted columns, and where it stands."""
        places = [(name, self.columns.index(name)) for name in (*columns, *optional)]
        fields = self._fields()
        next(fields, None)
        width = len(self.columns)
        for where, row in fields:
            if len(row) < width or any(cell.strip() for cell in row[width:]):
                raise SourceError(
                    f"{where}: {len(row)} fields where the header has {width}, separated by"
                    f" {SEPARATORS[self._separator]}. Quote fields that contain the separator."
                )
            # Spreadsheets leave rows of empty cells below a table. In a single column an empty cell is a missing value.
            if width == 1 or any(row):
                yield where, {name: row[place] for name, place in places}

    def _recognise(self) -> tuple[int, str]:
        """How many lines stand before the header (Excel's `sep=;`), and the separator."""
        first = list(islice(_lines(self.path), 6))
        if first and (said := _EXCEL_SEPARATOR.fullmatch(first[0])) and said[1] in SEPARATORS:
            return 1, said[1]
        usual = "\t" if self.path.suffix.lower() == ".tsv" else ","
        widths = {separator: _widths(first, separator) for separator in SEPARATORS}
        found = [separator for separator, width in widths.items() if width and width[0] > 1]
        # Where several split the header, only one of them gives every row as many fields.
        even = [separator for separator in found if len(set(widths[separator])) == 1] if len(found) > 1 else found
        if len(even) == 1:
            return 0, even[0]
        if found:
            listed = " or ".join(SEPARATORS[separator] for separator in found)
            raise SourceError(
                f"{self.path}, line 1: the columns may be separated by {listed}: {excerpt(first[0].strip())}."
                " Use one separator, and quote fields that contain it."
            )
        return 0, usual

    def _fields(self) -> Iterator[tuple[str, list[str]]]:
        lines = islice(_lines(self.path), self._lines_before, None)
        reader = csv.reader(lines, delimiter=self._separator, strict=True)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                number = self._lines_before + max(reader.line_num, 1)
                raise SourceError(f"{self.path}, line {number}: not a valid table ({error}).") from None
            if fields:
                yield f"{self.path}, line {self._lines_before + reader.line_num}", fields


class JsonTable:
    """A JSON object a line; the columns are the keys of the first rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        encoding = _encoding(path)
        rows = islice(self._objects(), ROWS_LOOKED_AT)
        self.columns = self.texts = list(dict.fromkeys(key for _, row in rows for key in row))
        self.form = f"{path.name}, one JSON object a line{_in_words(encoding)}"

    def rows(self, columns: Sequence[str], optional: Sequence[str] = ()) -> Rows:
        """Each row with the wanted keys, and where it stands; an optional key may be absent."""
        for where, row in self._objects():
            if absent := [name for name in columns if name not in row]:
                raise SourceError(f"{where}: no field {absent[0]!r}. Every row needs one.")
            yield where, {name: row.get(name) for name in (*columns, *optional)}

    def _objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, line in enumerate(_lines(self.path), start=1):
            if not line.strip():
                continue
            where = f"{self.path}, line {number}"
            try:
                row = json.loads(line, object_pairs_hook=_without_repetition)
            # Also numbers of thousands of digits (ValueError) and brackets nested thousands deep.
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{where}: not valid JSON ({error}).") from None
            if not isinstance(row, dict):
                raise SourceError(f"{where}: not a JSON object.")
            yield where, row


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {excerpt(next(key for key in keys if keys.count(key) > 1))} comes twice")
    return row


def _widths(lines: Sequence[str], separator: str) -> list[int]:
    """How many fields each of the first rows has, empty ones at their ends left out of those below the header."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=separator) if row]
    except csv.Error:
        return []
    if any('"' in name for row in rows[:1] for name in row):
        return [1]  # A separator inside of quotes separates nothing.
    width = len(rows[0]) if rows else 0
    return [len(row) if any(map(_filled, row[width:])) or len(row) < width else width for row in rows]


def _filled(cell: str) -> bool:
    return not is_missing(cell)


def _encoding(path: Path) -> str:
    """The encoding that a file's first bytes show; UTF-8 where they show none."""
    with _open(path, "latin-1") as file:
        start = file.read(4).encode("latin-1")
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise SourceError(f"{path}, line 1: the text is UTF-32. Save the file as UTF-8.")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in start:
        raise SourceError(
            f"{path}, line 1: the text has zero bytes, as UTF-16 without a byte order mark has. Save the file as UTF-8."
        )
    return "utf-8-sig"


def _in_words(encoding: str) -> str:
    return ", in UTF-16" if encoding == "utf-16" else ""


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends; SourceError where one is not text or too long to be a row."""
    number = 0
    with _open(path, _encoding(path)) as file:
        try:
            while line := file.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    raise SourceError(f"{path}, line {number}: longer than {MAX_LINE:,} characters. Is it a table?")
                if not line.isascii() and _ESCAPED_BYTE.search(line):
                    raise SourceError(f"{path}, line {number}: not UTF-8 text. Save the file as UTF-8.")
                yield line
        except UnicodeError:
            raise SourceError(f"{path}, after line {number}: not UTF-16 text. Save the file as UTF-8.") from None
        except OSError as error:
            raise SourceError(f"{path}, after line {number}: cannot be read: {error.strerror or error}.") from None


def _open(path: Path, encoding: str) -> TextIO:
    try:
        # Bytes that are no UTF-8 come as single surrogates, so that the line that holds them can be named.
        return path.open(encoding=encoding, errors="surrogateescape", newline="")
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}.") from None
