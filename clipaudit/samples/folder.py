"""A folder with one subfolder a class: `photos/lynx/0001.jpg`, nested as deep as it likes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.samples.base import (
    FILES,
    IMAGE_SUFFIXES,
    Sample,
    SourceOptions,
    label_name,
    read_file,
    shown,
    some,
    stat_sample,
)
from clipaudit.samples.layout import TopFolder, judge_classes, says_nothing
from clipaudit.samples.place import Kind, Place
from clipaudit.samples.stamps import Stamp, mapped
from clipaudit.samples.tables import TABLE_SUFFIXES
from clipaudit.samples.walk import Walk, is_folder
from clipaudit.spelling import tidy, united


class FolderSource:
    """Every image below ROOT/CLASS/ has the label CLASS. Hidden files are passed over; other endings are counted."""

    def __init__(self, path: Path, options: SourceOptions, notes: Sequence[str] = ()) -> None:
        self.location = self.root = path.resolve()
        self.class_names: Sequence[str] | None = options.names
        self.access, self.image_column = FILES, None
        self._names = options.names
        self._walk = Walk(self.root)
        self._spellings: defaultdict[str, list[str]] = defaultdict(list)
        self._found_before = [*notes, *judge_classes(path, top_folders(self.root))]

    def samples(self) -> Iterator[Sample]:
        """All images, folders and files in order of their names."""
        self._walk = Walk(self.root)
        self._spellings.clear()
        found = False
        for sample in mapped(lambda image: stat_sample(self.root, *image), self._images()):
            found = True
            yield sample
        if not found:
            raise SourceError(_no_images(self.location))

    def _images(self) -> Iterator[tuple[str, str, Callable[[], os.stat_result]]]:
        """The path and the label of each, and how to look at it."""
        known = frozenset(self._names or ())
        for entry in self._walk.class_folders():
            label = label_name(tidy(entry.name), self._names, known, f"{self.location}, folder {entry.name!r}")
            self._spellings[label].append(entry.name)
            yield from ((path, label, listed.stat) for path, listed in self._walk.found(entry))

    @property
    def stamps(self) -> Mapping[str, Stamp]:
        """Of every folder that was read."""
        return self._walk.stamps

    def read(self, sample_id: str) -> bytes:
        """The bytes of the image file."""
        return read_file(self.root / sample_id)

    def decided(self) -> dict[str, str]:
        """That the folders are the classes."""
        return {"source": f"class folders in {self.location}"}

    def notes(self) -> list[str]:
        """How many files were passed over, and why; which folders are one class."""
        counts = [f"{count:,} {what} passed over" for what, count in sorted(self._walk.passed_over.items())]
        return [*self._found_before, *counts, *united("folders", self._spellings.values())]


def top_folders(root: Path) -> list[TopFolder]:
    """The class folders in `root` that hold images, with the folders in them."""
    entries = [entry for entry in Walk(root).class_folders() if next(Walk(root).images(entry), None) is not None]
    return [_top_folder(root, entry.name, only=len(entries) == 1) for entry in entries]


def _top_folder(root: Path, name: str, *, only: bool) -> TopFolder:
    """What lies in a folder; shelves that say nothing (`train/images`) are passed through, in an only one all are."""
    path, walk = root / name, Walk(root)
    while True:
        entries = walk.entries(path)
        folders = [entry.name for entry in entries if is_folder(entry) and not entry.is_symlink()]
        has_images = any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in entries if not is_folder(entry))
        if has_images or len(folders) != 1 or not (only or says_nothing(folders[0])):
            return TopFolder(name, path.relative_to(root).as_posix(), folders, has_images)
        path /= folders[0]


def _no_images(folder: Path) -> str:
    return f"{folder} has class folders but no images in them (endings looked for: {' '.join(sorted(IMAGE_SUFFIXES))})."


def _found(place: Place) -> str | None:
    if place.form != "folder":
        return None
    classes = [top.name for top in top_folders(place.path.resolve())]
    return f"class folders with images ({some(classes)})" if classes else None


def _open(place: Place) -> FolderSource:
    parquet = place.parquet
    tables = [
        file.name for file in place.files if file.suffix.lower() in TABLE_SUFFIXES and file.name not in parquet.own
    ]
    others = [f"{shown(name)} passed over; name it as the source to read images and labels from it" for name in tables]
    return FolderSource(place.path, place.options, [*parquet.notes(), *others])


def _missed(place: Place) -> str | None:
    if place.form != "folder":
        return None
    if any(map(is_folder, Walk(place.path).entries(place.path))):
        return _no_images(place.path)
    return (
        f"{place.path} has no class folders. Put the images of each class into a subfolder named after the class"
        " (photos/cat/1.jpg), or name a manifest with a path and a label column instead."
    )


CLASS_FOLDERS = Kind(
    name="a folder of class folders",
    words="a folder with one subfolder a class",
    found=_found,
    open=_open,
    missed=_missed,
    instead=lambda place: "move them elsewhere to read the folders",
)
