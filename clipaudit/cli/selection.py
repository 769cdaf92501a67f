"""What `select` came to, as text and as a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipaudit.calls.doubts import Doubts
    from clipaudit.calls.leaks import Leak
    from clipaudit.certainty.thresholds import Interval
    from clipaudit.index.clean_index import CleanIndex


@dataclass(frozen=True)
class Chosen:
    """A threshold that a review chose, what it should reach where that was asked for, and what to know about it."""

    threshold: float
    precision: Interval | None = None
    recall: Interval | None = None
    note: str = ""


@dataclass(frozen=True)
class Leaks:
    """Images that other caches hold, too, and the file that lists them."""

    file: Path
    found: Sequence[Leak]
    against: Sequence[Path]

    @property
    def counts(self) -> dict[str, int]:
        """How many there are, and of which kinds."""
        from clipaudit.index.check import EXACT

        n, n_exact = len(self.found), sum(leak.kind == EXACT for leak in self.found)
        n_other = sum(leak.label != leak.other_label for leak in self.found)
        return {"n": n, "n_exact": n_exact, "n_near": n - n_exact, "n_other_label": n_other}


@dataclass(frozen=True)
class Selection:
    """What `select` came to, for people and programs."""

    index: CleanIndex
    doubts: Doubts
    written: Sequence[Path]
    notes: Sequence[str]
    chosen: Chosen | None
    leaks: Leaks | None

    def document(self, fail_over: float | None) -> dict[str, Any]:
        """All of it; `fail_over` is the share that --fail-over allows."""
        from clipaudit.cli import documents

        return {
            **documents.selection(self.index, self.written[0], self.doubts),
            "written": self.written,
            "notes": self.notes,
            "threshold": self.chosen,
            "leaks": {"file": self.leaks.file, **self.leaks.counts} if self.leaks else None,
            "fail_over": fail_over,
        }

    def show(self) -> None:
        """The same for people."""
        from clipaudit.cli.console import print_line, safe, show_index

        if self.chosen:
            _show_chosen(self.chosen)
        show_index(self.index, self.doubts, self.written[0])
        print_line(f"Written: {', '.join(safe(path) for path in self.written)}")
        for note in self.notes:
            print_line(f"[yellow]note[/yellow] {safe(note)}")
        if self.leaks:
            _show_leaks(self.leaks)


def _show_chosen(chosen: Chosen) -> None:
    from clipaudit.cli.console import print_line

    if chosen.precision and chosen.recall:
        reached = "; ".join(
            f"{word} {one.estimate:.1%} (95 %: {one.low:.1%} to {one.high:.1%})"
            for word, one in (("precision", chosen.precision), ("recall", chosen.recall))
        )
        print_line(f"Threshold: {chosen.threshold:.4f}, expected to reach {reached}")
    else:
        print_line(f"Threshold: {chosen.threshold:.4f}, from the review")
    if chosen.note:
        print_line(f"[yellow]note[/yellow] {chosen.note}")


def _show_leaks(leaks: Leaks) -> None:
    from clipaudit.cli.console import print_line, safe

    counts = leaks.counts
    print_line(
        f"[bold]{counts['n']:,} leaks[/bold]: {counts['n_exact']:,} exact and {counts['n_near']:,} near copies of"
        f" images in {', '.join(safe(place) for place in leaks.against)}, {counts['n_other_label']:,} with another"
        " label there"
    )
    print_line(f"Written: {safe(leaks.file)}")
