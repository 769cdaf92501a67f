"""PreAct ResNet-18 for small images (He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016)."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3 x 3 convolutions, each after batch normalisation and ReLU, beside an identity or a 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, inputs, h, w) to (b, outputs, h / stride, w / stride)."""
        active = functional.relu(self.norm1(x))
        beside = x if self.shortcut is None else self.shortcut(active)
        return cast(torch.Tensor, self.conv2(functional.relu(self.norm2(self.conv1(active)))) + beside)


class PreActResNet18(nn.Module):
    """Four stages of two blocks; no pooling at the start, as small images need it.

    Args:
        classes: K.
        width: Channels of the first stage; each later one has twice as many.
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        blocks, inputs = [], width
        for stage, outputs in enumerate(widths):
            blocks += [Block(inputs, outputs, stride=1 if stage == 0 else 2), Block(outputs, outputs, stride=1)]
            inputs = outputs
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, 3, h, w) normalised images to (b, K) logits."""
        features = functional.relu(self.norm(self.blocks(self.stem(x))))
        return cast(torch.Tensor, self.head(features.mean(dim=(2, 3))))
