"""Airbench, a fast network for small images (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024)."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

# Of the patches whose principal axes the first layer computes.
PATCH = 2
# The smallest image that it can halve three times.
LEAST_EDGE = 9
# Added to the variance along each axis, so that an axis with next to none is not blown up.
LEAST_VARIANCE = 5e-4


class Stage(nn.Module):
    """Two 3 x 3 convolutions, each before batch normalisation and GELU; the first halves the image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(inputs, outputs), _normalisation(outputs)
        self.conv2, self.norm2 = _convolution(outputs, outputs), _normalisation(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, inputs, h, w) to (b, outputs, h / 2, w / 2)."""
        x = functional.gelu(self.norm1(functional.max_pool2d(self.conv1(x), 2)))
        return functional.gelu(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """A layer that whitens 2 x 2 patches, three stages, a maximum over what is left of the image, a linear head.

    Args:
        classes: K.
        width: Channels of the first stage; the others have four times as many.
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        axes = 3 * PATCH**2
        self.whitening = nn.Conv2d(3, 2 * axes, PATCH, bias=False).requires_grad_(False)
        self.stages = nn.Sequential(Stage(2 * axes, width), Stage(width, 4 * width), Stage(4 * width, 4 * width))
        self.head = nn.Linear(4 * width, classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, 3, h, w) normalised images, of at least 9 x 9 pixels, to (b, K) logits."""
        features = self.stages(functional.gelu(self.whitening(x))).amax(dim=(2, 3))
        # The largest of many values is large, and so would the first logits be.
        return cast(torch.Tensor, self.head(features) / 9)

    @torch.no_grad()
    def whiten(self, images: torch.Tensor) -> None:
        """Let the first layer whiten the patches of (b, 3, h, w) normalised images: half of it is the axes, half their
        negatives, as what follows cuts off what is negative. It is not trained."""
        patches = functional.unfold(images.float(), PATCH).transpose(1, 2).flatten(0, 1)
        variances, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (axes / (variances + LEAST_VARIANCE).sqrt()).T.reshape(-1, *self.whitening.weight.shape[1:])
        self.whitening.weight.copy_(torch.cat([filters, -filters]))


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """One that at first passes its inputs on unchanged, as far as it has outputs for them."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:inputs])
    return layer


def _normalisation(channels: int) -> nn.BatchNorm2d:
    """Without a scale of its own: it takes away what the next layer's weights would do as well."""
    layer = nn.BatchNorm2d(channels)
    layer.weight.requires_grad_(False)
    return layer
