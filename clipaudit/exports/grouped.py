"""Samples by their images: of boxes, several are in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipaudit.errors import UsageError
from clipaudit.exports.base import refuse_all_but, rounded, rows
from clipaudit.index.check import P_WRONG
from clipaudit.index.clean_index import CleanIndex
from clipaudit.samples.base import CROPS, FILES
from clipaudit.samples.crops import parsed

_COLUMNS = ("id", "label", "is_clean", "clean_score", P_WRONG, "suggested_label")
# (x, y, width, height) of a box, None for the image as a whole; the sample's row.
Part = tuple[tuple[int, int, int, int] | None, dict[str, Any]]


def images(index: CleanIndex, path: Path) -> Iterator[tuple[str, list[Part]]]:
    """The path of each image below the root, in the order of the samples, and the samples in it.

    Raises:
        UsageError: the images are rows of a file, or an id names no box.
    """
    access = refuse_all_but(index, path, [FILES, CROPS], "Export .txt, .npy or .jsonl.")
    if access == FILES:
        for row in rows(index, _COLUMNS):
            yield row["id"], [(None, row)]
        return
    found: dict[str, list[Part]] = {}
    for row in rows(index, _COLUMNS):
        if (place := parsed(row["id"])) is None:
            raise UsageError(f"{path}: {row['id']!r:.200} names no box in an image. Export .jsonl instead.")
        found.setdefault(place[0], []).append((place[1], row))
    yield from found.items()


def remarks(row: dict[str, Any]) -> dict[str, Any]:
    """What the audit says about a sample beside its label; nothing that is not known."""
    scores = {name: rounded(row[name]) for name in ("clean_score", P_WRONG)}
    said = {"is_clean": row["is_clean"], **scores, "suggested_label": row["suggested_label"]}
    return {name: value for name, value in said.items() if value is not None}
