"""Throughput of a training step beside the bare model and beside a plain PyTorch loop with DataLoader workers.

    python -m benchmarks.train_speed [--images 2048] [--batch 128] [--width 64] [--workers 2] [--json FILE]

All contenders train the same PreAct ResNet-18 with mixup, SGD, the same augmentation (AutoAugment, crop, flip), batch
and precision, on random images of 32 x 32 pixels that are in memory already. `bare model` steps on one prepared batch
again and again; what an epoch takes longer than that is the share outside the model. The DataLoader's workers augment
image by image, as such loops do, here with the same augmentation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from clipaudit.clip.devices import choose_device
from clipaudit.training.augment import Augmentation
from clipaudit.training.engine import Engine
from clipaudit.training.methods import method_of
from clipaudit.training.methods.base import Batch, Subsets
from clipaudit.training.models import build, describe
from clipaudit.training.pixels import DevicePixels, DiskPixels
from clipaudit.training.recipes import recipe
from clipaudit.training.trainer import Trainer

SIZE, CLASSES = 32, 10


class Augmented(Dataset[tuple[torch.Tensor, int]]):
    """Images as a plain training loop takes them: augmented one by one, in a worker."""

    def __init__(self, images: torch.Tensor, labels: np.ndarray) -> None:
        self._images, self._labels = images, labels
        self._augment = Augmentation("cifar10", SIZE, 4, flip=True)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        """One (3, 32, 32) uint8 image and its label."""
        return self._augment(self._images[row].permute(2, 0, 1)[None])[0], int(self._labels[row])


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Of the fastest call after the first one, which warms up: other processes can only slow one down."""
    elapsed = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed.append(time.perf_counter() - began)
    return min(elapsed[1:])


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds for as many images as an epoch has, of each contender."""
    device, repeats = choose_device(options.device), options.repeats
    config = recipe("cifar", batch_size=options.batch, width=options.width)
    architecture = describe(config, CLASSES)
    engine = Engine(device, options.precision, architecture)
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (options.images, SIZE, SIZE, 3), dtype=np.uint8))
    labels = generator.integers(0, CLASSES, options.images)
    everything = np.ones(options.images, bool)
    method = method_of(Subsets(labels, everything, ~everything, CLASSES), config)
    resident = DevicePixels(images.to(device))
    trainer = Trainer(method, [build(architecture)], resident, engine, config)
    network, optimizer, steps = trainer.networks[0].train(), trainer.optimizers[0], options.images // options.batch

    def step(pictures: torch.Tensor, targets: torch.Tensor) -> None:
        partners = torch.arange(len(targets), device=device).flip(0)
        mixing = torch.full((), 0.7, device=device)
        batch = Batch(engine.normalise(pictures), targets, mixing, partners, 0.0)
        trainer.step(network, network, optimizer, batch)

    one = images[: options.batch].to(device).permute(0, 3, 1, 2)
    one_targets = torch.from_numpy(labels[: options.batch]).to(device)
    loader = DataLoader(
        Augmented(images, labels),
        options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        pin_memory=device.type == "cuda",
    )

    def plain_loop() -> None:
        for pictures, targets in loader:
            step(pictures.to(device, non_blocking=True), targets.to(device, non_blocking=True))

    def epoch_of(pixels: DevicePixels | DiskPixels) -> Callable[[], object]:
        other = Trainer(method, [network], pixels, engine, config)
        return lambda: other.train_epoch(0, [], lambda done, total: None)

    with tempfile.TemporaryDirectory() as folder:
        file = np.memmap(Path(folder) / "pixels", np.uint8, "w+", shape=tuple(images.shape))
        file[:] = images.numpy()
        return {
            "bare model": seconds(lambda: [step(one, one_targets) for _ in range(steps)], device, repeats),
            "clipaudit, images on the device": seconds(epoch_of(resident), device, repeats),
            "clipaudit, images streamed": seconds(epoch_of(DiskPixels(file, device, options.workers)), device, repeats),
            f"DataLoader, {options.workers} workers": seconds(plain_loop, device, repeats),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options)
    count = options.images // options.batch * options.batch
    table = Table("contender", "images/s", "outside the model")
    for name, elapsed in found.items():
        table.add_row(name, f"{count / elapsed:,.1f}", f"{1 - found['bare model'] / elapsed:.1%}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({name: count / elapsed for name, elapsed in found.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
