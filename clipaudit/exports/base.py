"""What every form of export has in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from clipaudit.errors import UsageError
from clipaudit.files import write_atomically
from clipaudit.index.clean_index import CleanIndex
from clipaudit.samples.reader import access_of

BATCH = 10_000
_DIGITS = 6


@dataclass(frozen=True)
class Format:
    """A form of export: a row of `FORMATS`.

    Attributes:
        name: What `--export-format` calls it.
        ending: Of its file; "" makes a folder.
        words: What is written, for messages: "clean paths".
        write: Writes an index there, and returns what the user should know, in sentences.
        told: The ending alone says that it is meant.
    """

    name: str
    ending: str
    words: str
    write: Callable[[CleanIndex, Path], list[str]]
    told: bool = True


def rows(index: CleanIndex, columns: Sequence[str], order: Any = None) -> Iterator[dict[str, Any]]:
    """The samples as dictionaries of some columns, all of them in their order or those that `order` numbers."""
    table = index.table.select(columns)
    table = table if order is None else table.take(pa.array(order))
    for batch in table.to_batches(max_chunksize=BATCH):
        yield from batch.to_pylist()


def most_doubtful_first(index: CleanIndex) -> Any:
    """(n,) row numbers: those in doubt, then the others, each by their scores; those without an image last."""
    score = np.full(len(index), np.inf)
    score[index.readable] = index.ranking()
    return np.lexsort((np.arange(len(index)), score, ~index.in_doubt))


def rounded(value: float | None) -> float | None:
    """A score as a person may read it."""
    return None if value is None else round(value, _DIGITS)


def refuse_all_but(index: CleanIndex, path: Path, ways: Sequence[str], remedy: str) -> str:
    """How ids lead to images; UsageError where it is a way that a format cannot say.

    Args:
        index: What is exported.
        path: Where to.
        ways: Those that it can say.
        remedy: What to export instead.
    """
    access = access_of(index.metadata)
    if access not in ways:
        raise UsageError(f"{path}: the images are no files of their own, which this form names. {remedy}")
    return access


def write_json_lines(path: Path, start: str, items: Iterable[Any], end: str = "") -> None:
    """Write a JSON document with one item a line: `start`, the items with commas between them, `end`."""

    def write(file: BinaryIO) -> None:
        file.write(start.encode())
        for number, item in enumerate(items):
            text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
            file.write(f"{',' if number else ''}\n{text}".encode())
        file.write(end.encode())

    write_atomically(path, write)
