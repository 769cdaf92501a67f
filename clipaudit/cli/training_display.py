"""Training as people see it: a live table on a terminal, one line an epoch in a pipe."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from clipaudit.cli.console import err, print_line, safe, tell

if TYPE_CHECKING:
    from clipaudit.calls.train import TrainProgress, TrainSummary

# Epochs that the live table shows; all of them are in metrics.jsonl.
EPOCHS_SHOWN = 10
# Heading, key of a row of metrics.jsonl, format.
COLUMNS = (
    ("epoch", "epoch", "d"),
    ("rate", "learning_rate", ".4g"),
    ("loss", "loss", ".4f"),
    ("held out", "val_accuracy", ".2%"),
    ("test", "test_accuracy", ".2%"),
    ("absorbed", "absorbed", ",d"),
    ("relabelled", "relabelled", ",d"),
    ("dropped", "dropped", ",d"),
)
HEADINGS = (*(heading for heading, *_ in COLUMNS), "images/s", "left")


class TrainDisplay:
    """Progress of `train`, on standard error."""

    def __enter__(self) -> TrainDisplay:
        self._rows: list[tuple[str, ...]] = []
        self._began = self._first = time.monotonic()
        self._stage, self._rate, self._epochs_here = "", 0.0, 0
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), console=err)
        self._task = self._bar.add_task("starting", total=None)
        self._live = Live(console=err, refresh_per_second=4) if err.is_terminal else None
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, progress: TrainProgress) -> None:
        """Show where the run stands."""
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._began, self._first = progress.stage, now, now
        if progress.row is not None:
            self._end_epoch(progress, now)
        elif progress.done:
            self._rate = progress.done / max(now - self._began, 1e-9)
        if self._live:
            number = min(progress.epoch + 1, progress.epochs)
            words = (
                f"{progress.stage} epoch {number} of {progress.epochs}" if self._stage == "training" else self._stage
            )
            words += f", {self._rate:,.0f} images/s" if progress.done else ""
            self._bar.update(self._task, description=words, completed=progress.done, total=progress.total or None)
            self._live.update(Group(self._table(), self._bar))

    def _end_epoch(self, progress: TrainProgress, now: float) -> None:
        row: Mapping[str, Any] = progress.row or {}
        cells = tuple("" if row.get(key) is None else format(row[key], form) for _, key, form in COLUMNS)
        # A row of an earlier call, shown again, took no time.
        if progress.done:
            self._epochs_here += 1
            left = (now - self._first) / self._epochs_here * (progress.epochs - progress.epoch)
            cells += (f"{self._rate:,.0f}", _duration(left))
        else:
            self._first = now
            cells += ("", "")
        self._began = now
        self._rows.append(cells)
        if not self._live:
            if len(self._rows) == 1:
                tell(_line(HEADINGS))
            tell(_line(cells))

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0))
        # A column that no epoch fills (no test set, a method without eq. 7) leaves its place to the others.
        filled = [number for number in range(len(HEADINGS)) if any(cells[number] for cells in self._rows)]
        for number in filled:
            table.add_column(HEADINGS[number], justify="right", no_wrap=True)
        for cells in self._rows[-EPOCHS_SHOWN:]:
            table.add_row(*(cells[number] for number in filled))
        return table


def show_train_summary(summary: TrainSummary) -> None:
    """What `train` came to."""
    last, best = summary.history[-1], summary.history[summary.best_epoch - 1]
    went_on = f", {len(summary.history) - summary.n_done:,} of them before" if summary.n_done < last["epoch"] else ""
    print_line(
        f"[bold]{last['epoch']:,} epochs[/bold] on {summary.device} in {summary.precision}{went_on},"
        f" in {safe(summary.folder)}"
    )
    for key, words in (("test_accuracy", "test set"), ("val_accuracy", "held out")):
        if last.get(key) is not None:
            print_line(f"  {words:<14} {last[key]:.2%} last, {best[key]:.2%} best weights (epoch {summary.best_epoch})")
    if "absorbed" in last:
        for name in ("absorbed", "relabelled", "dropped"):
            right = last.get(f"{name}_right")
            known = f", {right / last[name]:.1%} of them rightly" if right is not None and last[name] else ""
            print_line(f"  {name:<14} {last[name]:,}{known}")
    for note in summary.notes:
        print_line(f"  [yellow]note[/yellow]           {safe(note)}")
    print_line(f"Relabelled data set: {safe(summary.folder / 'labels.parquet')}")
    print_line(f"Next: clipaudit predict {safe(summary.folder)} IMAGES")


def _line(cells: tuple[str, ...]) -> str:
    return " ".join(f"{cell:>10}" for cell in cells)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:d}:{minutes:02d}:{seconds:02d}"
