"""Peak resident memory of this process, from Linux's own book-keeping.

getrusage would not do: a new process starts with its parent's peak.
"""

from __future__ import annotations

from pathlib import Path


def peak_memory() -> int:
    """The largest resident memory so far, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def reset_peak_memory() -> int:
    """Forget the peak: it starts again from what is resident now, which is returned in kB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()
