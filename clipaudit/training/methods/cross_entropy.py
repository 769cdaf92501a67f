"""Plain cross-entropy, on the clean subset (`ce`: CLIPCleaner + CE, Table 3) or on everything (`ce-all`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from clipaudit.training.methods.base import Batch, Epoch, Look, Subsets, labelled_epoch, steps_of
from clipaudit.training.recipes import TrainConfig


class CrossEntropy:
    """Learns the given labels as they are."""

    networks = 1
    looks = False

    def __init__(self, subsets: Subsets, config: TrainConfig) -> None:
        self.beta = config.beta
        self._subsets, self._config = subsets, config
        self._trained = subsets.clean | subsets.rest if config.method == "ce-all" else subsets.clean

    def epoch(self, number: int, network: int, looks: Sequence[Look], generator: np.random.Generator) -> Epoch:
        """The same samples in every epoch."""
        steps = steps_of(self._subsets, self._config)
        return labelled_epoch(self._subsets.labels, self._trained, steps, self._config, generator)

    def loss(self, network: torch.nn.Module, peer: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy, without mixup."""
        return functional.cross_entropy(network(batch.images).float(), batch.targets)
