"""An archive of class folders: `photos.zip` with `cat/1.jpg` in it, or with one folder around all of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from clipaudit.errors import SourceError
from clipaudit.samples.archives import TAR_SUFFIXES, Archive, Member, is_archive, open_archive
from clipaudit.samples.base import (
    IMAGE_SUFFIXES,
    MEMBERS,
    FaultySample,
    Sample,
    SourceOptions,
    UniqueIds,
    label_name,
    modified,
    shown,
    utf8,
)
from clipaudit.samples.layout import TopFolder, judge_classes
from clipaudit.samples.place import Kind, Place
from clipaudit.samples.stamps import Stamp, stamps_of
from clipaudit.samples.walk import is_skipped
from clipaudit.samples.webdataset import is_shard
from clipaudit.spelling import tidy, united


class ArchiveSource:
    """Every image in a class folder of the archive; its id is its path there."""

    access, image_column = MEMBERS, None

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.location = self.root = path.resolve()
        self.class_names: Sequence[str] | None = options.names
        self.stamps: dict[str, Stamp] = stamps_of([self.location])
        self._archive = open_archive(path)
        self._passed_over: Counter[str] = Counter()
        self._spellings: defaultdict[str, list[str]] = defaultdict(list)
        folders = {PurePosixPath(member.name).parent for member in self._images()}
        self._around = _around(folders)
        tops = _top_folders(folder.relative_to(self._around) for folder in folders)
        if not tops:
            damage = f" It is damaged: {self._archive.damage}." if self._archive.damage else ""
            raise SourceError(f"{path} has no class folders with images.{damage} Pack the folders, one a class.")
        self._doubts = judge_classes(path / self._around, tops)

    def _images(self) -> Iterator[Member]:
        """The members that are images; others are counted."""
        self._passed_over.clear()
        for member in self._archive.members():
            path = PurePosixPath(member.name)
            if any(map(is_skipped, path.parts)):
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield member
            else:
                self._passed_over[f"file(s) with the ending {path.suffix!r}"] += 1

    def samples(self) -> Iterator[Sample]:
        """All images in the archive's order; of a zip, in order of their names."""
        status, known, unique = self.location.stat(), frozenset(self.class_names or ()), UniqueIds()
        self.stamps = {str(self.location): (status.st_size, modified(status))}
        self._spellings.clear()
        for member in self._images():
            parts = PurePosixPath(member.name).relative_to(self._around).parts
            if len(parts) < 2:
                self._passed_over["image(s) directly in the archive, without a class,"] += 1
                continue
            label = label_name(tidy(parts[0]), self.class_names, known, f"{self.location}, folder {parts[0]!r}")
            if parts[0] not in self._spellings[label]:
                self._spellings[label].append(parts[0])
            unique.add(member.name)
            fault = member.fault or ("" if utf8(member.name) else "the name is not valid UTF-8: rename the member")
            if fault:
                yield FaultySample(shown(member.name), label, -1, -1, fault)
            else:
                yield Sample(member.name, label, member.size, modified(status))
        if repetition := unique.first_repetition():
            names = [member.name for member in self._images()]
            raise SourceError(f"{self.location} holds {names[repetition[1]]} twice. Pack it again.")

    def read(self, sample_id: str) -> bytes:
        """The bytes of one image."""
        return self._archive.read(sample_id)

    def decided(self) -> dict[str, str]:
        """That the folders in the archive are the classes."""
        around = "" if self._around == PurePosixPath() else f", below {self._around}/"
        return {"source": f"class folders in the archive {self.location}{around}"}

    def notes(self) -> list[str]:
        """What was passed over, or is lost."""
        damage = self._archive.damage
        return [
            *([f"{self.location.name} is damaged ({damage}): what comes behind is lost"] if damage else []),
            *self._doubts,
            *(f"{count:,} {what} passed over" for what, count in sorted(self._passed_over.items())),
            *united("folders", self._spellings.values()),
        ]


class ArchiveImages:
    """The images of an archive by their ids."""

    def __init__(self, path: Path, image_column: str | None) -> None:
        self._archive: Archive = open_archive(path)

    def read(self, sample_id: str) -> bytes:
        """The bytes of one image; safe to call from several threads. Raises ImageError."""
        return self._archive.read(sample_id)


def _around(folders: Collection[PurePosixPath]) -> PurePosixPath:
    """What is around all class folders, of the folders that hold images: as long as it is one, without images."""
    around = PurePosixPath()
    while folders:
        inside = {folder.relative_to(around).parts for folder in folders}
        if len({parts[:1] for parts in inside}) > 1 or any(len(parts) < 2 for parts in inside):
            break
        around /= next(iter(inside))[0]
    return around


def _top_folders(folders: Iterable[PurePosixPath]) -> list[TopFolder]:
    inside: defaultdict[str, set[str]] = defaultdict(set)
    holding = set()
    for folder in folders:
        if len(folder.parts) == 1:
            holding.add(folder.name)
        if folder.parts:
            inside[folder.parts[0]].update(folder.parts[1:2])
    return [TopFolder(name, name, sorted(names), name in holding) for name, names in sorted(inside.items())]


def _found(place: Place) -> str | None:
    is_one = place.form == "file" and is_archive(place.path.name)
    return "class folders in an archive" if is_one and not is_shard(place.path) else None


ARCHIVE = Kind(
    name="an archive of them",
    words=f"an archive of class folders (.zip, {', '.join(TAR_SUFFIXES)})",
    found=_found,
    open=lambda place: ArchiveSource(place.path, place.options),
    missed=lambda place: None,
    instead=lambda place: "name a folder",
)
