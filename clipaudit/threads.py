"""How many threads decode images: a number that a person chose is checked before any of them starts."""

from __future__ import annotations

import os

from clipaudit.options.shared import WORKERS


def thread_count(requested: int | None, default: int | None = None) -> int:
    """The number requested, else the default, else one a core.

    Raises:
        UsageError: it is out of range.
    """
    if requested is None:
        return default or os.cpu_count() or 1
    taken: int = WORKERS.take(requested)
    return taken
