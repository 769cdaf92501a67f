"""Rows of a table matched to the samples of an audit: the only place that decides which sample a path or id means."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clipaudit.samples.paths import clean_path, is_absolute
from clipaudit.text import excerpt, unescape_formula

NONE = -1


@dataclass(frozen=True)
class Match:
    """Which sample each key means.

    Attributes:
        numbers: The sample of each key, NONE where it means no sample.
        note: What had to be tolerated so that anything matched, in words for the user; empty where nothing had to.
    """

    numbers: list[int]
    note: str = ""

    @property
    def n_samples(self) -> int:
        """How many samples are meant by a key."""
        return len(set(self.numbers) - {NONE})


class Matcher:
    """Finds samples by the paths and ids that tables write for them.

    A key means the sample whose id or path it is, relative to the images or to the table's folder or absolute; blanks
    around it, backslashes, Unicode form and an apostrophe that guards against formulas make no difference. Only where
    no key means a sample like this: the sample whose file it leads to through symbolic links, else the only sample
    whose path ends like it, else the only one that does so without its ending.

    Args:
        ids: Sample ids, each once.
        root: The folder that the ids are relative to.
        folder: The folder of the table.
    """

    def __init__(self, ids: Sequence[str], root: Path, folder: Path) -> None:
        self._ids, self._root, self._folder = ids, root, folder
        self._start = f"{os.path.normpath(str(root)).rstrip('/')}/"
        self._exact = {sample_id: number for number, sample_id in enumerate(ids)}
        self._real_folders: dict[str, str] = {}

    def match(self, keys: Sequence[str | None], *, loosely: bool = True) -> Match:
        """The sample that each key means; without `loosely` nothing is tried beyond the first sentence above."""
        numbers = [NONE if key is None else self._spelled(key) for key in keys]
        if not loosely or any(number != NONE for number in numbers):
            return Match(numbers)
        numbers = [
            NONE if key is None else self._resolved.get(self._real(str(self._folder / clean_path(key))), NONE)
            for key in keys
        ]
        if any(number != NONE for number in numbers):
            return Match(numbers)
        for tails in (self._tails, self._stems):
            numbers = [NONE if key is None else tails.find(key) for key in keys]
            found = (pair for pair in zip(keys, numbers, strict=True) if pair[1] != NONE)
            if example := next(found, None):
                key, number = example
                return Match(numbers, f"by the ends of the paths: {excerpt(key)} is {self._ids[number]!r}")
        return Match(numbers)

    def _spelled(self, key: str) -> int:
        if key in self._exact:
            return self._exact[key]
        if "\0" in key:
            return NONE
        number = self._placed(key, self._exact)
        if number == NONE:
            for spelling in (key, unescape_formula(key)):
                if (number := self._placed(clean_path(spelling), self._clean)) != NONE:
                    break
        return number

    def _placed(self, key: str, known: dict[str, int]) -> int:
        """The sample of a key as an id, relative to the images, or as a path, relative to the table's folder."""
        normal = os.path.normpath(key)
        place = normal if key.startswith("/") or "://" in key else os.path.normpath(f"{self._folder}/{key}")
        for sample_id in (key, normal, place.removeprefix(self._start)):
            if sample_id in known:
                return known[sample_id]
        return NONE

    @cached_property
    def _clean(self) -> dict[str, int]:
        return _only(clean_path(sample_id) for sample_id in self._ids)

    @cached_property
    def _resolved(self) -> dict[str, int]:
        return _only(self._real(str(self._root / sample_id)) for sample_id in self._ids)

    def _real(self, path: str) -> str:
        """The file that an absolute path leads to; folders are resolved once, not once a file."""
        if "\0" in path:
            return path
        folder, name = os.path.split(os.path.normpath(path))
        try:
            if folder not in self._real_folders:
                self._real_folders[folder] = os.path.realpath(folder)
            place = Path(self._real_folders[folder], name)
            return os.path.realpath(place) if place.is_symlink() else str(place)
        except (OSError, ValueError):
            return path  # Too long: certainly no file.

    @cached_property
    def _tails(self) -> _Tails:
        return _Tails([clean_path(sample_id) for sample_id in self._ids], self._root)

    @cached_property
    def _stems(self) -> _Tails:
        return _Tails([_without_ending(clean_path(sample_id)) for sample_id in self._ids], self._root)


class _Tails:
    """Finds the only sample whose path ends like a key, or whose id a foreign absolute path ends with."""

    def __init__(self, places: Sequence[str], root: Path) -> None:
        self._paths = [_parts(place if place.startswith("/") else f"{root.as_posix()}/{place}") for place in places]
        self._ids = _only(places)
        self._deepest = max(map(len, self._paths), default=0)
        self._by_depth: dict[int, dict[str, int]] = {}

    def find(self, key: str) -> int:
        parts = _parts(clean_path(key))
        depth = len(parts)
        if depth <= self._deepest and depth not in self._by_depth:
            self._by_depth[depth] = _only("/".join(path[-depth:]) for path in self._paths)
        number = self._by_depth.get(depth, {}).get("/".join(parts), NONE)
        if number == NONE and is_absolute(key.strip()):
            tails = ("/".join(parts[start:]) for start in range(1, depth))
            number = next((self._ids[tail] for tail in tails if tail in self._ids), NONE)
        return number


def _without_ending(path: str) -> str:
    stem, _, ending = path.rpartition(".")
    return path if "/" in ending or not stem or stem.endswith("/") else stem


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _only(keys: Iterable[str]) -> dict[str, int]:
    """The number of each key that comes once."""
    numbers: dict[str, int] = {}
    for number, key in enumerate(keys):
        numbers[key] = number if key not in numbers else NONE
    return numbers


def example_of(keys: Iterable[str | None], numbers: Iterable[int]) -> str:
    """The first key that means no sample, for a message."""
    return next((excerpt(key) for key, number in zip(keys, numbers, strict=True) if key and number == NONE), "none")
