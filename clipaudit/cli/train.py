"""`clipaudit train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipaudit.cli import options

_MODEL, _METHOD, _DATA = "Model", "Method", "Source"


def train(
    index: Annotated[Path, typer.Option(help="Clean index, from select.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Run folder; the same command goes on with it.")] = Path("run"),
    test: Annotated[
        Path | None,
        typer.Option(
            help="Test images in any form that embed reads. Without them a share of the clean subset is held out.",
            show_default=False,
        ),
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(
            help="Share of the clean subset to hold out; it chooses the best weights.",
            show_default="0.1 without --test, else 0",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(help="True labels, FILE or FILE:COLUMN: counts how often eq. 7 was right.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="cifar, animal10n, red-mini-imagenet, webvision or clothing1m.", show_default="the paper's"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="mixfix; ce (clean subset alone); ce-all (all labels as given); dividemix.",
            show_default="mixfix",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    co_training: Annotated[
        bool,
        typer.Option("--co-training", help="MixFix with two networks that teach each other.", rich_help_panel=_METHOD),
    ] = False,
    relabel_selected: Annotated[
        bool,
        typer.Option("--relabel-selected", help="Let eq. 7 relabel the clean subset, too.", rich_help_panel=_METHOD),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="preact-resnet18; folder or hub id of an image classifier of transformers; timm:NAME.",
            show_default="the recipe's",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option(help="Start from the model's own weights.", show_default="the recipe's", rich_help_panel=_MODEL),
    ] = None,
    width: options.Width = None,
    image_size: options.ImageSize = None,
    device: options.Device = "auto",
    precision: options.TrainPrecision = "auto",
    epochs: options.Epochs = None,
    milestones: options.Milestones = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    momentum: options.Momentum = None,
    weight_decay: options.WeightDecay = None,
    beta: options.Beta = None,
    theta_r: options.ThetaR = None,
    theta_r_prime: options.ThetaRPrime = None,
    balanced: options.Balanced = None,
    policy: options.Policy = None,
    crop_padding: options.CropPadding = None,
    flip: options.Flip = None,
    warm_up: options.WarmUp = None,
    alpha: options.Alpha = None,
    sharpening: options.Sharpening = None,
    lambda_u: options.LambdaU = None,
    ramp_up: options.RampUp = None,
    seed: options.Seed = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Where the index's images lie now, if they were moved.", rich_help_panel=_DATA),
    ] = None,
    names: options.Names = None,
    pixels: Annotated[
        str,
        typer.Option(
            help="Where decoded images are kept: device, disk, or auto: on the device if they fit.",
            rich_help_panel="Work",
        ),
    ] = "auto",
    workers: options.Workers = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write RUN/tensorboard.", rich_help_panel="Work")
    ] = False,
) -> None:
    """Train a classifier from a clean index: clipaudit train --index clean.parquet

    MixFix starts from the clean subset and absorbs or relabels the rest as it learns. The run folder holds the weights,
    a row an epoch and the relabelled data set.
    """
    from clipaudit.calls.train import train as run
    from clipaudit.cli.training_display import TrainDisplay, show_train_summary
    from clipaudit.samples import SourceOptions, read_names
    from clipaudit.training.recipes import recipe as recipe_of

    config = recipe_of(
        recipe,
        method=method,
        co_training=co_training or None,
        relabel_selected=relabel_selected or None,
        model=model,
        pretrained=pretrained,
        width=width,
        image_size=image_size,
        epochs=epochs,
        milestones=options.parse_milestones(milestones),
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        beta=beta,
        theta_r=theta_r,
        theta_r_prime=theta_r_prime,
        balanced=balanced,
        policy=policy,
        crop_padding=crop_padding,
        flip=flip,
        warm_up=warm_up,
        alpha=alpha,
        sharpening=sharpening,
        lambda_u=lambda_u,
        ramp_up=ramp_up,
        val_share=val,
        seed=seed,
    )
    with TrainDisplay() as display:
        summary = run(
            index,
            out=out,
            config=config,
            test=test,
            test_options=SourceOptions(names=read_names(names)) if names else None,
            truth=truth,
            images=images,
            device=device,
            precision=precision,
            pixels=pixels,
            workers=workers,
            tensorboard=tensorboard,
            progress=display.update,
        )
    show_train_summary(summary)
