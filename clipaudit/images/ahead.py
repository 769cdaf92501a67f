"""Images that threads read and decode ahead of their use: the one loop of `embed`, `train`, `predict` and `report`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from clipaudit.errors import ImageError
from clipaudit.images.decoding import one_unreadable

# Decoded batches that may wait: enough that the model never waits for one slow file, few enough for any memory.
BATCHES_AHEAD = 3
# Images that a thread takes at once; one by one, handing them out would cost as much as decoding a small one.
IMAGES_A_TASK = 8

Batch = TypeVar("Batch")
Item = TypeVar("Item")
Picture = TypeVar("Picture")


def decoded_or_reason(decode: Callable[[Item], Picture], item: Item) -> Picture | ImageError:
    """What `decode` makes of an image, or why it makes nothing of it."""
    try:
        with one_unreadable("cannot be read"):
            return decode(item)
    except ImageError as error:
        return error


def decoded_ahead(
    batches: Iterable[tuple[Batch, Sequence[Item]]],
    decode: Callable[[Item], Picture],
    workers: int,
    *,
    ahead: int = BATCHES_AHEAD,
) -> Iterator[tuple[Batch, list[Picture | ImageError]]]:
    """Each batch with its decoded images, in order, while threads decode the coming ones.

    Args:
        batches: Batches, and the images of each as `decode` takes them.
        decode: Called from several threads; whatever it raises makes one image unreadable.
        workers: Number of threads.
        ahead: Number of batches that may be decoded before they are asked for.
    """

    def decode_task(task: Sequence[Item]) -> list[Picture | ImageError]:
        return [decoded_or_reason(decode, item) for item in task]

    waiting: deque[tuple[Batch, list[Future[list[Picture | ImageError]]]]] = deque()
    decoders = ThreadPoolExecutor(workers, "clipaudit-decode")
    try:
        for batch, items in batches:
            tasks = [items[start : start + IMAGES_A_TASK] for start in range(0, len(items), IMAGES_A_TASK)]
            waiting.append((batch, [decoders.submit(decode_task, task) for task in tasks]))
            if len(waiting) > ahead:
                yield _collected(*waiting.popleft())
        while waiting:
            yield _collected(*waiting.popleft())
    finally:
        decoders.shutdown(cancel_futures=True)


def _collected(
    batch: Batch, decoding: Iterable[Future[list[Picture | ImageError]]]
) -> tuple[Batch, list[Picture | ImageError]]:
    return batch, [result for future in decoding for result in future.result()]
