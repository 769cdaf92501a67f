"""What all methods are: a choice of samples and labels for an epoch, and a loss for a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from clipaudit.training.config import TrainConfig
from clipaudit.training.sampling import draw


@dataclass(frozen=True)
class Subsets:
    """The given labels and the division by the audit.

    Attributes:
        labels: (n,) int64 given labels.
        clean: (n,) bool, X_c.
        rest: (n,) bool, X_n.
        classes: K.
        n_left_out: Samples that take no part, as they show none of the classes, and count for the length of an epoch.
    """

    labels: NDArray[np.int64]
    clean: NDArray[np.bool_]
    rest: NDArray[np.bool_]
    classes: int
    n_left_out: int = 0


@dataclass(frozen=True)
class Look:
    """What a classifier sees in the samples, without augmentation.

    Attributes:
        p_m: (n,) float32 largest probability; NaN where it did not look.
        y_m: (n,) int64 its class.
    """

    p_m: NDArray[np.float32]
    y_m: NDArray[np.int64]


@dataclass(frozen=True)
class Epoch:
    """The samples of an epoch's steps.

    Attributes:
        rows: (steps, width) int64 row of each image; one that comes twice is augmented twice.
        targets: (steps, width) int64 label to learn, -1 for an image without one.
        n_samples: How many samples can come.
    """

    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    n_samples: int


@dataclass(frozen=True)
class Batch:
    """A step, all of it on the device.

    Attributes:
        images: (width, 3, h, w) float32, augmented and normalised.
        targets: (width,) int64.
        mixing: () float32, lambda of mixup in [0.5, 1].
        partners: (width,) int64, a permutation: whom each image is mixed with.
        epochs: How long training has lasted, in epochs.
    """

    images: torch.Tensor
    targets: torch.Tensor
    mixing: torch.Tensor
    partners: torch.Tensor
    epochs: float


class Method(Protocol):
    """A way to train."""

    look_every: int
    """Epochs between two looks at X_n; 0 never looks."""
    beta: float
    """b of mixup's Beta(b, b)."""

    def epoch(self, number: int, network: int, looks: Sequence[Look], generator: np.random.Generator) -> Epoch:
        """The samples of an epoch for one network, given what each network saw last (nothing before)."""
        ...

    def loss(self, network: torch.nn.Module, peer: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a step, a scalar on the device."""
        ...


def labelled_epoch(
    labels: NDArray[np.int64],
    trained: NDArray[np.bool_],
    steps: int,
    config: TrainConfig,
    generator: np.random.Generator,
) -> Epoch:
    """An epoch over the samples that are `trained`, with their current labels."""
    rows = np.flatnonzero(trained)
    drawn = draw(rows, labels[rows], steps * config.batch_size, config.balanced, generator)
    drawn = drawn.reshape(steps, config.batch_size)
    return Epoch(drawn, labels[drawn], len(rows))


def steps_of(subsets: Subsets, config: TrainConfig) -> int:
    """Steps an epoch: N / batch_size of all samples that could take part, whatever the method trains on."""
    return max(1, (int((subsets.clean | subsets.rest).sum()) + subsets.n_left_out) // config.batch_size)


def mixup_loss(network: torch.nn.Module, batch: Batch, smoothing: float) -> torch.Tensor:
    """Cross-entropy on mixup pairs (Zhang et al., ICLR 2018), with label smoothing."""
    mixed = batch.images.lerp(batch.images[batch.partners], 1 - batch.mixing)
    logits = network(mixed).float()
    own = functional.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
    partner = functional.cross_entropy(logits, batch.targets[batch.partners], label_smoothing=smoothing)
    return own.lerp(partner, 1 - batch.mixing)
