"""How many threads work on images, and work that threads do ahead of its use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from clipaudit.options.shared import WORKERS

# Items that may wait for each thread.
_AHEAD = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread_count(requested: int | None, default: int | None = None) -> int:
    """The number requested, else the default, else one a core.

    Raises:
        UsageError: it is out of range.
    """
    if requested is None:
        return default or os.cpu_count() or 1
    taken: int = WORKERS.take(requested)
    return taken


def mapped_ahead(call: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map`, in order, while so many threads work on the coming items; with 0 there is none beside the caller's."""
    if not threads:
        yield from map(call, items)
        return
    waiting: deque[Future[Result]] = deque()
    workers = ThreadPoolExecutor(threads, "clipaudit-ahead")
    try:
        for item in items:
            waiting.append(workers.submit(call, item))
            if len(waiting) > threads * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        workers.shutdown(cancel_futures=True)
