"""What the report says: numbers as plain data, from columns alone; no images, no HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clipaudit.auditing.method import ESTIMATES
from clipaudit.report.charts import Histogram, Mixture, histogram
from clipaudit.report.choice import Choice, Confusion, worst_classes
from clipaudit.report.columns import Columns
from clipaudit.report.wording import INDUCED_IN_WORDS
from clipaudit.selectors.combine import SELECTORS

UNREADABLE_SHOWN = 200
REASONS_COUNTED = 5
CLASSES_IN_TABLE = 2000
PAIRS_LISTED = 100
# Shades of a confusion cell.
SHADES = 5


@dataclass(frozen=True)
class Overview:
    """How many labels are in doubt, and how sure we are.

    Attributes:
        n, n_readable, n_clean, n_in_doubt, n_rescued, n_reviewed, n_classes: Counts.
        induced: What the second estimate is called.
        independent: It does not contain the first.
        voting: The selectors that decided, in words where they were not all four.
        noise_rate: Share of the readable samples that is in doubt.
        failed: Of the samples in doubt, how many fail 0, 1, 2, 3 and 4 of the selectors.
        n_agreed: In doubt, with both estimates naming the same other class.
    """

    n: int
    n_readable: int
    n_clean: int
    n_in_doubt: int
    n_rescued: int
    n_reviewed: int
    n_classes: int
    induced: str
    independent: bool
    voting: str
    noise_rate: float
    failed: Sequence[int]
    n_agreed: int

    @property
    def n_unreadable(self) -> int:
        """Samples without scores."""
        return self.n - self.n_readable

    @property
    def agreed_share(self) -> float | None:
        """Share of the samples in doubt for which both estimates name the same other class."""
        return self.n_agreed / self.n_in_doubt if self.n_in_doubt else None


@dataclass(frozen=True)
class ClassRow:
    """One class in the table of all.

    Attributes:
        number: Its index.
        name: Its name.
        size, n_readable, n_in_doubt: Samples with this given label.
        taken_for: Index of the class most often suggested instead, and how often; None where none is.
    """

    number: int
    name: str
    size: int
    n_readable: int
    n_in_doubt: int
    taken_for: tuple[int, int] | None

    @property
    def clean_share(self) -> float | None:
        """Share of its readable samples that is not in doubt."""
        return 1 - self.n_in_doubt / self.n_readable if self.n_readable else None


@dataclass(frozen=True)
class ClassDetail:
    """A class with its histograms, by estimate, and the rows of its examples."""

    row: ClassRow
    histograms: Mapping[str, Histogram]
    in_doubt: Sequence[int]
    clean: Sequence[int]


@dataclass(frozen=True)
class Cell:
    """A confusion cell; `shade` grows from 0 with the count."""

    given: int
    suggested: int
    count: int
    shade: int


@dataclass(frozen=True)
class Unreadable:
    """A sample whose image could not be read."""

    id: str
    label: str
    reason: str


def overview(columns: Columns) -> Overview:
    """The first lines of the report."""
    doubt = columns.in_doubt
    zero_shot, induced = (columns.predicted[name] for name in ESTIMATES)
    agreed = doubt & (zero_shot == induced) & (zero_shot != columns.scored)
    votes = columns.failed[:, doubt].sum(axis=0)
    n_readable, n_in_doubt = int(columns.readable.sum()), int(doubt.sum())
    config = columns.index.config
    all_voted = len(config.selectors) == len(SELECTORS) and config.combine == "intersection"
    return Overview(
        n=len(columns),
        n_readable=n_readable,
        n_clean=int(columns.is_clean.sum()),
        n_in_doubt=n_in_doubt,
        n_rescued=int((columns.fallback & ~columns.reviewed).sum()),
        n_reviewed=int(columns.reviewed.sum()),
        n_classes=len(columns.class_names),
        induced=f"the {INDUCED_IN_WORDS[config.induced][0]}",
        independent=config.induced != "joint",
        voting="" if all_voted else f"{', '.join(config.selectors).replace('_', ' ')} ({config.combine})",
        noise_rate=n_in_doubt / n_readable if n_readable else 0.0,
        failed=np.bincount(votes, minlength=len(SELECTORS) + 1).tolist(),
        n_agreed=int(agreed.sum()),
    )


def class_rows(columns: Columns, choice: Choice) -> list[ClassRow]:
    """All classes that have samples, most labels in doubt first; at most CLASSES_IN_TABLE."""
    n_classes = len(columns.class_names)

    def count(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(columns.labels[rows], minlength=n_classes)

    readable, doubts = count(columns.readable), count(columns.in_doubt)
    sizes = np.bincount(columns.labels, minlength=n_classes)
    taken_for = _taken_for(choice)
    return [
        ClassRow(k, columns.class_names[k], int(sizes[k]), int(readable[k]), int(doubts[k]), taken_for.get(k))
        for k in worst_classes(columns)[:CLASSES_IN_TABLE]
    ]


def _taken_for(choice: Choice) -> dict[int, tuple[int, int]]:
    pairs = choice.confusion
    other = pairs.given != pairs.suggested
    # The pairs come most frequent first, so that the first of each class is its largest.
    given, first = np.unique(pairs.given[other], return_index=True)
    suggested, counts = pairs.suggested[other][first], pairs.counts[other][first]
    return dict(zip(given.tolist(), zip(suggested.tolist(), counts.tolist(), strict=True), strict=True))


def class_details(columns: Columns, choice: Choice, rows: Sequence[ClassRow]) -> list[ClassDetail]:
    """Histograms and examples of the classes chosen for them."""
    by_number = {row.number: row for row in rows}
    details = []
    for k in choice.classes:
        # The mixtures were fitted to the classes as they were before any review.
        mine = np.flatnonzero(columns.readable & (columns.scored == k))
        charts = {}
        for name in ESTIMATES if len(mine) else ():
            failed = columns.failed[SELECTORS.index(f"{name}_loss"), mine]
            charts[name] = histogram(columns.loss[name][mine], failed, _mixture(columns, name, k))
        in_doubt, clean = choice.examples[k]
        details.append(ClassDetail(by_number[k], charts, in_doubt.tolist(), clean.tolist()))
    return details


def _mixture(columns: Columns, estimate: str, k: int) -> Mixture | None:
    fitted: Mapping[str, Any] = columns.index.metadata["mixtures"][estimate]
    if fitted["abstained"][k]:
        return None
    return Mixture(fitted["weights"][k], fitted["means"][k], fitted["deviations"][k])


def cells(pairs: Confusion, count: int) -> list[Cell]:
    """The first confusion cells, largest first, shaded by the square root of their counts."""
    pairs = Confusion(pairs.given[:count], pairs.suggested[:count], pairs.counts[:count])
    largest = float(pairs.counts.max()) if len(pairs.counts) else 1.0
    shades = np.ceil(np.sqrt(pairs.counts / largest) * SHADES).astype(np.int64)
    columns = (pairs.given.tolist(), pairs.suggested.tolist(), pairs.counts.tolist(), shades.tolist())
    return [Cell(*values) for values in zip(*columns, strict=True)]


def unreadable(columns: Columns) -> list[Unreadable]:
    """The first UNREADABLE_SHOWN samples without scores."""
    rows = np.flatnonzero(~columns.readable)[:UNREADABLE_SHOWN]
    ids, reasons = columns.strings("id", rows), columns.strings("reason", rows)
    labels = [columns.class_names[k] for k in columns.labels[rows]]
    return [Unreadable(str(i), label, r or "no reason given") for i, label, r in zip(ids, labels, reasons, strict=True)]


def configuration(columns: Columns) -> list[tuple[str, str]]:
    """Everything that decided, as names and values."""
    metadata = columns.index.metadata
    model, prompts = metadata["model"], metadata["prompts"]
    decided = {
        "source": metadata["source"],
        "labels": metadata.get("labels") or "the source's own",
        "prompts": prompts["source"],
        **metadata.get("decided", {}),
    }
    rows = {
        **decided,
        "prompts": f"{decided['prompts']} ({len(prompts['texts']):,} texts)",
        "model": f"{model['model']} {model.get('revision') or ''}".strip(),
        "weights": model["weights"],
        "precision": model["precision"],
        **{name: value for name, value in columns.index.config.to_dict().items() if name not in decided},
        "clipaudit": metadata["clipaudit"],
    }
    return [(name.replace("_", " "), _plain(value)) for name, value in rows.items()]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def reasons_of_unreadable(columns: Columns) -> list[tuple[str, int]]:
    """Why images could not be read, most frequent first."""
    reasons = columns.index.table["reason"].filter(pa.array(~columns.readable))
    counted = pc.value_counts(pc.fill_null(reasons, "no reason given")).to_pylist()
    pairs = [(str(entry["values"]), int(entry["counts"])) for entry in counted]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:REASONS_COUNTED]
