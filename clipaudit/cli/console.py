"""What people see: progress on a terminal, plain lines in a pipe, summaries as tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from clipaudit.text import printable

if TYPE_CHECKING:
    from clipaudit.auditing.metrics import Metrics
    from clipaudit.calls.doubts import Counts, Doubts
    from clipaudit.calls.embed import EmbedSummary
    from clipaudit.calls.evaluate import Evaluation
    from clipaudit.clip.pipeline import EmbedProgress
    from clipaudit.index.clean_index import CleanIndex

SECONDS_BETWEEN_LINES = 10
ROWS_SHOWN = 5
GROUPS_SHOWN, COPIES_SHOWN = 3, 4

# In a pipe nothing is folded: a line for each row, however long its path.
PIPE_WIDTH = 1_000_000


def person_reads() -> bool:
    """Standard output is a terminal, not a file or a program."""
    return sys.stdout.isatty()


# A path may contain ":cat:", which is no emoji.
out = Console(highlight=False, emoji=False, width=None if person_reads() else PIPE_WIDTH)
err = Console(highlight=False, emoji=False, stderr=True)


def safe(text: object) -> str:
    """Foreign text for rich: one line, no markup, no control characters."""
    return escape(printable(str(text)))


class ProgressDisplay:
    """Progress of a long command: a bar on a terminal, a line now and then in a pipe; both on standard error."""

    def __enter__(self) -> ProgressDisplay:
        self._began = self._last_line = time.monotonic()
        self._stage = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._bar.start()
        self._task = self._bar.add_task("starting", total=None, detail="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, progress: EmbedProgress) -> None:
        """Show where the run stands."""
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._began, self._last_line = progress.stage, now, now
        rate = progress.done / max(now - self._began, 1e-9)
        detail = f"{rate:,.0f} images/s" if progress.done else ""
        if progress.unreadable:
            detail += f", {progress.unreadable:,} unreadable"
        self._bar.update(
            self._task, description=progress.stage, completed=progress.done, total=progress.total, detail=detail
        )
        if not err.is_terminal and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            total = f" of {progress.total:,}" if progress.total else ""
            tell(f"{progress.stage}: {progress.done:,}{total}, {detail}")


def tell(line: str) -> None:
    """A line of progress for who reads no terminal."""
    if not err.quiet:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """A function to call with the name of each stage; shows a spinner on a terminal, nothing in a pipe."""
    if not err.is_terminal:
        yield lambda stage: None
        return
    with err.status("starting") as status:
        yield lambda stage: status.update(safe(stage))


def show_embed_summary(summary: EmbedSummary) -> None:
    """What `embed` decided and did."""
    show_embedded(summary, summary.decided)
    if summary.complete:
        print_line(f"Next: clipaudit select {safe(summary.cache)} --out clean.parquet")
    else:
        print_line("Other shards have to run before the cache is complete.")


def show_embedded(summary: EmbedSummary, decided: Mapping[str, str]) -> None:
    """The same, without what comes next, and with as much of its decisions as the caller wants."""
    rate = f", {summary.n_embedded / summary.seconds:,.0f} images/s" if summary.seconds and summary.n_embedded else ""
    kept = summary.n_samples - summary.n_embedded - summary.n_unreadable
    print_line(
        f"[bold]{summary.n_samples:,} {'vectors' if summary.is_own else 'images'}[/bold] in {safe(summary.cache)}"
    )
    show_decided(decided)
    if summary.is_own:
        print_line(f"  taken over now {summary.n_embedded:,}")
    else:
        print_line(f"  embedded now   {summary.n_embedded:,} on {summary.device} in {summary.precision}{rate}")
    if summary.n_embedded and not summary.is_own:
        share = summary.seconds_waiting / max(summary.seconds, 1e-9)
        print_line(f"  waiting        {share:.1%} of the time for decoded images (more --workers lower it)")
    if kept > 0:
        print_line(f"  kept           {kept:,} from before")
    if summary.n_damaged_parts:
        print_line(f"  repaired       {summary.n_damaged_parts:,} damaged part(s)")
    if summary.n_unreadable:
        print_line(f"  [yellow]unreadable     {summary.n_unreadable:,}[/yellow], kept in every output with the reason:")
        for sample_id, reason in summary.unreadable:
            print_line(f"    {safe(sample_id)}: {safe(reason)}")
        if summary.n_unreadable > len(summary.unreadable):
            print_line(f"    and {summary.n_unreadable - len(summary.unreadable):,} more")
    for note in summary.notes:
        print_line(f"  [yellow]note[/yellow]           {safe(note)}")
    for warning in summary.warnings:
        print_line(f"  [yellow]warning[/yellow]        {safe(warning)}")


def show_index(index: CleanIndex, doubts: Doubts, file: Path) -> None:
    """What `select` decided and found."""
    counts = doubts.counts
    print_line(f"[bold]{counts.n:,} labels audited[/bold], {len(index.class_names):,} classes")
    show_copies(index)
    print_line(f"  clean          {counts.n_clean:,}")
    print_line(f"  in doubt       {counts.n_in_doubt:,}, {doubts.share_in_doubt:.1%} of those that could be read")
    show_wrong(index, file)
    show_off_topic(counts)
    if counts.n_unreadable:
        print_line(f"  unreadable     {counts.n_unreadable:,}")
    if counts.n_reviewed:
        print_line(f"  reviewed       {counts.n_reviewed:,} by a person, whose word is kept")
    # An index of an earlier clipaudit does not say what was decided.
    show_decided({"source": index.metadata.source, **index.metadata.decided})
    if doubts.classes:
        table = Table("class", "in doubt", "of", "share", title="Classes most in doubt", title_justify="left")
        for entry in doubts.classes[:ROWS_SHOWN]:
            table.add_row(
                safe(entry.name), f"{entry.n_in_doubt:,}", f"{entry.n:,}", f"{entry.n_in_doubt / entry.n:.1%}"
            )
        print_table(table)
    if doubts.confusions:
        table = Table("given", "suggested", "samples", title="Most frequent confusions", title_justify="left")
        for given, suggested, count in doubts.confusions[:ROWS_SHOWN]:
            table.add_row(safe(given), safe(suggested), f"{count:,}")
        print_table(table)
    show_warnings(index.metadata.warnings)


def show_wrong(index: CleanIndex, file: Path) -> None:
    """How many labels are wrong, or how to find out."""
    from clipaudit.reviews.estimate import estimate
    from clipaudit.reviews.survey import has_estimate

    if not has_estimate(index):
        print_line(f"  wrong          not calibrated; review 100 labels: clipaudit review {safe(file)} --budget 100")
        return
    wrong = estimate(index).wrong_labels
    print_line(f"  wrong          {wrong.estimate:,.0f} (95 %: {wrong.low:,.0f} to {wrong.high:,.0f}), by the review")


def show_copies(index: CleanIndex) -> None:
    """The labels that are wrong for certain, and the images that are there more than once."""
    from clipaudit.index.copies import copies_in

    copies = copies_in(index.table)
    if copies is None or not copies.n_samples:
        return
    if copies.n_conflicts:
        print_line(
            f"  [bold red]contradicting[/bold red]  {copies.in_conflict.sum():,} images are copies of one another under"
            f" different labels ({copies.n_conflicts:,} group(s)): in each, a label is wrong"
        )
        for rows in copies.conflicts(GROUPS_SHOWN, COPIES_SHOWN):
            members = index.table.select(["id", "label"]).take(rows).to_pylist()
            more = ", ..." if copies.size_of(int(rows[0])) > len(rows) else ""
            print_line("    " + ", ".join(f"{safe(row['id'])} ({safe(row['label'])})" for row in members) + more)
        if copies.n_conflicts > GROUPS_SHOWN:
            print_line(f"    and {copies.n_conflicts - GROUPS_SHOWN:,} more groups")
    print_line(f"  copies         {copies.n_samples:,} images in {copies.n_groups:,} group(s)")


def show_off_topic(counts: Counts) -> None:
    """How many images show none of the classes."""
    if counts.n_off_topic:
        print_line(
            f"  off topic      {counts.n_off_topic:,} seem to show none of the classes, so that none is suggested"
        )


def show_decided(decided: Mapping[str, str]) -> None:
    """What a command decided, a line for each thing that it is about."""
    for name, what in decided.items():
        print_line(f"  {safe(name):<14} {safe(what)}")


def show_warnings(warnings: Iterable[str]) -> None:
    """What a person should know before trusting a result."""
    for warning in warnings:
        print_line(f"[yellow]warning[/yellow] {safe(warning)}")


def show_evaluation(evaluation: Evaluation) -> None:
    """How an audit compares with the truth."""
    overall = evaluation.overall
    print_line(
        f"[bold]{overall.n:,} samples[/bold], {_percent(overall.noise_rate)} wrong labels"
        f" (truth matched by {evaluation.matched_by})"
    )
    table = _metrics_table("selector")
    _add_metrics(table, "[bold]combined[/bold]", overall)
    for name, metrics in evaluation.selectors.items():
        _add_metrics(table, name, metrics)
    print_table(table)
    table = _metrics_table("given label")
    for name, metrics in evaluation.classes.items():
        _add_metrics(table, safe(name), metrics)
    print_table(table)
    print_line(f"suggested label right for {_percent(evaluation.suggestion_accuracy)} of the wrong labels")
    if evaluation.n_unreadable:
        print_line(f"{evaluation.n_unreadable:,} unreadable samples not judged")
    show_warnings(evaluation.warnings)
    for note in evaluation.notes:
        print_line(f"  {safe(note)}")


def _metrics_table(first: str) -> Table:
    table = Table(Column(first, no_wrap=True), "AUROC")
    for kind in ("clean", "noisy"):
        for name in ("precision", "recall", "F1"):
            table.add_column(f"{kind}\n{name}", justify="right")
    return table


def _add_metrics(table: Table, name: str, metrics: Metrics) -> None:
    ratios = (
        metrics.clean_precision,
        metrics.clean_recall,
        metrics.clean_f1,
        metrics.noisy_precision,
        metrics.noisy_recall,
        metrics.noisy_f1,
    )
    auroc = "-" if metrics.auroc is None else f"{metrics.auroc:.4f}"
    table.add_row(name, auroc, *(_percent(ratio) for ratio in ratios))


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"


def print_line(text: str) -> None:
    """A line of the summary; never folded, so that paths can be copied and lines be searched."""
    out.print(text, soft_wrap=True)


def print_table(table: Table) -> None:
    """A table of the summary: with a frame for people, plain columns for programs."""
    if not person_reads():
        table.box, table.show_lines, table.pad_edge = None, False, False
    out.print(table)
