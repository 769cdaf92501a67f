"""The application and its commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated

import typer

from clipaudit import __version__
from clipaudit.cli.apply import apply
from clipaudit.cli.corrupt import corrupt
from clipaudit.cli.demo import demo
from clipaudit.cli.embed import embed
from clipaudit.cli.evaluate import evaluate
from clipaudit.cli.import_ import import_
from clipaudit.cli.predict import predict
from clipaudit.cli.prompts import prompts_app
from clipaudit.cli.report import report
from clipaudit.cli.select import select
from clipaudit.cli.show import show
from clipaudit.cli.train import train
from clipaudit.errors import ClipAuditError

app = typer.Typer(
    name="clipaudit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clipaudit {__version__}")
        raise typer.Exit


@app.callback()
def clipaudit(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find the wrong labels in an image data set, offline, with CLIP.

    clipaudit embed IMAGES, then clipaudit select --out clean.parquet. New here? clipaudit demo
    """


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(**arguments: object) -> None:
        try:
            command(**arguments)
        except KeyboardInterrupt:
            # Said here, before typer ends the process without a word.
            raise ClipAuditError(
                "interrupted. What was finished is kept; the same command goes on from there."
            ) from None

    return run


for _command in (embed, select, evaluate, report, show, apply, train, predict, corrupt, demo):
    app.command()(_interruptible(_command))
app.command("import")(_interruptible(import_))
for _registered in prompts_app.registered_commands:
    if _registered.callback:
        _registered.callback = _interruptible(_registered.callback)
app.add_typer(prompts_app, name="prompts")
