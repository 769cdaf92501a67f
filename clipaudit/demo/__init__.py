"""The demo's data: handwritten digits as PNG class folders, some of them in the wrong one on purpose."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipaudit.demo.digits import CLASS_NAMES, as_picture, load_split
from clipaudit.errors import UsageError
from clipaudit.files import new_folder
from clipaudit.options.kinds import SEED

MODEL = Path(__file__).parent / "model"
N_COPIES = 3


@dataclass(frozen=True)
class DemoFiles:
    """What the demo wrote: a folder of class folders, a table of the true labels, and how many labels are wrong.

    Of the images, `n_copies` are files that are there a second time; the first of these lies in another folder.
    """

    images: Path
    truth: Path
    n_images: int
    n_wrong: int
    n_copies: int


def write_digits(folder: Path, *, rate: float, seed: int) -> DemoFiles:
    """Write the digits that the shipped model has not seen, a share of them under another class.

    Args:
        folder: A new folder; it appears whole or not at all.
        rate: Share of wrong labels, in (0, 1); the other class is drawn uniformly.
        seed: Random seed of the draw.

    Raises:
        ClipAuditError: the folder exists, or cannot be written.
        UsageError: the rate or the seed is out of range, or no folder can have this name.
    """
    seed = SEED.take("seed", seed)
    if not 0 < rate < 1:
        raise UsageError(f"the share of wrong labels, rate, must be above 0 and below 1, not {rate}.")
    split = load_split()
    truth, n = np.asarray(split.audit_labels), len(split.audit_labels)
    generator = np.random.default_rng(seed)
    wrong = generator.choice(n, size=round(rate * n), replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + generator.integers(1, len(CLASS_NAMES), len(wrong))) % len(CLASS_NAMES)
    copied = generator.choice(np.flatnonzero(labels == truth), size=min(N_COPIES, n - len(wrong)), replace=False)
    beside_it = labels[copied]
    beside_it[:1] = (beside_it[:1] + 1) % len(CLASS_NAMES)
    paths = [f"images/{CLASS_NAMES[label]}/{number:04}.png" for number, label in enumerate(labels)]
    copies = [
        f"images/{CLASS_NAMES[label]}/{number:04}-copy.png" for number, label in zip(copied, beside_it, strict=True)
    ]
    with new_folder(folder) as beside:
        for name in CLASS_NAMES:
            (beside / "images" / name).mkdir(parents=True)
        for path, image in zip(paths, split.audit_images, strict=True):
            as_picture(image).save(beside / path)
        for path, number in zip(copies, copied, strict=True):
            as_picture(split.audit_images[number]).save(beside / path)
        with (beside / "truth.csv").open("w", newline="", encoding="utf-8") as file:
            true = [CLASS_NAMES[label] for label in np.concatenate([truth, truth[copied]])]
            rows = zip([*paths, *copies], true, strict=True)
            csv.writer(file).writerows([("path", "label_true"), *rows])
    n_wrong = len(wrong) + int((beside_it != truth[copied]).sum())
    return DemoFiles(folder / "images", folder / "truth.csv", n + len(copies), n_wrong, len(copies))


def mark_by_truth(review: Path, files: DemoFiles) -> Path:
    """Fill in the queue of a review as somebody would who knows the true labels; returns the table of marks."""
    with files.truth.open(newline="", encoding="utf-8") as file:
        truth = {row["path"].removeprefix("images/"): row["label_true"] for row in csv.DictReader(file)}
    with (review / "queue.csv").open(newline="", encoding="utf-8") as file:
        ids = [row["id"] for row in csv.DictReader(file)]

    def judged(name: str) -> tuple[str, str, str]:
        is_right = truth[name] == Path(name).parent.name
        return (name, "right", "") if is_right else (name, "relabel", truth[name])

    marks = review / "marks.csv"
    with marks.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "mark", "label"), *map(judged, ids)])
    return marks
