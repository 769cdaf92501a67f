"""What a selector module gives: `measure`, its scores of every sample, and `evidence`, the one its threshold is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.vocabulary import SelectorTerm

if TYPE_CHECKING:
    from torch import Tensor

    from clipaudit.config import AuditConfig
    from clipaudit.estimates import Estimate


@dataclass(frozen=True)
class Mixtures:
    """The per-class mixtures over one estimate's losses, for the report. NaN where a class was not split.

    Attributes:
        weights, means, deviations: (K, 2) float64, low-loss component first; means and deviations in units of the loss.
        abstained: (K,) bool.
        converged: (K,) bool; true where a class was not split.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    abstained: NDArray[np.bool_]
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """What a selector computes of n samples by one estimate.

    Attributes:
        scores: (n,) arrays by the names of the selector's columns.
        mixtures: What it fitted, where it fits mixtures.
    """

    scores: Mapping[str, NDArray[Any]]
    mixtures: Mixtures | None = None


def measure(selector: SelectorTerm, estimate: Estimate, labels: Tensor, n_classes: int) -> Measured:
    """Apply a selector to an estimate of n samples.

    Args:
        selector: Which one.
        estimate: Log-probabilities of n samples.
        labels: (n,) int64 in [0, n_classes), on the same device.
        n_classes: K.
    """
    measured: Measured = import_module(selector.home).measure(estimate, labels, n_classes)
    return measured


def evidence(selector: SelectorTerm, config: AuditConfig) -> str:
    """The selector's score, one of its columns, that the threshold is put on."""
    name: str = import_module(selector.home).evidence(config)
    return name
