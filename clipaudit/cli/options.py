"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipaudit.errors import UsageError

_DEVICE = "Where to compute: auto (CUDA if present, else MPS, else CPU), cpu, cuda, cuda:1, mps."
Device = Annotated[str, typer.Option(help=_DEVICE, rich_help_panel="Model")]
DeviceIfGiven = Annotated[str | None, typer.Option(help=_DEVICE, show_default="auto", rich_help_panel="Model")]
Names = Annotated[
    Path | None,
    typer.Option(
        help="Class names by class index, for labels that are indices: one name a line, or JSON.",
        show_default=False,
        rich_help_panel="Source",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Threads that decode and read images (1 to 256).", show_default="one a core", rich_help_panel="Work"
    ),
]
TrainPrecision = Annotated[
    str,
    typer.Option(
        help="Arithmetic: float32, bfloat16 (mixed), or auto: mixed on a GPU that has it.", rich_help_panel="Model"
    ),
]
Width = Annotated[
    int | None,
    typer.Option(help="Channels of the PreAct ResNet-18's first stage.", show_default="64", rich_help_panel="Model"),
]
ImageSize = Annotated[
    int | None,
    typer.Option(help="Edge of the images in pixels.", show_default="the model's", rich_help_panel="Model"),
]


def parse_milestones(text: str | None) -> tuple[int, ...] | None:
    """Epoch numbers from `200,250`; none of them from an empty text."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    # Nine digits are more than any epoch has, and few enough for every reader of numbers.
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        raise UsageError(f"--milestones {text!r:.40} is not a list of epochs, for example 200,250.")
    return tuple(map(int, words))


def _number(text: str, panel: str = "Recipe") -> typer.models.OptionInfo:
    """An option that overrides one number of a recipe."""
    option: typer.models.OptionInfo = typer.Option(help=text, show_default="the recipe's", rich_help_panel=panel)
    return option


Epochs = Annotated[int | None, _number("Epochs; the milestones move along.")]
Milestones = Annotated[str | None, _number("Epochs at which the learning rate falls to a tenth: 200,250.")]
BatchSize = Annotated[int | None, _number("Samples a step.")]
LearningRate = Annotated[float | None, _number("Of SGD, at the start.")]
Momentum = Annotated[float | None, _number("Of SGD.")]
WeightDecay = Annotated[float | None, _number("Of SGD.")]
Beta = Annotated[float | None, _number("b of mixup's lambda ~ Beta(b, b).")]
ThetaR = Annotated[float | None, _number("Absorb above this probability (eq. 7).")]
ThetaRPrime = Annotated[float | None, _number("Relabel above this probability (eq. 7); 1 never does.")]
Balanced = Annotated[bool | None, _number("Draw every class equally often.")]
Policy = Annotated[str | None, _number("AutoAugment policy: cifar10, imagenet, svhn or none.")]
CropPadding = Annotated[int | None, _number("Pixels that a random crop may shift an image.")]
Flip = Annotated[bool | None, _number("Mirror half of the images.")]
Seed = Annotated[int | None, _number("Of all randomness.")]
WarmUp = Annotated[int | None, _number("Epochs on the labelled set alone.", "DivideMix")]
Alpha = Annotated[float | None, _number("b of its mixup.", "DivideMix")]
Sharpening = Annotated[float | None, _number("Temperature of the guessed labels.", "DivideMix")]
LambdaU = Annotated[float | None, _number("Weight of the unlabelled loss.", "DivideMix")]
RampUp = Annotated[int | None, _number("Epochs over which that weight grows.", "DivideMix")]
