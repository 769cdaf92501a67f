"""Every number of a training run, and the published recipes as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from clipaudit.errors import UsageError
from clipaudit.ranges import SEED, SHARE, Range

METHODS = ("mixfix", "ce", "ce-all", "dividemix")
POLICIES = ("cifar10", "imagenet", "svhn", "none")
PREACT = "preact-resnet18"
# Beyond a hundred, the learning rate is zero.
MILESTONES = 100
_EPOCHS = Range(0, 100_000, whole=True)
_BETA = Range(0.001, 1000.0)
# What a number may be, for options and for what a run folder says; beyond it, memory would end before any result.
RANGES: Mapping[str, Range] = {
    "width": Range(1, 512, whole=True),
    "image_size": Range(8, 4096, whole=True),
    "epochs": Range(1, 100_000, whole=True),
    "batch_size": Range(1, 65_536, whole=True),
    "learning_rate": Range(1e-9, 1000.0),
    "momentum": SHARE,
    "weight_decay": Range(0.0, 10.0),
    "beta": _BETA,
    "theta_r": SHARE,
    "theta_r_prime": SHARE,
    "crop_padding": Range(0, 4096, whole=True),
    "warm_up": _EPOCHS,
    "alpha": _BETA,
    "sharpening": Range(0.1, 10.0),
    "lambda_u": Range(0.0, 1e6),
    "ramp_up": _EPOCHS,
    "val_share": Range(0.0, 0.99),
    "seed": SEED,
}
# Fields that follow the model or the call where they are None.
_OPTIONAL = frozenset({"image_size", "crop_padding", "val_share"})
_SWITCHES = ("co_training", "pretrained", "relabel_selected", "balanced", "flip")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are the paper's for CIFAR, with Table 4's thresholds.

    Attributes:
        method: "mixfix"; "ce", cross-entropy on the clean subset (CLIPCleaner + CE); "ce-all", cross-entropy on
            everything (the baseline); "dividemix", with the clean subset as its labelled set.
        co_training: MixFix with two networks that look at X_n for each other (Table 5).
        model: "preact-resnet18", a folder or hub id for transformers' AutoModelForImageClassification, or "timm:NAME".
        pretrained: Start from the model's weights where it comes with some.
        width: Channels of the first stage of the PreAct ResNet-18.
        image_size: Edge in pixels; None follows the model.
        epochs: Each has N / batch_size steps, N being all samples that could take part.
        milestones: Epochs after which the learning rate is multiplied by 0.1.
        batch_size: Samples a step.
        learning_rate: Of SGD, at the start.
        momentum: Of SGD.
        weight_decay: Of SGD, on all parameters.
        beta: b of the mixup coefficient lambda ~ Beta(b, b).
        theta_r: Threshold to absorb (eq. 7).
        theta_r_prime: Threshold to relabel (eq. 7), theta_r' >= theta_r; 1 never relabels.
        relabel_selected: Let eq. 7 relabel the clean subset, too, as the published code does.
        balanced: Draw every class equally often, by the current labels.
        policy: AutoAugment policy, one of POLICIES.
        crop_padding: Pixels that a random crop may shift an image; None takes an eighth of the edge.
        flip: Mirror half of the images.
        warm_up: DivideMix: epochs on the labelled set alone.
        alpha: DivideMix: b of its mixup.
        sharpening: DivideMix: temperature T of the guessed labels.
        lambda_u: DivideMix: weight of the unlabelled loss.
        ramp_up: DivideMix: epochs after the warm-up over which that weight grows to its full value.
        val_share: Share of the clean subset that is held out; None takes 0.1 without a test set, else 0.
        seed: All randomness is derived from (seed, epoch, network).
    """

    method: str = "mixfix"
    co_training: bool = False
    model: str = PREACT
    pretrained: bool = True
    width: int = 64
    image_size: int | None = None
    epochs: int = 300
    milestones: tuple[int, ...] = (200, 250)
    batch_size: int = 128
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    beta: float = 1.0
    theta_r: float = 0.7
    theta_r_prime: float = 0.8
    relabel_selected: bool = False
    balanced: bool = True
    policy: str = "cifar10"
    crop_padding: int | None = None
    flip: bool = True
    warm_up: int = 10
    alpha: float = 4.0
    sharpening: float = 0.5
    lambda_u: float = 25.0
    ramp_up: int = 16
    val_share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError for a value that has no meaning, naming its field and range."""
        for name, choices in (("method", METHODS), ("policy", POLICIES)):
            if getattr(self, name) not in choices:
                raise UsageError(f"unknown {name} {getattr(self, name)!r:.40}. Choose from: {', '.join(choices)}.")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} must be true or false, not {getattr(self, name)!r:.40}.")
        if not isinstance(self.model, str) or not self.model or not self.model.isprintable():
            raise UsageError(f"model must be the name of a model, not {self.model!r:.40}.")
        for name, numbers in RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                object.__setattr__(self, name, numbers.take(name, value))
        object.__setattr__(self, "milestones", _milestones(self.milestones))
        if self.co_training and self.method != "mixfix":
            raise UsageError(f"co-training belongs to mixfix, not to {self.method}.")
        if self.theta_r > self.theta_r_prime:
            raise UsageError(
                f"theta_r ({self.theta_r}) must not exceed theta_r' ({self.theta_r_prime}):"
                " changing a label needs no less certainty than believing it."
            )

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON has them."""
        return asdict(self) | {"milestones": list(self.milestones)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`; UsageError where a value has no meaning."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known})

    def learning_rate_in(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        return float(self.learning_rate * 0.1 ** sum(milestone <= epoch for milestone in self.milestones))


def _milestones(epochs: Any) -> tuple[int, ...]:
    if not isinstance(epochs, Sequence) or isinstance(epochs, str) or len(epochs) > MILESTONES:
        raise UsageError(f"milestones must be at most {MILESTONES} epochs, for example (200, 250), not {epochs!r:.40}.")
    taken = [_EPOCHS.take("each of the milestones", epoch) for epoch in epochs]
    if taken != sorted(taken):
        raise UsageError(f"milestones must ascend, and {taken} does not.")
    return tuple(taken)


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
}


def recipe(name: str | None = None, **changes: Any) -> TrainConfig:
    """The configuration of a published recipe, or the default one, with changes (None changes nothing).

    Where `epochs` changes and `milestones` do not, the milestones move in proportion.

    Raises:
        UsageError: no such recipe, or a value that has no meaning.
    """
    if name is not None and name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}. Choose from: {', '.join(RECIPES)}.")
    base = TrainConfig(**RECIPES[name]) if name else TrainConfig()
    given = {field: value for field, value in changes.items() if value is not None}
    if unknown := given.keys() - {field.name for field in fields(TrainConfig)}:
        raise UsageError(f"a recipe has no {min(unknown)!r}.")
    if "epochs" in given and "milestones" not in given:
        RANGES["epochs"].take("epochs", given["epochs"])
        given["milestones"] = tuple(round(epoch * given["epochs"] / base.epochs) for epoch in base.milestones)
    return replace(base, **given)
