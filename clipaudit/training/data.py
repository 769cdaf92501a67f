"""What a run trains and is judged on: the index's samples, the test set, the truth, all as class indices and bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipaudit.errors import SourceError, UsageError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.truth import match_truth
from clipaudit.samples import FaultySample, SourceOptions, open_source
from clipaudit.samples.hugging_face import Dataset
from clipaudit.samples.reader import ImageReader
from clipaudit.spelling import Spellings
from clipaudit.training.config import TrainConfig
from clipaudit.training.methods.base import Subsets

Read = Callable[[str], bytes]
# Without a test set this share of the clean subset judges the model.
HELD_OUT = 0.1


@dataclass(frozen=True)
class Samples:
    """Labelled images, still as files.

    Attributes:
        ids: n ids, which `read` takes.
        labels: (n,) int64 class indices.
        read: The bytes of one image; raises ImageError.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    read: Read

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class TrainingSet:
    """The samples of an index by their part in training. All arrays have one entry a row of the index.

    Attributes:
        samples: All rows with their given labels.
        class_names: K names.
        readable: (n,) bool, the image can be read.
        clean: (n,) bool, in the clean subset that is trained on.
        held_out: (n,) bool, clean but set apart to judge the model.
        off_topic: (n,) bool, shows none of the classes, so that outside the clean subset it teaches nothing.
        truth: (n,) int64 true class, -1 for a class that is not among the names; None where it is not known.
        truth_notes: What was tolerated, unknown or doubtful about it.
    """

    samples: Samples
    class_names: list[str]
    readable: NDArray[np.bool_]
    clean: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    off_topic: NDArray[np.bool_]
    truth: NDArray[np.int64] | None
    truth_notes: tuple[str, ...] = ()

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(n,) bool: X_c and X_n, all that could take part in training."""
        return self.readable & ~self.held_out & (self.clean | ~self.off_topic)

    def subsets(self) -> Subsets:
        """X_c and X_n, as the methods take them."""
        left_out = self.readable & ~self.held_out & ~self.usable
        n_left_out = int(left_out.sum())
        return Subsets(self.samples.labels, self.clean, self.usable & ~self.clean, len(self.class_names), n_left_out)

    def notes(self) -> list[str]:
        """What a user should know about the classes before trusting the result."""
        counts = np.bincount(self.samples.labels[self.clean], minlength=len(self.class_names))
        notes = list(self.truth_notes)
        for count, words in ((0, "no clean sample, so that it cannot be learned"), (1, "only one clean sample")):
            names = [name for name, n in zip(self.class_names, counts, strict=True) if n == count]
            if names:
                notes.append(f"{len(names):,} class(es) with {words}: {', '.join(names[:5])}")
        return notes

    def without(self, rows: NDArray[np.int64]) -> TrainingSet:
        """The same without rows whose images turned out to be unreadable."""
        gone = np.zeros(len(self.samples), bool)
        gone[rows] = True
        keep = ~gone
        return replace(self, readable=self.readable & keep, clean=self.clean & keep, held_out=self.held_out & keep)


def training_set(
    index: CleanIndex,
    config: TrainConfig,
    *,
    images: str | Path | Dataset | None,
    truth: str | Path | None,
    has_test: bool,
) -> TrainingSet:
    """The samples of an index.

    Args:
        index: The clean index.
        config: `val_share` and `seed` decide what is held out.
        images: Where the images lie now; None takes the index's own root.
        truth: True labels as `FILE[:COLUMN]`.
        has_test: There is a test set, so that nothing has to be held out unless asked for.

    Raises:
        SourceError: the clean subset is empty, or a sample has no row in `truth`.
    """
    ids: list[str] = index.table["id"].to_pylist()
    labels = index.labels()
    samples = Samples(ids, labels, ImageReader(index.metadata, images).read)
    clean = index.is_clean
    if not clean.any():
        raise SourceError(
            "the clean subset is empty: there is nothing to train on. Lower the thresholds with:"
            " clipaudit select --from"
        )
    share = config.val_share if config.val_share is not None else (0.0 if has_test else HELD_OUT)
    held_out = _stratified(labels, clean, share, np.random.default_rng([config.seed, 0]))
    known: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    if truth is not None:
        matched = match_truth(index, truth)
        known = matched.classes(index.class_names)
        notes = (*matched.notes, *matched.warnings)
    off_topic = np.zeros(len(index), bool) if config.off_topic else index.off_topic
    return TrainingSet(samples, index.class_names, index.readable, clean & ~held_out, held_out, off_topic, known, notes)


def _stratified(
    labels: NDArray[np.int64], clean: NDArray[np.bool_], share: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """(n,) bool: a share of every class's clean samples, rounded; at least one is left to train on."""
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels[clean]):
        rows = np.flatnonzero(clean & (labels == label))
        held_out[generator.permutation(rows)[: min(round(share * len(rows)), len(rows) - 1)]] = True
    return held_out


def test_set(source: str | Path, options: SourceOptions | None, class_names: Sequence[str]) -> Samples:
    """Test images in any form that `embed` reads; unreadable ones are left to the pixel store.

    Raises:
        SourceError: it cannot be read.
        UsageError: none of its labels is a class of the index.
    """
    opened = open_source(source, options)
    spellings = Spellings(class_names)
    found = [sample for sample in opened.samples() if not isinstance(sample, FaultySample)]
    numbers = {label: spellings.find(label) for label in {sample.label for sample in found}}
    if unknown := sorted(label for label, number in numbers.items() if number is None):
        raise UsageError(
            f"the test set {source} has the class {unknown[0]!r}, which the index has not."
            f" Classes of the index: {', '.join(list(class_names)[:10])}. Class indices? Name them with --names."
        )
    labels = np.array([numbers[sample.label] for sample in found], np.int64)
    return Samples([sample.id for sample in found], labels, opened.read)
