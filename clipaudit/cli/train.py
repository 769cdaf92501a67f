"""`clipaudit train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.cli.output import Result, printed
from clipaudit.options.shared import PIXELS
from clipaudit.training.config import train_options
from clipaudit.training.recipes import RECIPE, RECIPES
from clipaudit.training.recipes import recipe as recipe_of


@options.taking(train_options().values(), RECIPES)
@printed
def train(
    index: Annotated[Path, typer.Option(help="Clean index, from select.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Run folder; the same command resumes it.")] = Path("run"),
    test: Annotated[
        Path | None,
        typer.Option(
            help="Test images in any form that embed reads. Without them a share of the clean subset is held out.",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(help="True labels, FILE or FILE:COLUMN: counts how often eq. 7 was right.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        options.declared(RECIPE),
    ] = None,
    device: options.Device = "auto",
    precision: options.TrainPrecision = "auto",
    images: Annotated[
        Path | None,
        typer.Option(help="Where the index's images lie now, if they were moved.", rich_help_panel="Source"),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="With --model probe: cache that the index was made from, by default the only one below .clipaudit of"
            " the index's source and model.",
            show_default=False,
            rich_help_panel="Source",
        ),
    ] = None,
    names: options.Names = None,
    pixels: Annotated[str, options.declared(PIXELS)] = "auto",
    workers: options.Workers = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write RUN/tensorboard.", rich_help_panel="Work")
    ] = False,
    *,
    changes: dict[str, Any],
) -> Result:
    """Train a classifier from a clean index: clipaudit train --index clean.parquet

    MixFix starts from the clean subset and absorbs or relabels the rest as it learns. The run folder holds the weights,
    a row an epoch and the relabelled data set.
    """
    from clipaudit.calls.train import train as run
    from clipaudit.cli.training_display import TrainDisplay, show_train_summary
    from clipaudit.samples import SourceOptions, read_names

    config = recipe_of(recipe, **changes)
    with TrainDisplay() as display:
        summary = run(
            index,
            out=out,
            config=config,
            test=test,
            test_options=SourceOptions(names=read_names(names)) if names else None,
            truth=truth,
            images=images,
            embeddings=embeddings,
            device=device,
            precision=precision,
            pixels=pixels,
            workers=workers,
            tensorboard=tensorboard,
            progress=display.update,
        )
    return Result(
        show=lambda: show_train_summary(summary),
        document=lambda: {**vars(summary), "labels": summary.folder / "labels.parquet"},
    )
