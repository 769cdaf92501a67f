"""Where the images of a labelling tool's file are: its paths begin somewhere on the tool's machine, not on this one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from clipaudit.remote import joined, normal_path, to_path
from clipaudit.samples.paths import clean_path, is_absolute

# What was taken off a path: an address on the web or in a store; the folder of a tool's uploads; that of its local
# files; a drive or root of another machine.
ADDRESS, UPLOAD, SERVED, ELSEWHERE = "address", "upload", "served", "elsewhere"
# Images that are looked for, to learn where all of them are.
LOOKED_AT = 100
_MOST_FOLDERS = 12
# Label Studio puts this before the name of each file that is uploaded.
_UPLOAD_HASH = re.compile(r"[0-9a-f]{8}-(?=.)")


class Placed(Protocol):
    """An image that a file lists."""

    @property
    def path(self) -> str:
        """As the file has it."""

    @property
    def origin(self) -> str:
        """What was taken off."""


class _Start(NamedTuple):
    """How a path becomes one below the root: without its first folders, below another one."""

    folder: str = ""
    dropped: int = 0
    unhashed: bool = False

    def place(self, path: str) -> str:
        if not (self.dropped or self.unhashed):
            return f"{self.folder}{path}"
        parts = [part for part in clean_path(path).split("/") if part][self.dropped :]
        if parts and self.unhashed:
            parts[-1] = _UPLOAD_HASH.sub("", parts[-1])
        return self.folder + "/".join(parts)


class Locations:
    """Finds the image files by the paths of a file: where they begin is decided once, by the first images.

    Args:
        root: The folder that they are below.
        folders: Folders below it that are tried, too.
        images: All of them.
    """

    def __init__(self, root: Path, folders: Sequence[str], images: Iterable[Placed]) -> None:
        self._root, self._folders = root, ["", *(f"{folder}/" for folder in folders)]
        paths: dict[str, list[str]] = {}
        for image in islice(images, LOOKED_AT):
            paths.setdefault(self._origin(image), []).append(image.path)
        self._starts = {origin: self._start(origin, found) for origin, found in paths.items()}

    def of(self, image: Placed) -> str:
        """The path of an image, relative to the root or absolute; whether a file is there is another question."""
        return self._starts.get(self._origin(image), _Start()).place(image.path)

    @property
    def said(self) -> str:
        """Where they begin, where that is not the root, in words that follow its name."""
        folders = dict.fromkeys(start.folder for start in self._starts.values() if start.folder)
        dropped = any(start.dropped for start in self._starts.values())
        words = [f"in {' and '.join(folders)}"] if folders else []
        return ", ".join(["", *words, *(["found by the ends of their paths"] if dropped else [])])

    def _origin(self, image: Placed) -> str:
        if image.origin or not is_absolute(image.path):
            return image.origin
        inside = normal_path(to_path(image.path)).is_relative_to(self._root)
        return "" if inside else ELSEWHERE

    def _start(self, origin: str, paths: Sequence[str]) -> _Start:
        best, most = _Start(), 0
        for start in self._candidates(origin, paths):
            count = sum(self._is_file(start.place(path)) for path in paths)
            if count > most:
                best, most = start, count
            if most == len(paths):
                break
        return best

    def _candidates(self, origin: str, paths: Sequence[str]) -> Iterator[_Start]:
        depth = max(clean_path(path).count("/") for path in paths) + 1 if origin else 1
        for dropped in range(min(depth, _MOST_FOLDERS)):
            for folder in self._folders:
                yield _Start(folder, dropped)
                if origin == UPLOAD:
                    yield _Start(folder, dropped, unhashed=True)

    def _is_file(self, path: str) -> bool:
        try:
            place = normal_path(joined(self._root, path))
            return place.is_relative_to(self._root) and place.is_file()
        except (OSError, ValueError):
            return False  # Too long: certainly no file.
