"""`clipaudit audit`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.cli.output import Result, printed
from clipaudit.config import PRESET
from clipaudit.config import preset as configured
from clipaudit.options.shared import COLUMNS, ENCODER, VECTOR_COLUMN, WORKERS

if TYPE_CHECKING:
    from clipaudit.calls.audit import AuditSummary
    from clipaudit.calls.doubts import Doubts

BUDGET = 100
_COLUMNS = [entry for entry in COLUMNS if entry is not VECTOR_COLUMN]
_WORKERS = replace(WORKERS, unset="one a core; with the model on the CPU, one for eight cores")


@options.taking([*ENCODER, *_COLUMNS])
@printed
def audit(
    source: Annotated[
        str,
        typer.Argument(
            help="Labelled images in any form that embed reads: a folder of class folders, for example.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The clean index to write; one that holds a review is refused.")] = Path(
        "clean.parquet"
    ),
    report: Annotated[
        Path | None, typer.Option(help="HTML report to write.", show_default="report.html beside the index")
    ] = None,
    preset: Annotated[str | None, options.declared(PRESET)] = None,
    prompts: Annotated[
        str,
        typer.Option(
            help="Prompt set: the name of a shipped one, a file, auto (the shipped set that knows all classes, else"
            " plain templates) or none (plain templates).",
            rich_help_panel="Source",
        ),
    ] = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the embeddings cache.", show_default=".clipaudit/SOURCE-MODEL-HASH"),
    ] = None,
    names: options.Names = None,
    workers: Annotated[int | None, options.declared(_WORKERS)] = None,
    fail_over: options.FailOver = None,
    *,
    changes: dict[str, Any],
) -> Result:
    """Audit the labels of images: clipaudit audit photos/

    Embeds the images, tells clean labels from noisy ones and writes a report, as embed, select and report do. Rerun an
    interrupted command, and it resumes.
    """
    from clipaudit.calls.audit import audit as run
    from clipaudit.calls.doubts import find_doubts
    from clipaudit.cli.console import ProgressDisplay
    from clipaudit.clip.encoders import EncoderOptions

    limit, config = options.allowed_share(fail_over), configured(preset)
    columns = {entry.name: changes.pop(entry.name, entry.default) for entry in _COLUMNS}
    with ProgressDisplay() as display:
        summary = run(
            source,
            out=out,
            report=report,
            cache=cache,
            encoder=EncoderOptions(**changes),
            options=options.source_options(names, **columns),
            config=config,
            prompts=prompts,
            workers=workers,
            progress=display.update,
        )
    doubts = find_doubts(summary.index, top=0)
    return Result(
        show=lambda: _show(summary, doubts),
        document=lambda: _document(summary, doubts, limit),
        fault=options.too_many(doubts, limit, summary.file),
    )


def _document(summary: AuditSummary, doubts: Doubts, limit: float | None) -> dict[str, Any]:
    from clipaudit.cli import documents

    return {
        **documents.selection(summary.index, summary.file, doubts),
        "n_opposed": summary.n_opposed,
        "embedding": documents.embedding(summary.embedding),
        "report": summary.report,
        "fail_over": limit,
        # Some are about the classes, which both have looked at.
        "warnings": list(dict.fromkeys([*summary.embedding.warnings, *summary.index.metadata.warnings])),
    }


def _show(summary: AuditSummary, doubts: Doubts) -> None:
    from clipaudit.cli.console import print_line, safe, show_embedded, show_index

    # What was decided about the source stands in the index, too.
    show_embedded(summary.embedding, {})
    show_index(summary.index, doubts, summary.file)
    print_line("")
    for sentence in _conclusions(summary, doubts):
        print_line(sentence)
    print_line(f"Report: {safe(summary.report.path)}")


def _conclusions(summary: AuditSummary, doubts: Doubts) -> tuple[str, str, str]:
    """The three sentences that matter: how many are in doubt, how sure that is, what to do next."""
    from clipaudit.cli.console import safe

    counts = doubts.counts
    review = ("clipaudit", "review", str(summary.file), "--budget", str(BUDGET))
    return (
        f"[bold]In doubt:[/bold] {counts.n_in_doubt:,} of {counts.n_readable:,} labels ({doubts.share_in_doubt:.1%}).",
        f"[bold]How sure:[/bold] {summary.n_opposed:,} of these are contradicted by every estimate; how many labels are"
        " wrong is not known before a person has looked.",
        f"[bold]Next:[/bold] look at {BUDGET} labels, about ten minutes, to know it with a 95 % interval:"
        f" {safe(shlex.join(review))}",
    )
