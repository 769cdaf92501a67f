"""The methods, one file each; what they share is in `base` and in the trainer."""

from __future__ import annotations

from clipaudit.training.methods.base import Batch, Epoch, Look, Method, Subsets
from clipaudit.training.methods.co_training import CoTraining
from clipaudit.training.methods.cross_entropy import CrossEntropy
from clipaudit.training.methods.dividemix import DivideMix
from clipaudit.training.methods.mixfix import MixFix
from clipaudit.training.recipes import TrainConfig

__all__ = ["Batch", "Epoch", "Look", "Method", "Subsets", "method_of"]


def method_of(subsets: Subsets, config: TrainConfig) -> Method:
    """The method that a configuration names."""
    if config.method == "mixfix":
        return CoTraining(subsets, config) if config.co_training else MixFix(subsets, config)
    return DivideMix(subsets, config) if config.method == "dividemix" else CrossEntropy(subsets, config)
