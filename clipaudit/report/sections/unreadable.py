"""The images that could not be read, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipaudit.report.columns import Columns
from clipaudit.report.sections.base import Material

UNREADABLE_SHOWN = 200
REASONS_COUNTED = 5


@dataclass(frozen=True)
class UnreadableSample:
    """A sample whose image could not be read."""

    id: str
    label: str
    reason: str


@dataclass(frozen=True)
class Unreadable:
    """Samples without scores: how many, the first UNREADABLE_SHOWN, and the most frequent reasons with their counts."""

    n: int
    samples: Sequence[UnreadableSample]
    reasons: Sequence[tuple[str, int]]


def unreadable(material: Material) -> Unreadable | None:
    """What could not be judged, if there is any."""
    columns = material.columns
    rows = np.flatnonzero(~columns.readable)
    if not len(rows):
        return None
    shown = rows[:UNREADABLE_SHOWN]
    ids, reasons = columns.strings("id", shown), columns.strings("reason", shown)
    samples = [
        UnreadableSample(str(sample_id), columns.class_names[label], reason or "no reason given")
        for sample_id, label, reason in zip(ids, columns.labels[shown], reasons, strict=True)
    ]
    return Unreadable(len(rows), samples, _reasons(columns))


def _reasons(columns: Columns) -> list[tuple[str, int]]:
    """Why images could not be read, most frequent first."""
    reasons = columns.index.table["reason"].filter(pa.array(~columns.readable))
    counted = pc.value_counts(pc.fill_null(reasons, "no reason given")).to_pylist()
    pairs = [(str(entry["values"]), int(entry["counts"])) for entry in counted]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:REASONS_COUNTED]
