"""What the commands about prompts share: a source of class names, and options that need another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipaudit.errors import UsageError

Source = Annotated[
    Path,
    typer.Argument(help="Labelled images in any form that embed reads; their classes are used.", show_default=False),
]


def refuse_without_effect(needed: str, given: dict[str, bool]) -> None:
    """UsageError where one of these options was given without what it is for."""
    if useless := [option for option, is_given in given.items() if is_given]:
        verb = "is" if len(useless) == 1 else "are"
        raise UsageError(f"{' and '.join(useless)} {verb} only for {needed}.")
