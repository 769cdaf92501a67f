"""`clipaudit apply`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.options.shared import COPIES, ON_CONFLICT

if TYPE_CHECKING:
    from clipaudit.calls.apply import ReviewSummary
    from clipaudit.index.clean_index import CleanIndex
    from clipaudit.reviews.agreement import Agreement, Disagreement

DISAGREEMENTS_SHOWN = 20


@options.taking([ON_CONFLICT, COPIES])
def apply(
    index: Annotated[
        Path, typer.Argument(help="Clean index, from select, review or an earlier apply.", show_default=False)
    ],
    marks: Annotated[
        list[Path],
        typer.Argument(
            help="Marks that the report or the review page exported, or a filled-in queue.csv: a table with the columns"
            " id, mark (right, relabel, suggested, drop or unsure) and label (the new class, for relabel). Or what"
            " Label Studio (.json) or CVAT (.xml) exported after a review there. Several files, one a reviewer, are"
            " compared.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Clean index to write.")] = Path("reviewed.parquet"),
    *,
    changes: dict[str, Any],
) -> None:
    """Merge the marks of a review: clipaudit apply clean.parquet MARKS.csv --out reviewed.parquet

    A mark overrules every selector. The column reviewed holds the marks, and label_given the labels before the review.
    """
    from clipaudit.calls.apply import apply_marks
    from clipaudit.files import check_output
    from clipaudit.index.clean_index import read_index

    check_output(out, [index, *marks])
    reviewed, summary = apply_marks(read_index(index), marks, **changes)
    reviewed.write(out)
    _show(reviewed, summary, marks, out)


def _show(index: CleanIndex, summary: ReviewSummary, marks: list[Path], out: Path) -> None:
    from clipaudit.cli.console import print_line, safe
    from clipaudit.reviews.survey import has_estimate

    n_marks = summary.right + summary.relabel + summary.drop + summary.unsure
    files = ", ".join(safe(file) for file in marks)
    print_line(f"[bold]{n_marks:,} of {len(index):,} samples reviewed[/bold] in {files}")
    print_line(f"  label right    {summary.right:,}")
    print_line(f"  relabelled     {summary.relabel:,}")
    print_line(f"  dropped        {summary.drop:,}")
    if summary.unsure:
        print_line(f"  cannot tell    {summary.unsure:,}, which settle nothing")
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
    for agreement in summary.agreements:
        _show_agreement(agreement)
    _show_disagreements(summary.disagreements)
    print_line(f"  clean now      {int(index.is_clean.sum()):,}; {int(index.in_doubt.sum()):,} are in doubt")
    print_line(f"Written: {safe(out)}")
    if has_estimate(index):
        print_line(f"Next: clipaudit estimate {safe(out)}")


def _show_agreement(found: Agreement) -> None:
    from clipaudit.cli.console import print_line, safe

    kappa = "not defined" if found.kappa is None else f"{found.kappa:.3f}"
    print_line(
        f"  agreement      {safe(found.first)} and {safe(found.second)} agree on {found.n_same:,} of {found.n_both:,}"
        f" samples; Cohen's kappa of right or wrong is {kappa} ({found.n_judged:,} judged by both)"
    )


def _show_disagreements(found: tuple[Disagreement, ...]) -> None:
    from clipaudit.cli.console import print_line, safe

    for sample in found[:DISAGREEMENTS_SHOWN]:
        said = "; ".join(
            f"{safe(file)}: {mark} {safe(label)}" if label else f"{safe(file)}: {mark}"
            for file, mark, label in sample.said
        )
        print_line(f"  [yellow]disagree[/yellow]       {safe(sample.id)} ({said}): {sample.decided}")
    if len(found) > DISAGREEMENTS_SHOWN:
        print_line(f"  and {len(found) - DISAGREEMENTS_SHOWN:,} more")
