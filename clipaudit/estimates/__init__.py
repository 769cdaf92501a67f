"""Estimates of P(y|x): zero-shot from class prompts (eq. 3-4), induced from the embeddings and the labels (eq. 8)."""

from __future__ import annotations

from clipaudit.estimates.base import Estimate, Estimator, estimate
from clipaudit.estimates.problem import Problem
from clipaudit.estimates.transition import Transition, fit_transition
from clipaudit.estimates.vectors import InMemory, Vectors, placed
from clipaudit.estimates.zero_shot import ZeroShot

__all__ = [
    "Estimate",
    "Estimator",
    "InMemory",
    "Problem",
    "Transition",
    "Vectors",
    "ZeroShot",
    "estimate",
    "fit_transition",
    "placed",
]
