"""Every number of a training run that all methods share; what one method alone has stands beside its row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from clipaudit.errors import UsageError
from clipaudit.options import Option, Options, option
from clipaudit.options.kinds import SEED, SHARE, Choice, Numbers, Range, Switch, Text

PREACT, AIRBENCH, PROBE = "preact-resnet18", "airbench", "probe"
EPOCHS = Range(0, 100_000, whole=True)
WIDTH = Range(1, 512, whole=True, unit="channels")
IMAGE_SIZE = Range(8, 4096, whole=True, unit="pixels")
HIDDEN = Range(0, 65_536, whole=True, unit="units")
_POLICIES = {"cifar10": "", "imagenet": "", "svhn": "", "none": ""}
ONE_CYCLE, MUON = "one-cycle", "muon"
_OPTIMIZERS = {"sgd": "", MUON: f"only for {AIRBENCH}"}
_SCHEDULES = {"milestones": "a tenth after each milestone", ONE_CYCLE: "up in a line and down in a line"}
# One cycle: its peak, as a share of the epochs, and the shares of the learning rate that it starts and ends with.
_PEAK, _START, _END = 0.23, 0.2, 0.07
_MODEL, _TRAINING = "Model", "Training"
# Options that only one kind of model has a use for.
_OF_IMAGES = ("pretrained", "image_size", "width", "flip", "policy", "crop_padding")
_OF_PROBE = ("probe_hidden",)


def _methods() -> Mapping[str, Any]:
    # Imported late: what a method has of its own is a subclass of what all have.
    from clipaudit.training.methods import METHODS

    return METHODS


def _meanings() -> Mapping[str, str]:
    return {name: row.title for name, row in _methods().items()}


class _ByMethod(type):
    """`TrainConfig(method="dividemix")` has DivideMix's options, and so has a copy with that method."""

    def __call__(cls, method: str = "mixfix", **values: Any) -> Any:
        kind, others = config_class(method), foreign(method)
        # A copy brings all fields along: those that say nothing are no mistake.
        _refuse([name for name in values if name in others and values[name] != others[name].default], method)
        own = {name: value for name, value in values.items() if name not in others}
        return type.__call__(kind, method=method, **own)


