"""The consistency selector (eq. 5): how close the given label comes to the most probable class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipaudit.selectors.base import Measured

if TYPE_CHECKING:
    from torch import Tensor

    from clipaudit.config import AuditConfig
    from clipaudit.estimates import Estimate


def measure(estimate: Estimate, labels: Tensor, n_classes: int) -> Measured:
    """`consistency` (n,) float64; see `consistency`."""
    log_p_label, log_p_max = estimate.log_p_label.cpu().numpy(), estimate.log_p_max.cpu().numpy()
    return Measured({"consistency": consistency(log_p_label, log_p_max)})


def evidence(config: AuditConfig) -> str:
    """The consistency itself."""
    return "consistency"


def consistency(log_p_label: NDArray[np.float32], log_p_max: NDArray[np.float32]) -> NDArray[np.float64]:
    """c_i = P(y_i|x_i) / max_k P(k|x_i), eq. 5; clean if c_i >= theta_consistency.

    Where the label is among the most probable classes both logarithms are the same number, so that c_i is exactly 1.

    Args:
        log_p_label: (n,) log P(y_i | x_i).
        log_p_max: (n,) max_k log P(k | x_i).

    Returns:
        (n,) float64 in [0, 1].
    """
    return np.exp(log_p_label.astype(np.float64) - log_p_max.astype(np.float64))
