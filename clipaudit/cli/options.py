"""Options on the command line: parameters of typer from entries, and what was given as changes to a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipaudit.errors import ClipAuditError
from clipaudit.options import RESEARCHERS, Option
from clipaudit.options.kinds import Switch
from clipaudit.options.shared import (
    DATA_PARALLEL,
    DEVICE,
    FAIL_OVER,
    LABEL_COLUMN,
    PATH_COLUMN,
    TRAIN_PRECISION,
    WORKERS,
)

if TYPE_CHECKING:
    from clipaudit.calls.doubts import Doubts
    from clipaudit.samples import SourceOptions

Command = Callable[..., None]
# The parameter of a command that receives what was given.
CHANGES = "changes"


def _escaped(text: str) -> str:
    """Text whose brackets are no markup."""
    return text.replace("[", r"\[")


def declared(entry: Option, variants: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
    """An entry as typer takes it; `variants` are presets or recipes that may have other defaults."""
    return typer.Option(
        entry.spelling,
        help=f"{_escaped(entry.sentence)} [dim]{_escaped(f'[default: {entry.defaults(variants or {})}]')}[/dim]",
        show_default=False,
        metavar=None if isinstance(entry.kind, Switch) else entry.kind.metavar,
        rich_help_panel=entry.panel,
    )


Device = Annotated[str, declared(DEVICE)]
DeviceIfGiven = Annotated[str | None, declared(DEVICE)]
DataParallelIfGiven = Annotated[int | None, declared(DATA_PARALLEL)]
TrainPrecision = Annotated[str, declared(TRAIN_PRECISION)]
Workers = Annotated[int | None, declared(WORKERS)]
LabelColumn = Annotated[str | None, declared(LABEL_COLUMN)]
PathColumn = Annotated[str | None, declared(PATH_COLUMN)]
FailOver = Annotated[str | None, declared(FAIL_OVER)]
Names = Annotated[
    Path | None,
    typer.Option(
        help="File of class names in the order of their indices, for labels that are indices: one name per line, or"
        " JSON.",
        show_default=False,
        rich_help_panel="Source",
    ),
]


def source_options(names: Path | None, **columns: Any) -> SourceOptions:
    """How to read a source: the file of --names, and the columns by the fields of SourceOptions."""
    from clipaudit.samples import SourceOptions, read_names

    return SourceOptions(**columns, names=read_names(names) if names else None)


def allowed_share(fail_over: str | None) -> float | None:
    """What --fail-over allows, in [0, 1]; None where it was not given."""
    taken: float | None = FAIL_OVER.take(None if fail_over is None else FAIL_OVER.kind.parse(fail_over))
    return taken


def too_many(doubts: Doubts, allowed: float | None, index: Path) -> ClipAuditError | None:
    """The fault that more labels are in doubt than --fail-over allows."""
    if allowed is None or doubts.share_in_doubt <= allowed:
        return None
    counts = doubts.counts
    return ClipAuditError(
        f"{counts.n_in_doubt:,} of {counts.n_readable:,} labels are in doubt, {doubts.share_in_doubt:.2%}: more than"
        f" --fail-over {allowed:.4g} allows. Look at them: clipaudit show {index}"
    )


def taking(
    entries: Iterable[Option], variants: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[Command], Command]:
    """Give a command a parameter for each entry.

    Those that were given reach the command as its argument `changes`, by name and as their kinds parse them.

    Args:
        entries: The options.
        variants: Named presets or recipes, for the defaults that the help shows.
    """
    listed = list(entries)

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(*words: Any, **arguments: Any) -> None:
            given = [(entry, arguments.pop(entry.name, None)) for entry in listed]
            changes = {
                entry.name: entry.kind.parse(value) if isinstance(value, str) else value
                for entry, value in given
                if value is not None
            }
            command(*words, **arguments, **{CHANGES: changes})

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [_parameter(entry, variants) for entry in listed]
        parameters += [item.replace(kind=item.KEYWORD_ONLY) for item in own if item.name != CHANGES]
        parameters.sort(key=_place)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(entry: Option, variants: Mapping[str, Mapping[str, Any]] | None) -> inspect.Parameter:
    value: Any = bool | None if isinstance(entry.kind, Switch) else str | None
    annotation = Annotated[value, declared(entry, variants)]
    return inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _place(parameter: inspect.Parameter) -> tuple[bool, bool]:
    """Sorts parameters: the help shows panels in the order of their first ones, and arguments as they come."""
    said = getattr(parameter.annotation, "__metadata__", ())
    panel = said[0].rich_help_panel if said else None
    return panel == RESEARCHERS, panel is not None
