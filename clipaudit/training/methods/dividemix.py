"""DivideMix (Li, Socher, Hoi, ICLR 2020) with the audit's clean subset as its labelled set.

Where DivideMix divides by a mixture over each network's own losses, the audit has divided already: the clean subset is
labelled and trusted (w = 1), the rest is unlabelled. What remains are its two networks, co-guessing with sharpening
(its eq. 7-8), MixMatch on two augmentations of each image, and the penalty that keeps all classes in use (eq. 9-12).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from clipaudit.training.methods import DivideMixConfig
from clipaudit.training.methods.base import Batch, Epoch, Look, Subsets, labelled_epoch, steps_of
from clipaudit.training.sampling import draw

VIEWS = 2


class DivideMix:
    """Semi-supervised: the rest teaches through the guesses of both networks, never through its given labels."""

    look_every = 0

    def __init__(self, subsets: Subsets, config: DivideMixConfig) -> None:
        self.beta = config.alpha
        self._subsets, self._config = subsets, config

    def epoch(self, number: int, network: int, looks: Sequence[Look], generator: np.random.Generator) -> Epoch:
        """The labelled set alone while warming up; then in each step b labelled images twice and b others twice."""
        subsets, config = self._subsets, self._config
        steps = steps_of(subsets, config)
        labelled = labelled_epoch(subsets.labels, subsets.clean, steps, config, generator)
        rest = np.flatnonzero(subsets.rest)
        if number < config.warm_up or not len(rest):
            return labelled
        others = draw(rest, subsets.labels[rest], steps * config.batch_size, False, generator).reshape(steps, -1)
        rows = np.hstack([labelled.rows] * VIEWS + [others] * VIEWS)
        targets = np.hstack([labelled.targets] * VIEWS + [np.full_like(others, -1)] * VIEWS)
        return Epoch(rows, targets, labelled.n_samples + len(rest))

    def loss(self, network: torch.nn.Module, peer: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """L_x + lambda_u L_u + L_reg (eq. 12), or plain cross-entropy while warming up."""
        labelled = VIEWS * self._config.batch_size
        if len(batch.images) != 2 * labelled:
            return functional.cross_entropy(network(batch.images).float(), batch.targets)
        known = functional.one_hot(batch.targets[:labelled], self._subsets.classes).float()
        targets = torch.cat([known, self._guess(network, peer, batch.images[labelled:])])
        images = batch.images.lerp(batch.images[batch.partners], 1 - batch.mixing)
        targets = targets.lerp(targets[batch.partners], 1 - batch.mixing)
        logits = network(images).float()
        log_p = logits.log_softmax(dim=1)
        supervised = -(targets[:labelled] * log_p[:labelled]).sum(dim=1).mean()
        unsupervised = functional.mse_loss(log_p[labelled:].exp(), targets[labelled:])
        mean_p = log_p.exp().mean(dim=0)
        penalty = -(mean_p * self._subsets.classes).log().mean()
        loss: torch.Tensor = supervised + self._config.lambda_u * self._ramp(batch.epochs) * unsupervised + penalty
        return loss

    def _ramp(self, epochs: float) -> float:
        """How much of its full weight the unlabelled loss has: linear from 0 at the end of the warm-up to 1."""
        since, ramp_up = epochs - self._config.warm_up, self._config.ramp_up
        return min(1.0, max(0.0, since / ramp_up)) if ramp_up else 1.0

    def _guess(self, network: torch.nn.Module, peer: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        """(2b, K) targets of the unlabelled images: the mean of both networks over both views, sharpened by T."""
        with torch.no_grad():
            p = (network(images).float().softmax(dim=1) + peer(images).float().softmax(dim=1)) / 2
            p = p.view(VIEWS, -1, p.shape[1]).mean(dim=0)
            p = p ** (1 / self._config.sharpening)
            guesses: torch.Tensor = p / p.sum(dim=1, keepdim=True)
            return guesses.repeat(VIEWS, 1)
