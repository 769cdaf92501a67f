"""`clipaudit prompts new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipaudit.cli import options
from clipaudit.cli.prompts.sources import Source


def new(
    source: Source,
    out: Annotated[Path, typer.Option(help="Prompt file to write; an existing one is refused.", show_default=False)],
    names: options.Names = None,
    label_column: options.LabelColumn = None,
    path_column: options.PathColumn = None,
) -> None:
    """Write a prompt file with the classes of a source, to fill in: clipaudit prompts new photos/ --out photos.toml"""
    from clipaudit.cli.console import print_line, safe
    from clipaudit.prompts.writing import new_prompts

    written = new_prompts(
        source, out, options.source_options(names, label_column=label_column, path_column=path_column)
    )
    print_line(f"{len(written.classes):,} classes in {safe(out)}. Give each its features, then:")
    print_line(f"clipaudit prompts check {safe(out)} --labels {safe(source)}")
