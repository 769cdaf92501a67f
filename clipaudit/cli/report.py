"""`clipaudit report`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clipaudit.report import ReportSummary


class Theme(str, Enum):
    """Colours of the page."""

    light = "light"
    dark = "dark"
    auto = "auto"


def report(
    index: Annotated[Path, typer.Argument(help="Clean index, from select.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write.", show_default="report.html beside the index")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            help="True labels: FILE or FILE:COLUMN; adds accuracy metrics and a list of the audit's mistakes.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Number of most doubtful samples to show.", min=0)] = 200,
    theme: Annotated[Theme, typer.Option(help="Colours of the page; auto follows the reader's system.")] = Theme.auto,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, if they were moved.", show_default=False)
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Static figure to write, for papers: .png, .pdf or .svg; the page is written, too, only where --out is"
            " given.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write an audit as one HTML page to review and mark: clipaudit report clean.parquet

    The page holds thumbnails, loads nothing else, and can be mailed.
    """
    from clipaudit.cli.console import print_line, safe, stages
    from clipaudit.files import check_output
    from clipaudit.index.clean_index import read_index

    page = out or (None if figure else index.with_name("report.html"))
    if page:
        check_output(page, [index, truth, figure])
    audited = read_index(index)
    if figure:
        from clipaudit.report.figure import write_figure

        write_figure(audited, figure, truth=truth)
        print_line(f"Written: {safe(figure)}")
    if page:
        from clipaudit.report import write_report

        with stages() as progress:
            summary = write_report(
                audited, page, truth=truth, top=top, theme=theme.value, images=images, progress=progress
            )
        _show(summary, index)


def _show(summary: ReportSummary, index: Path) -> None:
    """Where the page is, and what to do with it."""
    import shlex

    from clipaudit.cli.console import print_line, safe

    size = summary.n_bytes / 1e6
    print_line(
        f"[bold]{safe(summary.path)}[/bold]  {size:,.1f} MB, {summary.n_shown:,} of {summary.n_samples:,} images;"
        f" {summary.n_in_doubt:,} labels in doubt"
    )
    if summary.n_without_image:
        print_line(
            f"[yellow]note[/yellow] {summary.n_without_image:,} of these images could not be read now"
            f" ({safe(summary.reason)}). Were they moved? Name their folder with --images."
        )
    print_line("Next: open it in a browser, mark what you see, export the marks, and merge them:")
    words = ("clipaudit", "apply", index, "marks.csv", "--out", index.with_stem(f"{index.stem}-reviewed"))
    print_line(f"  {safe(shlex.join(map(str, words)))}")
