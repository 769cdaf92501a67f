"""`clipaudit show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipaudit.cli.output import Result, printed

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from clipaudit.calls.doubts import Doubts
    from clipaudit.index.clean_index import CleanIndex

CLASSES_SHOWN = 10
# Of what `select` decided, the rest is in the report.
DECIDED_SHOWN = ("labels", "prompts")


@printed
def show(
    index: Annotated[Path, typer.Argument(help="Clean index, from select or apply.", show_default=False)],
    class_name: Annotated[
        str | None, typer.Option("--class", help="Only samples with this given label.", show_default="all classes")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Number of most doubtful samples to show.")] = 10,
) -> Result:
    """List doubtful labels in the terminal: clipaudit show clean.parquet --class cat --top 20

    Draws thumbnails where the terminal has true colour; prints plain lines into a pipe.
    """
    from clipaudit.calls.doubts import find_doubts
    from clipaudit.cli import documents
    from clipaudit.index.clean_index import read_index

    held = read_index(index)
    doubts = find_doubts(held, class_name=class_name, top=top)
    return Result(
        show=lambda: _show(doubts, held, index),
        document=lambda: {**documents.selection(held, index, doubts), "samples": doubts.samples},
    )


def _show(doubts: Doubts, index: CleanIndex, file: Path) -> None:
    _show_counts(doubts, index, file)
    if doubts.classes and doubts.class_name is None:
        _print(f"Classes most in doubt ({_of(CLASSES_SHOWN, len(doubts.classes))})", _classes_table(doubts))
    if doubts.samples:
        shown = _of(len(doubts.samples), doubts.counts.n_in_doubt)
        _print(f"Most doubtful samples ({shown})", _samples_table(doubts, index))


def _show_counts(doubts: Doubts, index: CleanIndex, file: Path) -> None:
    from clipaudit.cli.console import (
        print_line,
        safe,
        show_copies,
        show_decided,
        show_off_topic,
        show_warnings,
        show_wrong,
    )

    counts, name = doubts.counts, doubts.class_name
    what = f"{len(index.class_names):,} classes" if name is None else f"labelled {safe(name)}"
    print_line(f"[bold]{counts.n:,} samples[/bold], {what}, from {safe(index.metadata['source'])}")
    share = f", {doubts.share_in_doubt:.1%}" if counts.n_readable else ""
    if name is None:
        show_copies(index)
    print_line(f"  clean          {counts.n_clean:,}")
    print_line(f"  in doubt       {counts.n_in_doubt:,}{share}")
    if name is None:
        show_wrong(index, file)
    show_off_topic(counts)
    if counts.n_unreadable:
        print_line(f"  unreadable     {counts.n_unreadable:,}")
    if counts.n_reviewed:
        print_line(f"  reviewed       {counts.n_reviewed:,}, settled and not listed below")
    if name is None:
        show_decided({word: text for word, text in index.metadata.decided.items() if word in DECIDED_SHOWN})
        show_warnings(index.metadata.warnings)


def _classes_table(doubts: Doubts) -> Table:
    table = _table()
    table.add_column("class", overflow="fold")
    for name in ("in doubt", "of", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in doubts.classes[:CLASSES_SHOWN]:
        share = f"{entry.n_in_doubt / entry.n:.1%}"
        table.add_row(_cell(entry.name), f"{entry.n_in_doubt:,}", f"{entry.n:,}", share)
    return table


def _samples_table(doubts: Doubts, index: CleanIndex) -> Table:
    """One row a sample; where a person reads, path and reason share a cell, with a picture beside them if possible."""
    from clipaudit.cli.console import out, person_reads
    from clipaudit.cli.pictures import EDGE, can_draw, picture
    from clipaudit.samples.reader import ImageReader

    table = _table(show_lines=True)
    reader = ImageReader(index.metadata) if can_draw(out) else None
    if reader:
        table.add_column("picture", max_width=EDGE)
    for name in ("given", "suggested"):
        table.add_column(name, overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for name in ("sample",) if person_reads() else ("path", "reason"):
        table.add_column(name, overflow="fold")
    for doubt in doubts.samples:
        path, reason = _cell(doubt.path), _cell(doubt.reason)
        texts = [path.append("\n").append(reason)] if person_reads() else [path, reason]
        suggested = _cell(f"{doubt.suggested or 'none of the classes'} {doubt.probability:.2f}")
        cells = [_cell(doubt.given), suggested, _cell(f"{doubt.score:.3f}"), *texts]
        table.add_row(*([picture(reader, doubt.id)] if reader else []), *cells)
    return table


def _of(shown: int, n: int) -> str:
    return f"{shown:,} of {n:,}" if shown < n else f"{n:,}"


def _table(*, show_lines: bool = False) -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.ROUNDED, show_lines=show_lines)


def _cell(text: str) -> Text:
    """Foreign text: no markup, no control characters, one line."""
    from rich.text import Text

    from clipaudit.text import printable

    return Text(printable(text))


def _print(title: str, table: Table) -> None:
    from clipaudit.cli.console import print_line, print_table

    print_line(f"[bold]{title}[/bold]")
    print_table(table)
