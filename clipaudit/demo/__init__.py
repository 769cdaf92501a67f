"""The demo's data: handwritten digits as PNG class folders, some of them in the wrong one on purpose."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipaudit.demo.digits import CLASS_NAMES, as_picture, load_split
from clipaudit.errors import ClipAuditError, UsageError

MODEL = Path(__file__).parent / "model"


@dataclass(frozen=True)
class DemoFiles:
    """What the demo wrote: a folder of class folders, a table of the true labels, and how many labels are wrong."""

    images: Path
    truth: Path
    n_images: int
    n_wrong: int


def write_digits(folder: Path, *, rate: float, seed: int) -> DemoFiles:
    """Write the digits that the shipped model has not seen, a share of them under another class.

    Args:
        folder: A new folder.
        rate: Share of wrong labels, in (0, 1); the other class is drawn uniformly.
        seed: Of the draw.

    Raises:
        ClipAuditError: the folder exists.
        UsageError: the rate is out of range.
    """
    if not 0 < rate < 1:
        raise UsageError(f"the share of wrong labels must be above 0 and below 1, not {rate}.")
    if folder.exists():
        raise ClipAuditError(f"{folder} exists already. Remove it, or name a new folder: clipaudit demo FOLDER")
    split = load_split()
    truth, n = np.asarray(split.audit_labels), len(split.audit_labels)
    generator = np.random.default_rng(seed)
    wrong = generator.choice(n, size=round(rate * n), replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + generator.integers(1, len(CLASS_NAMES), len(wrong))) % len(CLASS_NAMES)
    rows = []
    for number, (image, label, true_label) in enumerate(zip(split.audit_images, labels, truth, strict=True)):
        path = folder / "images" / CLASS_NAMES[label] / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        as_picture(image).save(path)
        rows.append((path.relative_to(folder).as_posix(), CLASS_NAMES[true_label]))
    with (folder / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label_true"), *rows])
    return DemoFiles(folder / "images", folder / "truth.csv", n, len(wrong))
