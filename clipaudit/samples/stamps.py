"""Whether files are still the same, without reading them: by their sizes and times, looked at in threads where slow."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from clipaudit.samples.base import CROPS, FILES, FaultySample, Sample, modified, stat_of
from clipaudit.samples.paths import other_spelling

# Size and time of the last change in nanoseconds; GONE where nothing can be looked at.
Stamp = tuple[int, int]
GONE: Stamp = (-1, -1)
# Network storage answers after a while, but many questions at once. On a local disk, handing a question to another
# thread takes longer than its answer.
SLOW_SECONDS, THREADS = 150e-6, 32
_FIRST_ITEMS, _ITEMS_AT_ONCE, _ITEMS_A_TASK = 32, 1024, 32
# File systems keep times this roughly (FAT), so that a later change may leave the same time.
_ROUGH = 2_000_000_000
# Of paths that are absolute already.
_HERE = Path()

Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Stamped(Protocol):
    """A source that says what its samples depend on beside the files of the images.

    A plan of a source that does not is made again at every start.
    """

    stamps: Mapping[str, Stamp]
    """What the last `samples()` read, files and folders by absolute path, as each was before it was read."""


def stamp(path: str | Path) -> Stamp:
    """That of a file or folder; links are followed."""
    try:
        status = stat_of(_HERE, str(path))
    except (OSError, ValueError):
        return GONE
    return status.st_size, modified(status)


def stamps_of(paths: Iterable[str | Path]) -> dict[str, Stamp]:
    """Those of several files."""
    return {str(path): stamp(path) for path in paths}


def settled(stamps: Mapping[str, Stamp], began: int) -> bool:
    """Whether equal stamps will prove that nothing has changed since `began`, in nanoseconds.

    A change right after something was looked at may leave it the same time.
    """
    return all(0 < changed < began - _ROUGH for _, changed in stamps.values())


def same_images(root: Path, access: str, samples: Iterable[Sample]) -> bool:
    """Whether the image files of samples are still those that the samples were made of.

    Of samples that are rows or members of files, these files are all there is to look at (`Stamped`).
    """
    if access not in (FILES, CROPS):
        return True
    return all(mapped(lambda sample: _is_same(root, access, sample), samples))


def _is_same(root: Path, access: str, sample: Sample) -> bool:
    path = sample.id.rpartition("#")[0] if access == CROPS else sample.id
    if isinstance(sample, FaultySample):
        return _is_still_missing(root, path)
    try:
        status = stat_of(root, path)
    except (OSError, ValueError):
        return False
    return (status.st_size, modified(status)) == (sample.size, sample.modified)


def _is_still_missing(root: Path, path: str) -> bool:
    try:
        return not stat.S_ISREG(stat_of(root, path).st_mode) and other_spelling(root, path) is None
    except (OSError, ValueError):
        return other_spelling(root, path) is None


def mapped(call: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What a call gives for each item, in order; in threads once the calls have waited long for their answers."""

    def task(some: Sequence[Item]) -> list[Result]:
        return [call(item) for item in some]

    items, is_slow, at_once = iter(items), False, _FIRST_ITEMS
    with ThreadPoolExecutor(THREADS, "clipaudit-look") as threads:
        while chunk := list(islice(items, at_once)):
            if is_slow:
                tasks = [chunk[start : start + _ITEMS_A_TASK] for start in range(0, len(chunk), _ITEMS_A_TASK)]
                yield from chain.from_iterable(threads.map(task, tasks))
                continue
            began, worked = time.perf_counter(), time.thread_time()
            results = task(chunk)
            waited = time.perf_counter() - began - (time.thread_time() - worked)
            is_slow, at_once = waited > SLOW_SECONDS * len(chunk), _ITEMS_AT_ONCE
            yield from results
