"""The training methods: a row each, and the options that it has of its own. Nothing heavy is imported before one runs.

A method is a class in a file of its own (`base.Method` says what it must do) and a row here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from clipaudit.errors import UsageError
from clipaudit.options import option
from clipaudit.options.kinds import Range, Switch
from clipaudit.training.config import EPOCHS, TrainConfig

if TYPE_CHECKING:
    from clipaudit.training.methods.base import Method, Subsets

_MIXUP = Range(0.001, 1000.0)


@dataclass(frozen=True)
class MixFixConfig(TrainConfig):
    """MixFix's own options."""

    co_training: bool = option(False, Switch(), "Train two networks that teach each other (Table 5)", panel="Training")
    beta: float = option(1.0, _MIXUP, "Parameter b of mixup's coefficient lambda ~ Beta(b, b)")
    look_every: int = option(1, Range(1, 100_000, whole=True, unit="epochs"), "Time between two decisions by eq. 7")

    @property
    def networks(self) -> int:
        """Two, with co-training."""
        return 2 if self.co_training else 1

    @property
    def title(self) -> str:
        """The method in words."""
        return "mixfix with co-training" if self.co_training else "mixfix"


@dataclass(frozen=True)
class DivideMixConfig(TrainConfig):
    """DivideMix's own options."""

    warm_up: int = option(10, EPOCHS, "Epochs of training on the labelled set alone")
    alpha: float = option(4.0, _MIXUP, "Parameter b of mixup's coefficient lambda ~ Beta(b, b)")
    sharpening: float = option(0.5, Range(0.1, 10.0), "Temperature T of the guessed labels")
    lambda_u: float = option(25.0, Range(0.0, 1e6), "Weight of the unlabelled loss")
    ramp_up: int = option(16, EPOCHS, "Epochs after the warm-up in which that weight grows to its full value")

    @property
    def networks(self) -> int:
        """Two, which guess labels together."""
        return 2

    def refuse_idle(self, given: Collection[str]) -> None:
        """UsageError for label smoothing, too: what DivideMix learns are guesses, which are soft already."""
        if "label_smoothing" in given:
            raise UsageError("label_smoothing has no effect with the method dividemix. Leave out one of them.")
        super().refuse_idle(given)


@dataclass(frozen=True)
class MethodRow:
    """A method.

    Attributes:
        title: One line for the help.
        home: Its module here and its class.
        config: The class with its options.
    """

    title: str
    home: str
    config: type[TrainConfig] = TrainConfig


METHODS = {
    "mixfix": MethodRow("clean subset, and what eq. 7 absorbs and relabels", "mixfix:MixFix", MixFixConfig),
    "ce": MethodRow("cross-entropy on the clean subset", "cross_entropy:CrossEntropy"),
    "ce-all": MethodRow("cross-entropy on all labels as given", "cross_entropy:CrossEntropyOnAll"),
    "dividemix": MethodRow("clean subset as its labelled set", "dividemix:DivideMix", DivideMixConfig),
}


def method_of(subsets: Subsets, config: TrainConfig) -> Method:
    """The method that a configuration names."""
    module, _, name = METHODS[config.method].home.partition(":")
    method: Method = getattr(import_module(f"{__name__}.{module}"), name)(subsets, config)
    return method
