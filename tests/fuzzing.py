"""Campaigns of hostile input: each call must give a result or a ClipAuditError, soon and within bounded memory.

They are small by default; CLIPAUDIT_FUZZ=N tries N cases in each, and CLIPAUDIT_FUZZ_REPORT=FILE collects their counts,
one JSON object a line.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clipaudit.errors import ClipAuditError

Case = TypeVar("Case")
FAULTS_LISTED = 5
# What a campaign may take beyond what its process holds already.
MEMORY = 3 << 30


class LostError(AssertionError):
    """Raised by a campaign's call where it came back without an error, but with something lost or silently wrong."""


class _Hang(BaseException):
    """No Exception, so that nothing in between can take it for an error of its own."""


@dataclass
class Counts:
    """What became of a campaign's cases; `faults` describes the first few tracebacks, hangs and losses."""

    name: str
    tried: int = 0
    results: int = 0
    clean_errors: int = 0
    tracebacks: int = 0
    hangs: int = 0
    lost: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def size(small: int) -> int:
    """How many cases to try: `small`, or what CLIPAUDIT_FUZZ says."""
    return int(os.environ.get("CLIPAUDIT_FUZZ") or small)


def campaign(name: str, cases: Iterable[Case], call: Callable[[Case], Any], *, seconds: float = 20.0) -> Counts:
    """Try all cases, count what became of them, and fail if any was a traceback, a hang or a loss.

    Args:
        name: Of the campaign, in the report.
        cases: What `call` takes, one after the other; make it from a fixed seed, so that a fault can be repeated.
        call: Gives a result, or raises ClipAuditError (right) or `LostError` (something is silently wrong).
        seconds: The most that one call may take; more is a hang.
    """
    counts, began = Counts(name), time.monotonic()
    with _bounded_memory():
        for case in cases:
            counts.tried += 1
            _try(counts, case, call, seconds)
    counts.seconds = round(time.monotonic() - began, 1)
    if report := os.environ.get("CLIPAUDIT_FUZZ_REPORT"):
        with Path(report).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(counts)) + "\n")
    print(
        f"{name}: {counts.tried:,} tried, {counts.results:,} results, {counts.clean_errors:,} clean errors,"
        f" {counts.tracebacks} tracebacks, {counts.hangs} hangs, {counts.lost} lost, {counts.seconds} s"
    )
    assert not counts.tracebacks + counts.hangs + counts.lost, "\n\n".join(counts.faults)
    return counts


def _try(counts: Counts, case: Case, call: Callable[[Case], Any], seconds: float) -> None:
    kind = "results"
    try:
        with _deadline(seconds):
            call(case)
    except ClipAuditError as error:
        kind = "clean_errors" if str(error).strip() else "tracebacks"
    except _Hang:
        kind = "hangs"
        _note(counts, case, f"still running after {seconds} s")
    except LostError as error:
        kind = "lost"
        _note(counts, case, str(error))
    except Exception as error:
        kind = "tracebacks"
        _note(counts, case, _place(error))
    setattr(counts, kind, getattr(counts, kind) + 1)


def _note(counts: Counts, case: Any, words: str) -> None:
    if len(counts.faults) < FAULTS_LISTED:
        counts.faults.append(f"{counts.name}, case {counts.tried} ({repr(case)[:300]}): {words}")


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" in {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{where}: {str(error)[:300]}"


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise _Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """A call that wants more than MEMORY gets a MemoryError, and does not take the machine with it."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    import resource

    held = int(statm.read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
