"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: auto (CUDA if present, else MPS, else CPU), cpu, cuda, cuda:1, mps.",
        rich_help_panel="Model",
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        help="Class names by class index, for labels that are indices: one name a line, or JSON.",
        show_default=False,
        rich_help_panel="Source",
    ),
]
