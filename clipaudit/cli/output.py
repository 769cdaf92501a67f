"""What a command came to, in the form that its caller wants: text for people, one JSON document, or nothing."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any

import typer

from clipaudit import __version__
from clipaudit.errors import ClipAuditError

PANEL = "Output"
_PARAMETERS = {
    "json": typer.Option(
        "--json",
        help="Print one JSON document on standard output, and nothing else there.",
        rich_help_panel=PANEL,
    ),
    "quiet": typer.Option(
        "--quiet", "-q", help="Print warnings and errors only, on standard error.", rich_help_panel=PANEL
    ),
}


@dataclass(frozen=True)
class Result:
    """What a command came to.

    Attributes:
        show: Prints it for people.
        document: The same for programs, by name; docs/automation.md describes it. `warnings` and `errors`, if there are
            any, are lists of sentences.
        fault: Why the exit code is not 0 although there is a result.
    """

    show: Callable[[], None]
    document: Callable[[], Mapping[str, Any]]
    fault: ClipAuditError | None = None


def printed(command: Callable[..., Result]) -> Callable[..., None]:
    """Give a command --json and --quiet, and print what it returns as they say."""

    @wraps(command)
    def run(*words: Any, json: bool = False, quiet: bool = False, **arguments: Any) -> None:
        with _only_errors(progress=not quiet) if json or quiet else nullcontext():
            result = command(*words, **arguments)
            document = plain(result.document()) if json or quiet else {}
        if json:
            _write(command, document)
        elif quiet:
            _show_faults(document)
        else:
            result.show()
        if result.fault:
            raise result.fault

    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [item.replace(kind=item.KEYWORD_ONLY) for item in own]
    for name, how in _PARAMETERS.items():
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=False, annotation=Annotated[bool, how]))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@contextmanager
def _only_errors(*, progress: bool) -> Iterator[None]:
    """Nothing is printed meanwhile but errors and, if wanted, progress; nor do libraries reach standard output."""
    from clipaudit.cli.console import err, out

    before = out.quiet, err.quiet
    out.quiet, err.quiet = True, not progress
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        out.quiet, err.quiet = before


def _write(command: Callable[..., Result], document: Mapping[str, Any]) -> None:
    from json import dumps

    name = command.__module__.removeprefix("clipaudit.cli.").replace(".", " ")
    whole = {"clipaudit": __version__, "command": name, "warnings": [], **document}
    # In ASCII: a terminal, or a pipe of another encoding, gets no character that it would misunderstand.
    typer.echo(dumps(whole, indent=2, allow_nan=False))


def _show_faults(document: Mapping[str, Any]) -> None:
    from clipaudit.cli.console import err, safe

    for kind in ("errors", "warnings"):
        for sentence in document.get(kind, ()):
            err.print(f"{kind.removesuffix('s')} {safe(sentence)}", soft_wrap=True)


def plain(value: Any) -> Any:
    """A value as JSON has it: objects by their fields, paths as texts, and null for what is no finite number."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    # A file's name may hold bytes that are no text; half a character is no JSON.
    return str(value).encode("utf-8", "backslashreplace").decode()
