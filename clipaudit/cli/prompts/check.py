"""`clipaudit prompts check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipaudit.cli import options
from clipaudit.cli.output import Result, printed
from clipaudit.cli.prompts.sources import refuse_without_effect
from clipaudit.errors import PromptError

if TYPE_CHECKING:
    from clipaudit.prompts.check import PromptReport


@printed
def check(
    sets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|NAME", help="Prompt files, or names of shipped sets.", show_default="all shipped sets"
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labelled images, whose classes are compared with those of the set.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Dual encoder (folder or hub id): counts the tokens exactly, and finds classes whose prompts it hardly"
            " tells apart.",
            show_default="none; the number of tokens is estimated from above",
            rich_help_panel="Model",
        ),
    ] = None,
    device: options.Device = "auto",
    names: options.Names = None,
    label_column: options.LabelColumn = None,
    path_column: options.PathColumn = None,
) -> Result:
    """Check prompt sets: clipaudit prompts check animals.toml --labels photos/

    The exit code is 1 where a set has errors, and 0 where it has only warnings.
    """
    from clipaudit.clip.encoders import EncoderOptions, load_encoder
    from clipaudit.prompts.check import check_prompts
    from clipaudit.prompts.sets import shipped_prompt_sets
    from clipaudit.prompts.writing import source_classes

    if labels is None:
        given = {"--names": names, "--label-column": label_column, "--path-column": path_column}
        refuse_without_effect("--labels", {option: value is not None for option, value in given.items()})
    if model is None:
        refuse_without_effect("--model", {"--device": device != "auto"})
    known = (
        source_classes(labels, options.source_options(names, label_column=label_column, path_column=path_column))
        if labels
        else None
    )
    encoder = load_encoder(EncoderOptions(model=model, device=device)) if model else None
    reports = [check_prompts(name, labels=known, encoder=encoder) for name in sets or shipped_prompt_sets()]
    faulty = [report.name for report in reports if report.errors]
    return Result(
        show=lambda: _show_reports(reports),
        document=lambda: {
            "sets": reports,
            "errors": [f"{report.name}: {message}" for report in reports for message in report.errors],
            "warnings": [f"{report.name}: {message}" for report in reports for message in report.warnings],
        },
        fault=PromptError(f"correct the errors of {', '.join(faulty)}, then check again.") if faulty else None,
    )


def _show_reports(reports: Sequence[PromptReport]) -> None:
    for report in reports:
        _show_report(report)


def _show_report(report: PromptReport) -> None:
    from clipaudit.cli.console import print_line, safe

    n_errors, n_warnings = len(report.errors), len(report.warnings)
    verdict = f"{n_errors} error(s), {n_warnings} warning(s)" if n_errors or n_warnings else "clean"
    tokens = f", at most {report.most_tokens} tokens a prompt" if report.most_tokens else ""
    sizes = f"{report.n_classes:,} classes, {report.n_prompts:,} prompts{tokens}: " if report.n_classes else ""
    print_line(f"[bold]{safe(report.name)}[/bold]: {sizes}{verdict}")
    colours = {"error": "red", "warning": "yellow", "note": "dim"}
    for finding in report.findings:
        colour = colours[finding.severity]
        print_line(f"  [{colour}]{finding.severity}[/{colour}] {safe(finding.message)}")
