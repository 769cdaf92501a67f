"""The application and the table of its commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Annotated

import typer

from clipaudit import __version__
from clipaudit.errors import ClipAuditError

# Each command and the function below clipaudit.cli that it calls, in the order of --help and docs/commands.md.
COMMANDS = {
    "audit": "audit:audit",
    "embed": "embed:embed",
    "select": "select:select",
    "evaluate": "evaluate:evaluate",
    "report": "report:report",
    "show": "show:show",
    "review": "review:review",
    "apply": "apply:apply",
    "estimate": "estimate:estimate",
    "train": "train:train",
    "predict": "predict:predict",
    "corrupt": "corrupt:corrupt",
    "demo": "demo:demo",
    "import": "import_:import_",
    "doctor": "doctor:doctor",
    "prompts list": "prompts.list:list_sets",
    "prompts show": "prompts.show:show",
    "prompts check": "prompts.check:check",
    "prompts new": "prompts.new:new",
    "prompts generate": "prompts.generate:generate",
}
# What the commands of two words have in common.
GROUPS = {"prompts": "List, check and write prompt sets: text descriptions of the classes."}

app = typer.Typer(
    name="clipaudit",
    invoke_without_command=True,
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
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find the wrong labels in an image data set, offline, with CLIP.

    clipaudit audit photos/ does all of it. New here? clipaudit demo
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


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


def _register() -> None:
    groups = {name: typer.Typer(no_args_is_help=True, help=words) for name, words in GROUPS.items()}
    for name, home in COMMANDS.items():
        module, function = home.split(":")
        group, _, word = name.rpartition(" ")
        command = getattr(import_module(f"clipaudit.cli.{module}"), function)
        groups.get(group, app).command(word)(_interruptible(command))
    for name, commands in groups.items():
        app.add_typer(commands, name=name)


_register()
