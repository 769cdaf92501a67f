"""What the tests of training share: noisy digits, divided by an index, and a network small enough for them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from report_helpers import Row, index_of

import clipaudit
from clipaudit.demo.digits import CLASS_NAMES, as_picture, load_split
from clipaudit.index.clean_index import CleanIndex
from clipaudit.training.config import TrainConfig

# A network and an epoch that a processor core is done with in a fraction of a second.
TINY = clipaudit.recipe("cifar", width=4, image_size=16, epochs=4, batch_size=16, flip=False, crop_padding=1)


def write_digits(root: Path, images: np.ndarray, labels: np.ndarray) -> list[str]:
    """Digits as ROOT/CLASS/number.png; their ids in the order of the images."""
    ids = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / CLASS_NAMES[label] / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        as_picture(image).save(path)
        ids.append(path.relative_to(root).as_posix())
    return ids


def train(digits: Digits, out: Path, config: TrainConfig = TINY, **options) -> clipaudit.TrainSummary:
    """A run on the processor, judged by clean digits."""
    settings = {"test": digits.test, "truth": digits.truth_table, "device": "cpu", **options}
    return clipaudit.train(digits.index, out=out, config=config, **settings)


def content(run: Path) -> dict[str, bytes]:
    """All files of a run by name."""
    return {path.name: path.read_bytes() for path in sorted(run.iterdir())}


def make_index(ids: list[str], labels: np.ndarray, clean: np.ndarray, root: Path, column: str | None = None):
    """An index as `select` makes it, with these verdicts."""
    rows = []
    for sample_id, label, is_clean in zip(ids, labels.tolist(), clean.tolist(), strict=True):
        seen = (label, 0.9, 0.9) if is_clean else ((label + 1) % len(CLASS_NAMES), 0.9, 0.05)
        estimate = (CLASS_NAMES[seen[0]], *seen[1:])
        rows.append(Row(sample_id, CLASS_NAMES[label], estimate, estimate))
    index = index_of(rows, root, names=CLASS_NAMES)
    # Whatever a class would have kept as its last.
    table = index.table.set_column(index.table.column_names.index("is_clean"), "is_clean", pa.array(clean))
    return CleanIndex(table, replace(index.metadata, image_column=column))


class Digits:
    """Noisy digits, an index that divides them, test digits and the truth."""

    def __init__(self, folder: Path, n: int, rate: float) -> None:
        split, generator = load_split(), np.random.default_rng(0)
        self.truth = split.audit_labels[:n]
        wrong = generator.random(n) < rate
        self.labels = np.where(wrong, (self.truth + generator.integers(1, 10, n)) % 10, self.truth)
        self.clean = ~wrong & (generator.random(n) < 0.7)
        self.root, self.test = folder / "train", folder / "test"
        self.ids = write_digits(self.root, split.audit_images[:n], self.labels)
        write_digits(self.test, split.train_images[:100], split.train_labels[:100])
        self.index = make_index(self.ids, self.labels, self.clean, self.root)
        self.truth_table = folder / "truth.csv"
        rows = [(f"train/{name}", CLASS_NAMES[label]) for name, label in zip(self.ids, self.truth, strict=True)]
        with self.truth_table.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label_true"), *rows])
