"""Standard output and error that never end a command: a result is not lost because nobody reads the summary."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Stream(io.FileIO):
    """A file descriptor that takes everything; what could not be written is dropped, and why is kept.

    Attributes:
        fault: The first error; None where all was written.
    """

    fault: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.fault = self.fault or error
            return memoryview(data).nbytes


def guard_streams() -> None:
    """Let `sys.stdout` and `sys.stderr` write what they can: escapes for characters that their encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Closed by the caller. Its number must not go to a file of ours, into which others would then print.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
            continue
        if os.name == "nt":
            stream.reconfigure(errors="backslashreplace")  # A console there is no file.
            continue
        stream.flush()
        buffer = io.BufferedWriter(_Stream(stream.fileno(), "w", closefd=False))
        by_line = name == "stderr" or stream.isatty()
        guarded = io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", line_buffering=by_line)
        setattr(sys, name, guarded)


def output_fault() -> OSError | None:
    """Why standard output is incomplete; None where all was written, or where its reader left before the end."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    fault = raw.fault if isinstance(raw, _Stream) else None
    return None if isinstance(fault, BrokenPipeError) else fault
