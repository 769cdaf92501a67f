"""An epoch of training, the same for every method: draw, augment, step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clipaudit.errors import RunError
from clipaudit.training.augment import augmentation_of
from clipaudit.training.config import MUON, TrainConfig
from clipaudit.training.engine import Engine
from clipaudit.training.methods.base import Batch, Epoch, Look, Method
from clipaudit.training.muon import Muon
from clipaudit.training.pixels import Pixels

# Values of the samples (bytes of uint8 images) that are augmented together, for as many steps as they last.
VALUES_A_BLOCK = 64 << 20

Report = Callable[[int, int], None]


class DivergenceError(RunError):
    """A loss that is not finite."""


@dataclass(frozen=True)
class EpochResult:
    """What an epoch of all networks was like.

    Attributes:
        loss: Mean over steps and networks.
        n_samples: Samples that could come (mean over networks).
    """

    loss: float
    n_samples: int


class Trainer:
    """The networks and their optimizers.

    Attributes:
        networks: What is trained.
        averages: What sees, is judged and is kept: the moving average of each network's weights, or without averaging
            the networks themselves.
        n_trained: Images of the current epoch so far.
    """

    def __init__(
        self, method: Method, networks: Sequence[nn.Module], pixels: Pixels, engine: Engine, config: TrainConfig
    ) -> None:
        self.method, self.engine, self._pixels, self._config = method, engine, pixels, config
        self.networks = [engine.place(network) for network in networks]
        self.optimizers = [_optimizer(network, config, engine.device) for network in self.networks]
        self.averages = [_still(network) for network in self.networks] if config.averaging else self.networks
        self.n_trained = 0
        self._augment = augmentation_of(config, engine.image_size)

    def train_epoch(self, number: int, looks: Sequence[Look], report: Report) -> EpochResult:
        """Train every network for one epoch, counted from 0; it depends on nothing but weights, looks and its number.

        Args:
            number: Of the epoch.
            looks: What each network saw last; empty before the first look.
            report: Called after every step with the images trained on in this epoch, and those there will be.

        Raises:
            DivergenceError: a loss is not finite; the weights are spoilt.
        """
        losses, counts = [], []
        self.n_trained = 0
        for which in range(len(self.networks)):
            generator = np.random.default_rng([self._config.seed, 1, number, which])
            epoch = self.method.epoch(number, which, looks, generator)
            with self.engine.repeatable(self._config.seed, 2, number, which):
                losses.append(self._train_network(which, number, epoch, generator, report))
            counts.append(epoch.n_samples)
        return EpochResult(float(np.mean(losses)), round(float(np.mean(counts))))

    def _train_network(
        self, which: int, number: int, epoch: Epoch, generator: np.random.Generator, report: Report
    ) -> float:
        network, peer = self.networks[which].train(), self.networks[(which + 1) % len(self.networks)]
        if peer is not network:
            peer.eval()
        device, (steps, width) = self.engine.device, epoch.rows.shape
        mixing = np.asarray(generator.beta(self.method.beta, self.method.beta, steps))
        mixings = torch.from_numpy(np.maximum(mixing, 1 - mixing).astype(np.float32)).to(device)
        partners = torch.from_numpy(generator.permuted(np.tile(np.arange(width), (steps, 1)), axis=1)).to(device)
        targets = torch.from_numpy(epoch.targets).to(device)
        at_once = max(1, VALUES_A_BLOCK // (width * self.engine.sample_values))
        starts = range(0, steps, at_once)
        blocks = self._pixels.blocks([epoch.rows[start : start + at_once].ravel() for start in starts])
        losses: list[float] = []
        for start, block in zip(starts, blocks, strict=True):
            images = self._augment(block).view(-1, width, *block.shape[1:])
            found = []
            for step, pictures in enumerate(images, start=start):
                batch = Batch(
                    self.engine.normalise(pictures),
                    targets[step],
                    mixings[step],
                    partners[step],
                    number + step / steps,
                )
                for group in self.optimizers[which].param_groups:
                    group["lr"] = self._config.learning_rate_in(batch.epochs)
                found.append(self.step(network, peer, self.optimizers[which], batch))
                if self._config.averaging:
                    _follow(self.averages[which], network, self._config.averaging, number * steps + step)
                self.n_trained += width
                report(self.n_trained, epoch.rows.size * len(self.networks))
            losses += _finite(torch.stack(found), number, start)
        return float(np.mean(losses))

    def step(self, network: nn.Module, peer: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> torch.Tensor:
        """One step of the optimizer; returns the loss, still on the device. The host waits for nothing here."""
        with self.engine.autocast():
            loss = self.method.loss(network, peer, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()


def _optimizer(network: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    rate, momentum, decay = config.learning_rate, config.momentum, config.weight_decay
    if config.optimizer == MUON:
        return Muon(network, lr=rate, momentum=momentum, weight_decay=decay)
    fused = device.type == "cuda"
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum, weight_decay=decay, fused=fused)


def _still(network: nn.Module) -> nn.Module:
    """A copy of a network that is not trained."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float, steps_before: int) -> None:
    """Move an average towards a network, batch normalisation's statistics included; faster in the first steps."""
    share = 1 - min(decay, (1 + steps_before) / (10 + steps_before))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, share)
        else:
            mean.copy_(value)


def _finite(losses: torch.Tensor, epoch: int, first_step: int) -> list[float]:
    """The losses of a block on the host; DivergenceError names the first step whose loss is NaN or infinite."""
    values: NDArray[np.float64] = losses.double().cpu().numpy()
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        step = first_step + int(wrong[0])
        raise DivergenceError(f"the loss became {values[wrong[0]]} at step {step + 1} of epoch {epoch + 1}")
    return list(values.tolist())
