"""MixFix (section 3.3): the clean subset, and of the rest what eq. 7 absorbs and relabels; cross-entropy on mixup."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from clipaudit.training.methods import MixFixConfig
from clipaudit.training.methods.base import Batch, Epoch, Look, Subsets, labelled_epoch, mixup_loss, steps_of
from clipaudit.training.rule import fix


class MixFix:
    """One network that looks at X_n for itself, or with co-training (Table 5) two that look for each other.

    With two, a network's own mistakes do not come back to it as labels.
    """

    def __init__(self, subsets: Subsets, config: MixFixConfig) -> None:
        self.beta, self.look_every = config.beta, config.look_every
        self._subsets, self._config = subsets, config

    def adviser(self, network: int) -> int:
        """The network whose look decides for `network`."""
        return 1 - network if self._config.co_training else network

    def epoch(self, number: int, network: int, looks: Sequence[Look], generator: np.random.Generator) -> Epoch:
        """The clean subset at first, then also what the last look brought in."""
        subsets, config = self._subsets, self._config
        labels, trained = subsets.labels, subsets.clean
        if looks:
            look = looks[self.adviser(network)]
            fixed = fix(
                look.p_m,
                look.y_m,
                labels,
                subsets.clean,
                config.theta_r,
                config.theta_r_prime,
                relabel_selected=config.relabel_selected,
            )
            labels, trained = fixed.labels, fixed.trained & (subsets.clean | subsets.rest)
        return labelled_epoch(labels, trained, steps_of(subsets, config), config, generator)

    def loss(self, network: torch.nn.Module, peer: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy on mixup pairs."""
        return mixup_loss(network, batch, self._config.label_smoothing)
