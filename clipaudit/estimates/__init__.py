"""Estimates of P(y|x): zero-shot from class prompts (eq. 3-4), induced from the embeddings and the labels (eq. 8)."""

from __future__ import annotations

from clipaudit.estimates.base import Estimate, Estimator, estimate
from clipaudit.estimates.induced import FoldedLogistic, fit_folded_logistic
from clipaudit.estimates.joint import Joint
from clipaudit.estimates.neighbours import Neighbours
from clipaudit.estimates.transition import Transition, fit_transition
from clipaudit.estimates.zero_shot import ZeroShot

__all__ = [
    "Estimate",
    "Estimator",
    "FoldedLogistic",
    "Joint",
    "Neighbours",
    "Transition",
    "ZeroShot",
    "estimate",
    "fit_folded_logistic",
    "fit_transition",
]
