"""`clipaudit apply`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clipaudit.calls.review import ReviewSummary
    from clipaudit.index.clean_index import CleanIndex


def apply(
    index: Annotated[Path, typer.Argument(help="Clean index, from select or an earlier apply.", show_default=False)],
    marks: Annotated[
        Path,
        typer.Argument(
            help="Marks that the report exported: a table with the columns id, mark (right, relabel or drop) and label"
            " (the new class, for relabel).",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Clean index to write.")] = Path("reviewed.parquet"),
) -> None:
    """Merge the marks of a review: clipaudit apply clean.parquet MARKS.csv --out reviewed.parquet

    A mark overrules every selector. The column reviewed holds the marks, and label_given the labels before the review.
    """
    from clipaudit.calls.review import apply_marks
    from clipaudit.files import check_output
    from clipaudit.index.clean_index import read_index

    check_output(out, [index, marks])
    reviewed, summary = apply_marks(read_index(index), marks)
    reviewed.write(out)
    _show(reviewed, summary, marks, out)


def _show(index: CleanIndex, summary: ReviewSummary, marks: Path, out: Path) -> None:
    from clipaudit.cli.console import print_line, safe

    n_marks = summary.right + summary.relabel + summary.drop
    print_line(f"[bold]{n_marks:,} of {len(index):,} samples reviewed[/bold] in {safe(marks)}")
    print_line(f"  label right    {summary.right:,}")
    print_line(f"  relabelled     {summary.relabel:,}")
    print_line(f"  dropped        {summary.drop:,}")
    print_line(f"  overruled      {summary.overruled:,} verdicts are other ones now")
    for note in summary.notes:
        print_line(f"  {safe(note)}")
    if summary.again:
        print_line(f"  again          {summary.again:,} were reviewed before; the later word holds")
    if summary.unreadable:
        print_line(
            f"  [yellow]unreadable[/yellow]     {summary.unreadable:,} images cannot be read and stay out of the clean"
            " subset"
        )
    print_line(f"  clean now      {int(index.is_clean.sum()):,}, an estimated noise rate of {index.noise_rate:.1%}")
    print_line(f"Written: {safe(out)}")