@dataclass(frozen=True)
class TrainConfig(Options, metaclass=_ByMethod):
    """How to train. The defaults are the paper's for CIFAR, with Table 4's thresholds.

    `method` decides which further options there are: `MixFixConfig` and `DivideMixConfig` in
    `clipaudit.training.methods`. Options of another method are refused.
    """

    method: str = option("mixfix", Choice(_meanings), "Training method", panel=_TRAINING)
    model: str = option(
        PREACT,
        Text("the name of a model"),
        f"Classifier: {PREACT}, {AIRBENCH}, folder or hub id of an image classifier of transformers, timm:NAME, or"
        f" {PROBE} (a head on the embeddings)",
        panel=_MODEL,
    )
    probe_hidden: int = option(
        0, HIDDEN, "Width of the probe's hidden layer", panel=_MODEL, note=f"0 is a linear probe; only for {PROBE}"
    )
    pretrained: bool = option(True, Switch(), "Start from the model's own weights where it has some", panel=_MODEL)
    image_size: int | None = option(None, IMAGE_SIZE, "Edge length of the images", panel=_MODEL, unset="the model's")
    epochs: int = option(
        300,
        Range(1, 100_000, whole=True),
        "Number of epochs",
        panel=_TRAINING,
        note="with another number the milestones move in proportion",
    )
    batch_size: int = option(128, Range(1, 65_536, whole=True), "Samples in a step", panel=_TRAINING)
    learning_rate: float = option(
        0.02,
        Range(1e-9, 1000.0),
        "Learning rate",
        panel=_TRAINING,
        note="at the start, or at the peak of one cycle",
    )
    flip: bool = option(True, Switch(), "Mirror half of the images", panel=_TRAINING, note="not for digits or letters")
    val_share: float | None = option(
        None,
        Range(0.0, 0.99),
        "Share of the clean subset to hold out",
        panel=_TRAINING,
        note="it chooses the best weights",
        flag="--val",
        unset="0.1 without --test, else 0",
    )
    seed: int = option(0, SEED, "Random seed", panel=_TRAINING)
    schedule: str = option("milestones", Choice(_SCHEDULES), "Learning rate over the epochs")
    width: int = option(64, WIDTH, f"Width of the first stage of {PREACT} or {AIRBENCH}")
    # Beyond a hundred, the learning rate is zero.
    milestones: tuple[int, ...] = option(
        (200, 250),
        Numbers(EPOCHS, most=100, example=(200, 250)),
        "Epochs after which the learning rate falls to a tenth",
    )
    optimizer: str = option("sgd", Choice(_OPTIMIZERS), "Optimizer")
    momentum: float = option(0.9, SHARE, "Momentum of the optimizer")
    weight_decay: float = option(
        5e-4, Range(0.0, 10.0), "Weight decay, on all parameters", note=f"with {MUON} on all but the filters"
    )
    label_smoothing: float = option(0.0, SHARE, "Share of each label that cross-entropy spreads over all classes")
    averaging: float = option(
        0.0,
        Range(0.0, 0.999999),
        "Decay in a step of the moving average of the weights, which is what predicts",
        note="0 averages nothing",
    )
    theta_r: float = option(0.7, SHARE, "Probability above which eq. 7 absorbs a sample with its own label")
    theta_r_prime: float = option(
        0.8, SHARE, "Probability above which eq. 7 relabels a sample", note="at least theta_r; 1 never relabels"
    )
    relabel_selected: bool = option(
        False, Switch(), "Let eq. 7 relabel the clean subset, too, as the published code does"
    )
    off_topic: bool = option(
        False, Switch(), "Let images that show none of the classes be absorbed and relabelled like others"
    )
    balanced: bool = option(True, Switch(), "Draw every class equally often, by the current labels")
    policy: str = option("cifar10", Choice(_POLICIES), "AutoAugment policy")
    crop_padding: int | None = option(
        None,
        Range(0, 4096, whole=True, unit="pixels"),
        "Largest shift of an image by a random crop",
        unset="an eighth of the edge",
    )

    def __post_init__(self) -> None:
        """Raises UsageError for a value that has no meaning, naming its field and range."""
        super().__post_init__()
        if self.theta_r > self.theta_r_prime:
            raise UsageError(
                f"theta_r ({self.theta_r}) must not exceed theta_r' ({self.theta_r_prime}):"
                " changing a label needs no less certainty than believing it."
            )
        if self.optimizer == MUON and self.model != AIRBENCH:
            # It keeps the norm of filters, which makes no difference only where batch normalisation follows each layer.
            raise UsageError(f"the optimizer {MUON} is for the model {AIRBENCH}, not for {self.model}. Choose sgd.")

    @property
    def networks(self) -> int:
        """1, or 2 that teach each other."""
        return 1

    @property
    def title(self) -> str:
        """The method in words."""
        return self.method

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`; options of other methods are left out. UsageError where a value has no meaning."""
        names = config_class(content.get("method", TrainConfig.method)).entries()
        return TrainConfig(**{name: value for name, value in content.items() if name in names})

    def refuse_idle(self, given: Collection[str]) -> None:
        """UsageError where one of these fields belongs to another method or kind of model, or to none."""
        _refuse([name for name in given if name in foreign(self.method)], self.method)
        idle, owner = (_OF_IMAGES, "models of images") if self.model == PROBE else (_OF_PROBE, f"the model {PROBE}")
        for name in given:
            if name in idle:
                raise UsageError(f"{name} belongs to {owner}, not to {self.model}. Leave out one of them.")
        if self.schedule == ONE_CYCLE and "milestones" in given:
            raise UsageError(f"milestones has no effect with the schedule {ONE_CYCLE}. Leave out one of them.")
        super().refuse_idle(given)

    def learning_rate_in(self, epoch: float) -> float:
        """The learning rate after so many epochs, a fraction of one included."""
        if self.schedule == ONE_CYCLE:
            done = epoch / self.epochs
            rising = _START + (1 - _START) * done / _PEAK
            falling = _END + (1 - _END) * (1 - done) / (1 - _PEAK)
            return self.learning_rate * min(rising, falling)
        return float(self.learning_rate * 0.1 ** sum(milestone <= epoch for milestone in self.milestones))


def config_class(method: Any) -> type[TrainConfig]:
    """The class with a method's options; UsageError for a method that there is none of."""
    kind: type[TrainConfig] = _methods()[TrainConfig.entries()["method"].take(method)].config
    return kind


def foreign(method: str) -> dict[str, Option]:
    """The options that other methods have and this one has not."""
    own = config_class(method).entries()
    return {name: entry for name, entry in train_options().items() if name not in own}


def train_options() -> dict[str, Option]:
    """The options of all methods; those that not all have say so."""
    shared, every = TrainConfig.entries(), [row.config.entries() for row in _methods().values()]
    own = {name: entry for entries in every for name, entry in entries.items() if name not in shared}
    return shared | {name: replace(entry, scope=" and ".join(_owners(name))) for name, entry in own.items()}


def _owners(name: str) -> list[str]:
    return [method for method, row in _methods().items() if name in row.config.entries()]


def _refuse(misplaced: Collection[str], method: str) -> None:
    for name in misplaced:
        raise UsageError(f"{name} belongs to {' and '.join(_owners(name))}, not to {method}. Leave out one of them.")
