"""Plain cross-entropy: on the clean subset (`ce`: CLIPCleaner + CE, Table 3), or on everything (`ce-all`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from clipaudit.training.config import TrainConfig
from clipaudit.training.methods.base import Batch, Epoch, Look, Subsets, labelled_epoch, steps_of


class CrossEntropy:
    """Learns the given labels as they are."""

    look_every = 0
    beta = 1.0

    def __init__(self, subsets: Subsets, config: TrainConfig) -> None:
        self._subsets, self._config = subsets, config

    def trained(self, subsets: Subsets) -> NDArray[np.bool_]:
        """Which samples it learns."""
        return subsets.clean

    def epoch(self, number: int, network: int, looks: Sequence[Look], generator: np.random.Generator) -> Epoch:
        """The same samples in every epoch."""
        steps = steps_of(self._subsets, self._config)
        return labelled_epoch(self._subsets.labels, self.trained(self._subsets), steps, self._config, generator)

    def loss(self, network: torch.nn.Module, peer: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy, without mixup."""
        logits = network(batch.images).float()
        return functional.cross_entropy(logits, batch.targets, label_smoothing=self._config.label_smoothing)


class CrossEntropyOnAll(CrossEntropy):
    """The baseline: as if all labels were right."""

    def trained(self, subsets: Subsets) -> NDArray[np.bool_]:
        """All that can be read."""
        return subsets.clean | subsets.rest
