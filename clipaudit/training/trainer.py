"""An epoch of training, the same for every method: draw, augment, step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clipaudit.errors import RunError
from clipaudit.training.augment import augmentation_of
from clipaudit.training.config import TrainConfig
from clipaudit.training.engine import Engine
from clipaudit.training.methods.base import Batch, Epoch, Look, Method
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
    """The networks and their optimizers; `n_trained` counts the images of the current epoch."""

    def __init__(
        self, method: Method, networks: Sequence[nn.Module], pixels: Pixels, engine: Engine, config: TrainConfig
    ) -> None:
        self.method, self.engine, self._pixels, self._config = method, engine, pixels, config
        self.networks = [engine.place(network) for network in networks]
        self.optimizers = [
            torch.optim.SGD(
                network.parameters(),
                lr=config.learning_rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                fused=engine.device.type == "cuda",
            )
            for network in self.networks
        ]
        self.n_trained = 0
        self._augment = augmentation_of(config, engine.image_size)

    def train_epoch(self, number: int, looks: Sequence[Look], report: Report) -> EpochResult:
        """Train every network for one epoch, counted from 0; it depends on nothing but weights, looks and its number.

        Args:
            number: Of the epoch.
            looks: What each network saw after the last epoch; empty before the first.
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
        for group in self.optimizers[which].param_groups:
            group["lr"] = self._config.learning_rate_in(number)
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
                found.append(self.step(network, peer, self.optimizers[which], batch))
                self.n_trained += width
                report(self.n_trained, epoch.rows.size * len(self.networks))
            losses += _finite(torch.stack(found), number, start)
        return float(np.mean(losses))

    def step(self, network: nn.Module, peer: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> torch.Tensor:
        """One step of SGD; returns the loss, still on the device. The host waits for nothing here."""
        with self.engine.autocast():
            loss = self.method.loss(network, peer, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()


def _finite(losses: torch.Tensor, epoch: int, first_step: int) -> list[float]:
    """The losses of a block on the host; DivergenceError names the first step whose loss is NaN or infinite."""
    values: NDArray[np.float64] = losses.double().cpu().numpy()
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        step = first_step + int(wrong[0])
        raise DivergenceError(f"the loss became {values[wrong[0]]} at step {step + 1} of epoch {epoch + 1}")
    return list(values.tolist())
