"""Where and in which precision networks compute, and what they see without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clipaudit.options.shared import TRAIN_PRECISION
from clipaudit.training.methods.base import Look
from clipaudit.training.models import Architecture
from clipaudit.training.pixels import Pixels
from clipaudit.training.probe import Probe

# Values (3 h w an image, d an embedding) of the samples that pass a network together when nothing is learned.
VALUES_A_LOOK = 1 << 23


class Engine:
    """A device, its arithmetic, and the model's normalisation.

    Args:
        device: Where to compute.
        precision: "bfloat16" (mixed: weights stay float32), "float32", or "auto": mixed on a GPU that computes in it.
        architecture: Of the networks: it says what a sample is, and how images are normalised.
    """

    def __init__(self, device: torch.device, precision: str, architecture: Architecture | Probe) -> None:
        precision = TRAIN_PRECISION.take(precision)
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        self.device = device
        self.precision = ("bfloat16" if native else "float32") if precision == "auto" else precision
        self.sample_values = architecture.sample_values
        self.image_size: int | None = None
        # Channels last is what convolutions in half precision are fastest in on a GPU. On a CPU it gains little, and
        # oneDNN's AVX2 kernel writes out of bounds in it where channels are few (benchmarks/channels_last.py).
        self._layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        if isinstance(architecture, Probe):
            return
        self.image_size = architecture.image_size
        self._mean = 255 * torch.tensor(architecture.mean, device=device).view(1, 3, 1, 1)
        self._std = 255 * torch.tensor(architecture.std, device=device).view(1, 3, 1, 1)

    def place(self, network: nn.Module) -> nn.Module:
        """The network on the device, in the layout that is fast and safe there."""
        placed: nn.Module = network.to(self.device).to(memory_format=self._layout)  # type: ignore[call-overload]
        return placed

    def autocast(self) -> torch.autocast:
        """Mixed precision, or nothing in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, h, w) uint8 to float32, in the layout of the networks; (b, d) embeddings as they are."""
        if self.image_size is None:
            return images
        return ((images.float() - self._mean) / self._std).contiguous(memory_format=self._layout)

    @contextmanager
    def repeatable(self, *key: int) -> Iterator[None]:
        """Inside, torch's randomness is derived from `key` alone, and cuDNN computes the same way every time."""
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), _deterministic():
            torch.manual_seed(seed)
            yield

    def look(self, networks: Sequence[nn.Module], pixels: Pixels, rows: NDArray[np.int64], n: int) -> list[Look]:
        """One forward pass over `rows` without augmentation; the device is waited for once, at the end.

        Returns:
            What each network sees, and last what they see together (mean probabilities), as arrays of n; NaN and -1 for
            rows that were not asked for. One network alone is both.
        """
        batch = max(1, VALUES_A_LOOK // self.sample_values)
        shares = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        seen: list[list[torch.return_types.max]] = [[] for _ in range(len(networks) + (len(networks) > 1))]
        for network in networks:
            network.eval()
        with torch.no_grad(), self.autocast(), _deterministic():
            for images in pixels.blocks(shares):
                normal = self.normalise(images)
                p = [network(normal).float().softmax(dim=1) for network in networks]
                if len(p) > 1:
                    p.append(torch.stack(p).mean(dim=0))
                for found, probabilities in zip(seen, p, strict=True):
                    found.append(probabilities.max(dim=1))
        return [_spread(found, rows, n) for found in seen]


def _deterministic() -> AbstractContextManager[None]:
    """cuDNN without the choices that make two runs differ: what is seen decides labels, so that a bit can matter."""
    flags: Callable[..., AbstractContextManager[None]] = torch.backends.cudnn.flags
    return flags(enabled=True, benchmark=False, deterministic=True)


def _spread(found: list[torch.return_types.max], rows: NDArray[np.int64], n: int) -> Look:
    p_m, y_m = np.full(n, np.nan, np.float32), np.full(n, -1, np.int64)
    if found:
        p_m[rows] = torch.cat([part.values for part in found]).cpu().numpy()
        y_m[rows] = torch.cat([part.indices for part in found]).cpu().numpy()
    return Look(p_m, y_m)
