"""Visiting the folders of a source: which entries are read, and which are passed over and counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.remote import RemoteEntry, RemotePath, to_path
from clipaudit.samples.base import IMAGE_SUFFIXES, shown, utf8
from clipaudit.samples.outputs import own_folder
from clipaudit.samples.stamps import Stamp, stamp
from clipaudit.samples.tables import TABLE_SUFFIXES

# What operating systems and network storage leave between the files; they often hold small copies of the images.
_SYSTEM_NAMES = frozenset(
    {"@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx", "$recycle.bin"}
    | {"lost+found", "system volume information", "network trash folder", "temporary items"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini"}
)

Entry = os.DirEntry[str] | RemoteEntry


class Walk:
    """Visits every folder below a root once, whatever links lead to it; counts what it passes over.

    `stamps` tells of each folder what it was like before it was listed, for `clipaudit.samples.stamps`.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._prefix = root, str(root / "x")[:-1]
        self._linked: set[tuple[int, int]] = set()
        self.passed_over: Counter[str] = Counter()
        self.stamps: dict[str, Stamp] = {}

    def class_folders(self) -> Iterator[Entry]:
        """The folders in the root that are not hidden, made by a system or by clipaudit.

        Raises:
            SourceError: the root cannot be listed, or a folder's name is not UTF-8.
        """
        for entry in self.entries(self._root):
            if not is_folder(entry):
                if Path(entry.name).suffix.lower() not in TABLE_SUFFIXES:
                    self.passed_over["file(s) directly in the folder, without a class,"] += 1
            elif kind := own_folder(to_path(entry.path)):
                self.passed_over[f"folder(s) named {entry.name!r} ({kind})"] += 1
            elif not utf8(entry.name):
                raise SourceError(
                    f"{self._root} has a folder whose name is not valid UTF-8: {shown(entry.name)}. Rename it."
                )
            elif not entry.is_symlink() or not self._read_elsewhere(entry):
                yield entry

    def images(self, folder: Entry) -> Iterator[str]:
        """Paths of the images below a folder, relative to the root with `/`, in order of their names."""
        return (path for path, _ in self.found(folder))

    def found(self, folder: Entry) -> Iterator[tuple[str, Entry]]:
        """The same with what was listed of each."""
        # Iterative, as folders may be nested deeper than calls may.
        waiting = [(folder, False)]
        while waiting:
            entry, linked = waiting.pop()
            if is_folder(entry):
                linked = linked or entry.is_symlink()
                if self.enters(entry, linked=linked):
                    waiting.extend((child, linked) for child in reversed(self.entries(to_path(entry.path))))
            # A Path for each of millions of files takes longer than the look at the disk.
            elif (suffix := os.path.splitext(entry.name)[1].lower()) in IMAGE_SUFFIXES:  # noqa: PTH122
                yield entry.path.removeprefix(self._prefix).replace(os.sep, "/"), entry
            else:
                self.passed_over[f"file(s) with the ending {suffix!r}" if suffix else "file(s) without an ending"] += 1

    def every_image(self) -> Iterator[str]:
        """Paths of all images below the root and directly in it, as `images` gives them."""
        for entry in self.entries(self._root):
            yield from self.images(entry)

    def enters(self, entry: Entry, *, linked: bool) -> bool:
        """Whether a folder has to be read where it stands; `linked` says that a link led to it."""
        if not linked:
            return True
        if entry.is_symlink() and self._read_elsewhere(entry):
            return False
        try:
            status = entry.stat()
        except OSError:
            return True  # Whoever lists it will say why that cannot be.
        identity = status.st_dev, status.st_ino
        if identity in self._linked:
            self.passed_over["link(s) to a folder that another link leads to,"] += 1
            return False
        self._linked.add(identity)
        return True

    def _read_elsewhere(self, link: Entry) -> bool:
        """Whether a link leads to a folder that is read in its own place, or back above the root."""
        target, root = Path(os.path.realpath(link.path)), Path(os.path.realpath(self._root))
        inside = target.is_relative_to(root) and not any(map(is_skipped, target.relative_to(root).parts))
        if inside or root.is_relative_to(target):
            self.passed_over["link(s) to a folder that is read in its own place"] += 1
            return True
        return False

    def entries(self, folder: Path) -> list[Entry]:
        """What is in a folder, in order of the names, without hidden files and those of a system.

        Raises:
            SourceError: it cannot be listed.
        """
        # Before it is listed: what comes in meanwhile changes it.
        self.stamps[str(folder)] = stamp(folder)
        try:
            entries = sorted(_listed(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise SourceError(f"{folder} cannot be listed: {error.strerror}. Check its permissions.") from None
        for entry in entries:
            if entry.name.lower() in _SYSTEM_NAMES:
                self.passed_over[f"file(s) or folder(s) of the system named {entry.name!r}"] += 1
        return [entry for entry in entries if not is_skipped(entry.name)]


def _listed(folder: Path) -> list[Entry]:
    if isinstance(folder, RemotePath):
        return list(folder.entries())
    with os.scandir(folder) as found:
        return list(found)


def is_folder(entry: Entry) -> bool:
    """Whether an entry is a folder or leads to one; a link that leads nowhere or to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_skipped(name: str) -> bool:
    """Whether a name is hidden or one of a system's, so that what has it is passed over."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES
