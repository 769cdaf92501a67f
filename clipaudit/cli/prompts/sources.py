"""What the commands about prompts share: a source for its class names, and options that need another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipaudit.errors import UsageError

if TYPE_CHECKING:
    from clipaudit.samples import SourceOptions

Source = Annotated[
    Path, typer.Argument(help="Labelled images, as embed takes them, for their class names.", show_default=False)
]
LabelColumn = Annotated[
    str | None,
    typer.Option(help="Column with the labels.", show_default="recognised", rich_help_panel="Source"),
]
PathColumn = Annotated[
    str | None,
    typer.Option(help="Manifest column with the paths.", show_default="recognised", rich_help_panel="Source"),
]


def refuse_without_effect(needed: str, given: dict[str, bool]) -> None:
    """UsageError where one of these options was given without what it is for."""
    if useless := [option for option, is_given in given.items() if is_given]:
        verb = "is" if len(useless) == 1 else "are"
        raise UsageError(f"{' and '.join(useless)} {verb} only for {needed}.")


def source_options(names: Path | None, label_column: str | None, path_column: str | None) -> SourceOptions:
    """How to read a source, by what the command line says."""
    from clipaudit.samples import SourceOptions, read_names

    return SourceOptions(path_column, label_column, names=read_names(names) if names else None)
