"""How many threads decode images: a number that a person chose is checked before any of them starts."""

from __future__ import annotations

import os

from clipaudit.errors import UsageError

MAX_THREADS = 256


def thread_count(requested: int | None, default: int | None = None) -> int:
    """The number requested, else the default, else one a core.

    Raises:
        UsageError: it is not between 1 and MAX_THREADS.
    """
    if requested is None:
        return default or os.cpu_count() or 1
    if not 1 <= requested <= MAX_THREADS:
        raise UsageError(f"the number of workers must lie between 1 and {MAX_THREADS:,}, not {requested}.")
    return requested
