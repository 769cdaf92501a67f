"""The published recipes as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clipaudit.options import Option
from clipaudit.options.arguments import typed
from clipaudit.options.kinds import Choice
from clipaudit.training.config import AIRBENCH, MUON, ONE_CYCLE, PROBE, TrainConfig

_IMAGENET = {"policy": "imagenet"}
# Changes to TrainConfig. Where the paper and the published commands differ, these are the published commands'.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "cifar": {"theta_r": 0.8, "theta_r_prime": 0.8, "beta": 1.0, "batch_size": 128},
    "animal10n": _IMAGENET
    | {"theta_r": 0.7, "theta_r_prime": 0.95, "beta": 0.5, "model": "timm:vgg19_bn", "pretrained": False}
    | {"image_size": 64},
    "red-mini-imagenet": _IMAGENET | {"theta_r": 0.8, "theta_r_prime": 0.95, "beta": 4.0, "batch_size": 64},
    "webvision": _IMAGENET
    | {"theta_r": 0.7, "theta_r_prime": 1.0, "beta": 0.5, "batch_size": 64, "epochs": 150, "milestones": (80, 120)}
    | {"model": "timm:inception_resnet_v2", "pretrained": False},
    "clothing1m": _IMAGENET | {"model": "microsoft/resnet-50", "pretrained": True},
    # Our own, for small images on a processor: docs/training.md has the reason for each number.
    "fast": {"model": AIRBENCH, "width": 32, "epochs": 20, "batch_size": 256, "label_smoothing": 0.2, "averaging": 0.98}
    | {"optimizer": MUON, "learning_rate": 0.1, "momentum": 0.6, "weight_decay": 0.013, "schedule": ONE_CYCLE}
    | {"policy": "none", "crop_padding": 2, "theta_r": 0.8, "theta_r_prime": 0.8, "beta": 0.001, "look_every": 5},
    # Not published, and not tuned (docs/benchmarks.md).
    PROBE: {"model": PROBE, "epochs": 20, "milestones": (12, 17), "batch_size": 256, "learning_rate": 0.02}
    | {"warm_up": 4, "ramp_up": 4},
}
RECIPE = Option(
    None,
    Choice(dict.fromkeys(RECIPES, "")),
    "Published values for several options, each of which overrides it",
    "Options",
    unset="the paper's for CIFAR; probe with --model probe",
    name="recipe",
)


@typed
def recipe(name: str | None = None, **changes: Any) -> TrainConfig:
    """The configuration of a recipe, or the default one, with changes (None changes nothing).

    A probe has a recipe of its own, which the model's name alone chooses, too.

    Where `epochs` changes and `milestones` do not, the milestones move in proportion. Where `method` changes, the
    numbers that the recipe has for another method are left out.

    Raises:
        UsageError: no such recipe, a value that has no meaning, or an option that belongs to another method.
    """
    taken = RECIPE.take(PROBE if name is None and changes.get("model") == PROBE else name)
    numbers: Mapping[str, Any] = {} if taken is None else RECIPES[taken]
    method = TrainConfig.method if changes.get("method") is None else changes["method"]
    base = TrainConfig.from_dict({**numbers, "method": method})
    config = base.with_changes(**changes)
    if config.schedule == ONE_CYCLE or changes.get("epochs") is None or changes.get("milestones") is not None:
        return config
    return replace(config, milestones=tuple(round(epoch * config.epochs / base.epochs) for epoch in base.milestones))
