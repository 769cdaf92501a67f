"""`clipaudit evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipaudit.cli import options
from clipaudit.cli.output import Result, printed


@printed
def evaluate(
    index: Annotated[Path, typer.Argument(help="Clean index, from select.", show_default=False)],
    truth: Annotated[
        str,
        typer.Option(
            help="True labels: FILE or FILE:COLUMN (CSV, TSV, JSONL, Parquet), matched by path or row by row.",
            show_default=False,
        ),
    ],
    names: options.Names = None,
) -> Result:
    """Score an audit against true labels: clipaudit evaluate clean.parquet --truth truth.csv

    Prints AUROC, precision, recall and F1 of the verdicts, of each selector alone and of each class.
    """
    from clipaudit.calls.evaluate import evaluate as run
    from clipaudit.cli.console import show_evaluation
    from clipaudit.index.clean_index import read_index
    from clipaudit.samples import read_names

    evaluation = run(read_index(index), truth, names=read_names(names) if names else None)
    return Result(show=lambda: show_evaluation(evaluation), document=evaluation.to_dict)
