"""Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024), for filters before a norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

# An odd polynomial that, applied a few times, brings the singular values of a matrix of norm 1 near 1.
_POLYNOMIAL, _TIMES = (3.4445, -4.7750, 2.0315), 3
# Learning rates beside that of the filters, whose steps all have the same length: of the head, and of batch
# normalisation's shifts, which airbench lets learn far faster than everything else.
_HEAD, _SHIFTS = 40.0, 640.0


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov's momentum; for filters each step is made orthogonal, so that all directions learn alike.

    Filters keep one norm, which batch normalisation behind them undoes anyway; so they need no weight decay.

    Args:
        network: Whose weights are trained.
        lr: Learning rate of the filters.
        momentum: Of all weights.
        weight_decay: Of the other weights.
    """

    def __init__(self, network: nn.Module, *, lr: float, momentum: float, weight_decay: float) -> None:
        trained = [weights for weights in network.parameters() if weights.requires_grad]
        groups = [
            {"params": [weights for weights in trained if weights.ndim == 4], "times": 1.0, "weight_decay": 0.0},
            {"params": [weights for weights in trained if weights.ndim == 2], "times": _HEAD},
            {"params": [weights for weights in trained if weights.ndim == 1], "times": _SHIFTS},
        ]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all weights; `closure` must be None."""
        for group in self.param_groups:
            for weights in group["params"]:
                # Weight decay is per unit of the filters' learning rate.
                gradient = weights.grad.add(weights, alpha=group["weight_decay"] / group["times"])
                state = self.state[weights]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weights)
                momentum = state["momentum_buffer"]
                momentum.mul_(group["momentum"]).add_(gradient)
                direction = gradient.add(momentum, alpha=group["momentum"])
                if weights.ndim == 4:
                    weights.mul_(len(weights) ** 0.5 / weights.norm())
                    direction = orthogonal(direction.flatten(1)).view_as(weights)
                weights.add_(direction, alpha=-group["lr"] * group["times"])


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """(m, n): about the nearest matrix whose rows (or columns, where they are fewer) are orthogonal, of norm 1.

    By a Newton-Schulz iteration, whose products a GPU is fast at.
    """
    a, b, c = _POLYNOMIAL
    is_tall = len(matrix) > matrix.shape[1]
    wide = matrix.T if is_tall else matrix
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_TIMES):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    result: torch.Tensor = wide.T if is_tall else wide
    return result
