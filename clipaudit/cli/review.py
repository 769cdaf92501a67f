"""`clipaudit review`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.cli.report import Theme
from clipaudit.options.shared import BUDGET, REVIEW_SEED

if TYPE_CHECKING:
    from clipaudit.calls.review import Queue
    from clipaudit.report.review_page import ReviewPage


@options.taking([BUDGET, REVIEW_SEED])
def review(
    index: Annotated[Path, typer.Argument(help="Clean index, from select or apply.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write review.html and queue.csv to.")] = Path("review"),
    show_suggestions: Annotated[
        bool, typer.Option("--show-suggestions", help="Show the suggested label before the mark is set.")
    ] = False,
    theme: Annotated[Theme, typer.Option(help="Colours of the page; auto follows the reader's system.")] = Theme.auto,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, if they were moved.", show_default=False)
    ] = None,
    *,
    changes: dict[str, Any],
) -> None:
    """Draw labels for a person to look at: clipaudit review clean.parquet --budget 100 --out review

    Mark them in the browser, or fill in queue.csv; then clipaudit apply and clipaudit estimate. The chance of each
    sample to be drawn is written into the index, so that its mark counts for the labels like it.
    """
    from clipaudit.calls.review import review as draw
    from clipaudit.cli.console import stages
    from clipaudit.index.clean_index import read_index

    queue = draw(read_index(index), **changes)
    queue.check_outputs(out)
    # First: a mark on a sample whose chance is not known would speak for nothing but itself.
    queue.index.write(index)
    with stages() as progress:
        page = queue.write(out, show_suggestions=show_suggestions, theme=theme.value, images=images, progress=progress)
    _show(queue, page, index, out, changes.get(BUDGET.name, BUDGET.default))


def _show(queue: Queue, page: ReviewPage, index: Path, out: Path, budget: int) -> None:
    from clipaudit.calls.review import QUEUE
    from clipaudit.cli.console import print_line, safe

    print_line(f"[bold]{len(queue):,} samples to review[/bold], drawn from {len(queue.index):,}")
    if len(queue) < budget:
        print_line(f"[yellow]note[/yellow] {budget:,} were asked for, but the others are marked or unreadable")
    if page.n_without_image:
        print_line(
            f"[yellow]note[/yellow] {page.n_without_image:,} of the images could not be read now"
            f" ({safe(page.reason)}). Were they moved? Name their folder with --images."
        )
    print_line(f"Written: {safe(page.path)}, {safe(out / QUEUE)}; {safe(index)} now holds the chance of each sample")
    print_line("Next: mark them in the browser, export the marks (or fill in queue.csv), and apply them:")
    reviewed = index.with_name("reviewed.parquet")
    if reviewed == index or reviewed.exists():
        reviewed = index.with_stem(f"{index.stem}-reviewed")
    words = ("clipaudit", "apply", index, "marks.csv", "--out", reviewed)
    print_line(f"  {safe(shlex.join(map(str, words)))}")
