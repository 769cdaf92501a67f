"""The curvature of the logistic regression's objective, found on some of the samples: what makes its steps few.

The Hessian of K classes is no matrix that could be written down, but its product with a direction costs no more than a
gradient, and a sample of some thousand rows tells it well enough. Conjugate gradients solve it for a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows of the sample for each dimension: wanted, and the fewest that help. One of SHARE rows is little work.
WANTED, FEWEST, SHARE = 32, 16, 16
# Probabilities of the sample that are kept.
MOST_PROBABILITIES = 1 << 25
# Conjugate gradients stop at this share of the residual's square, or after so many steps.
ENOUGH, STEPS = 1e-2, 10

Linear = Callable[[Tensor], Tensor]


def sample_size(n: int, dimension: int, n_classes: int) -> int:
    """How many of n samples the curvature is found on; 0 where a sample would be too small to help."""
    size = min(WANTED * dimension, n // SHARE, MOST_PROBABILITIES // n_classes)
    return size if size >= FEWEST * dimension else 0


@dataclass(frozen=True)
class Sample:
    """The rows that the curvature is found on.

    Attributes:
        x: Chunks (m, d) float32.
        weights: (m, 1) of each chunk; they add up to those of all samples.
    """

    x: Sequence[Tensor]
    weights: Sequence[Tensor]

    def hessian(self, parameters: Tensor) -> Linear:
        """The Hessian at (K, d+1) parameters, without the penalty: what it makes of a (K, d+1) direction."""
        p = [torch.addmm(parameters[:, -1], x, parameters[:, :-1].T).softmax(1) for x in self.x]

        def times(direction: Tensor) -> Tensor:
            result = torch.zeros_like(direction)
            for x, w, of_class in zip(self.x, self.weights, p, strict=True):
                change = torch.addmm(direction[:, -1], x, direction[:, :-1].T)
                change -= (of_class * change).sum(1, keepdim=True)
                change *= of_class * w
                result[:, :-1].addmm_(change.T, x)
                result[:, -1] += change.sum(0)
            return result

        return times


def solved(hessian: Linear, inverse: Linear, wanted: Tensor) -> Tensor:
    """(K, d+1) roughly the direction that the Hessian makes `wanted` of, by preconditioned conjugate gradients.

    Args:
        hessian: Symmetric and positive definite.
        inverse: Roughly its inverse.
        wanted: (K, d+1).
    """
    result, rest = torch.zeros_like(wanted), wanted.clone()
    direction = inverse(rest)
    size = first = float((rest * direction).sum())
    for _ in range(STEPS):
        if size <= ENOUGH * first or first <= 0:
            break
        product = hessian(direction)
        length = size / float((direction * product).sum())
        result += length * direction
        rest -= length * product
        following = inverse(rest)
        before, size = size, float((rest * following).sum())
        direction = following + (size / before) * direction
    return result
