"""`clipaudit evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipaudit.cli import options


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
    json: Annotated[
        Path | None, typer.Option(help="JSON file to write all numbers to; - is standard output.", show_default=False)
    ] = None,
) -> None:
    """Score an audit against true labels: clipaudit evaluate clean.parquet --truth truth.csv

    Prints AUROC, precision, recall and F1 of the verdicts, of each selector alone and of each class.
    """
    import json as json_module

    from clipaudit.calls.evaluate import evaluate as run
    from clipaudit.cli.console import show_evaluation
    from clipaudit.files import check_output, write_atomically
    from clipaudit.index.clean_index import read_index
    from clipaudit.samples import read_names

    if json and json != Path("-"):
        check_output(json, [index, truth, names])
    evaluation = run(read_index(index), truth, names=read_names(names) if names else None)
    if json == Path("-"):
        # In ASCII: a terminal, or a pipe of another encoding, gets no character that it would misunderstand.
        typer.echo(json_module.dumps(evaluation.to_dict(), indent=2))
        return
    if json:
        content = json_module.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n"
        write_atomically(json, content.encode())
    show_evaluation(evaluation)
