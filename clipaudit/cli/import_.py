"""`clipaudit import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    name: Annotated[
        str,
        typer.Argument(
            help="Data set: cifar10, cifar100, animal10n, webvision, clothing1m or red-mini-imagenet.",
            show_default=False,
        ),
    ],
    path: Annotated[Path, typer.Argument(help="Folder that the data set was unpacked into.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")] = Path("manifest.parquet"),
    split: Annotated[
        str | None,
        typer.Option(
            help="Only this split: train, test or val; clothing1m also has clean-train, and red-mini-imagenet has"
            " red_noise_nl_0.2 and so on instead of train.",
            show_default="all",
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(help="Number of classes to keep, from the first one (WebVision-50: 50).", show_default="all"),
    ] = None,
) -> None:
    """Turn a downloaded data set into a source: clipaudit import animal10n ANIMAL-10N --split train --out a.parquet

    Writes a Parquet file with one row per image, which embed reads.
    """
    from clipaudit.calls.import_ import import_dataset
    from clipaudit.cli.console import print_line, safe

    counts = import_dataset(name, path, out, split=split, classes=classes)
    for part, count in counts.items():
        print_line(f"  {safe(part)}: {count:,} images")
    print_line(f"Written: {safe(out)}. Next: clipaudit embed {safe(out)}")
