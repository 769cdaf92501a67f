"""`clipaudit estimate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.cli.output import Result, printed
from clipaudit.options.shared import WITHIN

if TYPE_CHECKING:
    from clipaudit.certainty.thresholds import Interval
    from clipaudit.reviews.estimate import Estimate

CLASSES_SHOWN = 10


@options.taking([WITHIN])
@printed
def estimate(
    index: Annotated[Path, typer.Argument(help="Clean index with a review, from apply.", show_default=False)],
    *,
    changes: dict[str, Any],
) -> Result:
    """Estimate how many labels are wrong, from a review: clipaudit estimate reviewed.parquet

    Prints the number with its 95 % interval, overall and by class, and the best threshold. Only marks on samples that
    clipaudit review drew speak for all labels.
    """
    from clipaudit.index.clean_index import read_index
    from clipaudit.reviews.estimate import estimate as run

    found, within = run(read_index(index)), changes.get(WITHIN.name, WITHIN.default)
    return Result(show=lambda: _show(found, index, within), document=lambda: {"index": index, **found.to_dict()})


def _show(found: Estimate, index: Path, within: float) -> None:
    from clipaudit.cli.console import print_line, safe, show_warnings

    wrong, marks = found.wrong_labels, found.marks
    print_line(f"[bold]{wrong.estimate:,.0f} of {found.n:,} labels are wrong[/bold] (95 %: {_counts(wrong)})")
    if found.precision:
        missed = f"{1 - found.recall.estimate:.0%} ({1 - found.recall.high:.0%} to {1 - found.recall.low:.0%})"
        print_line(
            f"  Of the {found.n_in_doubt:,} in doubt, {_shares(found.precision)} are wrong; {missed} of all wrong"
            " labels are not in doubt."
        )
    print_line(
        f"  This rests on {marks.drawn:,} marks on drawn samples, {marks.drawn_wrong:,} of them on wrong labels."
    )
    for number, words in (
        (marks.elsewhere, "on other samples speak for themselves only"),
        (marks.unsure, '"cannot tell" count neither as right nor as wrong'),
        (marks.waiting, "are missing on drawn samples; mark all of a queue, or the first ones in its order"),
    ):
        if number:
            print_line(f"  {number:,} more marks {words}.")
    _show_classes(found)
    show_warnings(found.warnings)
    _show_next(found, index, within)
    better = index.with_name("better.parquet")
    command = ("clipaudit", "select", "--from", str(index), "--threshold", "reviewed", "--out", str(better))
    print_line(f"Best threshold for F1: {found.threshold:.4f}, F1 {_shares(found.f1)}")
    print_line(f"  {safe(shlex.join(command))}")


def _show_next(found: Estimate, index: Path, within: float) -> None:
    """Whether to go on: how much more marks would narrow the interval."""
    from clipaudit.cli.console import print_line, safe
    from clipaudit.reviews.estimate import MORE

    goal = within * found.n
    now = f"The interval is +-{found.half_width:,.0f} labels"
    if found.half_width <= goal:
        print_line(f"{now}, within the goal of +-{goal:,.0f} ({within:.1%}): you can stop.")
        return
    print_line(
        f"{now}; {MORE} more marks would narrow it to about +-{found.narrowed:,.0f}. The goal is +-{goal:,.0f}"
        f" ({within:.1%}), after about {found.marks_for(goal):,} more."
    )
    command = ("clipaudit", "review", str(index), "--budget", str(MORE), "--out", "more")
    print_line(f"  {safe(shlex.join(command))}")


def _show_classes(found: Estimate) -> None:
    from rich.table import Table

    from clipaudit.cli.console import print_table, safe

    known = [(name, count) for name, count in found.classes.items() if count]
    if not known:
        return
    known.sort(key=lambda entry: -entry[1].estimate)
    table = Table("given label", "wrong", "95 %", title="Wrong labels by class", title_justify="left")
    for name, count in known[:CLASSES_SHOWN]:
        table.add_row(safe(name), f"{count.estimate:,.0f}", _counts(count))
    print_table(table)


def _counts(found: Interval) -> str:
    return f"{found.low:,.0f} to {found.high:,.0f}"


def _shares(found: Interval) -> str:
    return f"{found.estimate:.0%} ({found.low:.0%} to {found.high:.0%})"
