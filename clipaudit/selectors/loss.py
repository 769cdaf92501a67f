"""The loss selector (eq. 6): -log P(y_i|x_i), and the posterior of the low-loss component of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipaudit.selectors.base import Measured, Mixtures

if TYPE_CHECKING:
    from torch import Tensor

    from clipaudit.config import AuditConfig
    from clipaudit.estimates import Estimate


def measure(estimate: Estimate, labels: Tensor, n_classes: int) -> Measured:
    """`loss` (n,) float32, `posterior` and `raw_posterior` (n,) float64; see `split_losses`."""
    from clipaudit.selectors.mixture import split_losses

    losses = -estimate.log_p_label
    split = split_losses(losses, labels, n_classes)
    scores = {
        "loss": losses.cpu().numpy(),
        "posterior": split.posterior.cpu().numpy(),
        "raw_posterior": split.raw_posterior.cpu().numpy(),
    }
    parts: list[Any] = [split.weights, split.means, split.deviations, split.abstained, split.converged]
    return Measured(scores, Mixtures(*(part.cpu().numpy() for part in parts)))


def evidence(config: AuditConfig) -> str:
    """The posterior, as the mixture gives it or monotone in the loss."""
    return "raw_posterior" if config.raw_posterior else "posterior"
