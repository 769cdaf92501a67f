"""WebDataset shards: tars in which the files of a sample share their name (`000017.jpg`, `000017.cls`)."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from os.path import commonpath
from pathlib import Path, PurePosixPath
from threading import Lock

from clipaudit.errors import ImageError, SourceError
from clipaudit.remote import to_path
from clipaudit.samples.archives import TAR_SUFFIXES, Member, Tar, is_archive
from clipaudit.samples.base import (
    IMAGE_SUFFIXES,
    SHARDS,
    FaultySample,
    Sample,
    SourceOptions,
    modified,
    shown,
    some,
    utf8,
)
from clipaudit.samples.labels import LabelReader, label_notes
from clipaudit.samples.place import Kind, Place
from clipaudit.samples.stamps import Stamp, stamps_of
from clipaudit.samples.tables import LABEL_COLUMNS
from clipaudit.text import excerpt

# Endings of what may hold a label, the usual one first.
LABEL_ENDINGS = ("cls", "json", "txt")
_MEMBERS_SNIFFED = 2_000
_LABEL_BYTES = 1 << 24
# Shards whose members' places are kept; threads work on neighbours.
_OPEN_SHARDS = 4
_NOTES_SHOWN = 3
# Keys may have number signs in them, too.
_ID = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, TAR_SUFFIXES))}))#(.*)", re.IGNORECASE | re.DOTALL)

Group = dict[str, Member]


def key_and_ending(name: str) -> tuple[str, str]:
    """WebDataset's `__key__` of a member and its ending: what is before and behind the first dot of the file's name."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.parent / stem), ending.lower()


def groups(members: Iterator[Member]) -> Iterator[tuple[str, Group]]:
    """Neighbouring members of one key, by their endings."""
    for key, group in groupby(members, lambda member: key_and_ending(member.name)[0]):
        yield key, {key_and_ending(member.name)[1]: member for member in group}


def image_of(group: Group, wanted: str | None) -> Member | None:
    """The image among a sample's members: the one with the wanted ending, else the first with a usual one."""
    if wanted is not None:
        return group.get(wanted)
    return next((member for ending, member in group.items() if f".{ending}" in IMAGE_SUFFIXES), None)


def is_shard(path: Path) -> bool:
    """Whether a tar has an image and a label with the same key near its beginning."""
    if path.suffix.lower() == ".zip":
        return False
    few = islice(Tar(path).members(), _MEMBERS_SNIFFED)
    return any(image_of(group, None) and not group.keys().isdisjoint(LABEL_ENDINGS) for _, group in groups(few))


class WebDatasetSource:
    """One sample a key; its id is `shard.tar#key`. Shards are read in order of their names, and never unpacked."""

    access = SHARDS

    def __init__(self, shards: Sequence[Path], options: SourceOptions, location: Path) -> None:
        self.location, self._shards = location, [shard.resolve() for shard in shards]
        self.root = to_path(commonpath([str(shard.parent) for shard in self._shards]))
        self.image_column = options.image_column
        self.class_names: Sequence[str] | None = options.names
        self._images = ShardImages(self.root, self.image_column)
        self.stamps: dict[str, Stamp] = stamps_of(self._shards)
        self._labels = LabelReader(options.names)
        self._ending, self._field = self._label_place(options.label_column)
        self._lost: list[str] = []

    def _label_place(self, wanted: str | None) -> tuple[str, str | None]:
        """Which member holds the label, and which field of it: `cls`, `txt`, `json:label`."""
        if wanted is not None:
            ending, _, name = wanted.partition(":")
            return ending.lower().removeprefix("."), name or None
        for shard in self._shards:
            for _, group in groups(islice(Tar(shard).members(), _MEMBERS_SNIFFED)):
                found = [ending for ending in LABEL_ENDINGS if ending in group]
                if image_of(group, self.image_column) is None or not found:
                    continue
                if found[0] != "json":
                    return found[0], None
                content = _parsed(Tar(shard).read_member(group["json"]), f"{shard}, {group['json'].name}")
                field = next((name for name in LABEL_COLUMNS if name in content), None)
                if field or "txt" not in found:
                    return "json", field
                return "txt", None
        raise SourceError(
            f"{self._shards[0]} has no sample with an image and a label: none of its keys has one of the endings"
            f" {', '.join(LABEL_ENDINGS)}. Say where the labels are with --label-column, such as json:category."
        )

    def samples(self) -> Iterator[Sample]:
        """All samples, shard by shard; a damaged one ends early."""
        self._labels, self._lost, self.stamps = LabelReader(self.class_names), [], {}
        found = False
        for shard in self._shards:
            for sample in self._samples_of(shard):
                found = True
                yield sample
        if not found:
            raise SourceError(f"{self.location} has no samples" + (f": {self._lost[0]}" if self._lost else "."))

    def _samples_of(self, shard: Path) -> Iterator[Sample]:
        try:
            status = shard.stat()
            self.stamps[str(shard)], tar = (status.st_size, modified(status)), Tar(shard)
        except OSError as error:
            raise SourceError(f"{shard} cannot be opened: {error.strerror}.") from None
        name, count = shard.relative_to(self.root).as_posix(), 0
        held: tuple[str, Group] | None = None
        for group in groups(tar.members()):
            if held is not None:
                count += 1
                yield self._sample(tar, name, *held, modified(status))
            held = group
        # The last key of a damaged shard may lack what is lost.
        if held is not None and not (tar.damage and self._ending not in held[1]):
            count += 1
            yield self._sample(tar, name, *held, modified(status))
        if tar.damage:
            self._lost.append(f"{name} is damaged ({tar.damage}): what comes behind its {count:,} samples is lost")

    def _sample(self, tar: Tar, shard: str, key: str, group: Group, changed: int) -> Sample:
        sample_id = f"{shard}#{key}"
        label = self._labels.read(self._label(tar, group, sample_id), sample_id)
        image = image_of(group, self.image_column)
        if image is None:
            endings = some(group)
            return FaultySample(sample_id, label, -1, -1, f"the shard holds no image of this key, but {endings}")
        if not utf8(sample_id):
            return FaultySample(shown(sample_id), label, -1, -1, "the name is not valid UTF-8: rename the member")
        return Sample(sample_id, label, image.size, changed)

    def _label(self, tar: Tar, group: Group, where: str) -> object:
        member = group.get(self._ending)
        if member is None or member.size > _LABEL_BYTES:
            raise SourceError(
                f"{where}: there is no label, no member with the ending {self._ending!r}. Give every image a label, or"
                " say where it is with --label-column."
            )
        try:
            data = tar.read_member(member)
        except ImageError as error:
            raise SourceError(f"{where}: the label cannot be read: {error}.") from None
        if self._ending.split(".")[-1] == "json":
            content = _parsed(data, where)
            if self._field is None or self._field not in content:
                raise SourceError(
                    f"{where}: its JSON has no field {self._field or 'with a usual name for labels'!r}, but"
                    f" {some(content)}. Say which one holds the label: --label-column json:FIELD"
                )
            return content[self._field]
        try:
            return data.decode().strip()
        except UnicodeDecodeError:
            raise SourceError(f"{where}: the label is no text: {excerpt(data)}.") from None

    def read(self, sample_id: str) -> bytes:
        """The bytes of one image."""
        return self._images.read(sample_id)

    def decided(self) -> dict[str, str]:
        """Which shards and members are read."""
        names = [shard.relative_to(self.root).as_posix() for shard in self._shards]
        field = f", field {self._field!r}" if self._field else ""
        return {
            "source": f"{len(names):,} WebDataset shard(s) in {self.root}: {some(names)}",
            "images": f"members with the ending {self.image_column!r}" if self.image_column else "each key's image",
            "labels": f"members with the ending {self._ending!r}{field}",
        }

    def notes(self) -> list[str]:
        """What is lost in damaged shards, and labels that may not be meant."""
        more = [f"... and {len(self._lost) - _NOTES_SHOWN:,} more damaged shards"] * (len(self._lost) > _NOTES_SHOWN)
        return [*self._lost[:_NOTES_SHOWN], *more, *label_notes([self._labels])]


class ShardImages:
    """The images of shards below a folder, by `shard.tar#key`."""

    def __init__(self, root: Path, image_column: str | None) -> None:
        self._root, self._wanted, self._lock = root, image_column, Lock()
        self._open: OrderedDict[str, tuple[Tar, dict[str, Member]]] = OrderedDict()

    def read(self, sample_id: str) -> bytes:
        """The bytes of one image; safe to call from several threads. Raises ImageError."""
        match = _ID.fullmatch(sample_id)
        tar, images = self._shard(match[1] if match else sample_id)
        if match is None or match[2] not in images:
            raise ImageError(f"cannot be opened: there is no image of the key {sample_id}")
        return tar.read_member(images[match[2]])

    def _shard(self, name: str) -> tuple[Tar, dict[str, Member]]:
        with self._lock:
            if name not in self._open:
                try:
                    tar = Tar(self._root / name)
                except SourceError as error:
                    raise ImageError(f"cannot be opened: {error}") from None
                found = ((key, image_of(group, self._wanted)) for key, group in groups(tar.members()))
                self._open[name] = tar, {key: image for key, image in found if image is not None}
                if len(self._open) > _OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open.move_to_end(name)
            return self._open[name]


def _parsed(data: bytes, where: str) -> dict[str, object]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: its JSON is damaged: {error}.") from None
    if not isinstance(content, dict):
        raise SourceError(f"{where}: its JSON is no object with a label.")
    return content


def _shards(place: Place) -> list[Path]:
    if place.form == "file":
        one = is_archive(place.path.name) and is_shard(place.path)
        return [place.path] if one else []
    return [file for file in place.files if is_archive(file.name) and file.suffix.lower() != ".zip"]


def _found(place: Place) -> str | None:
    shards = _shards(place)
    return f"tar shards ({some(shard.name for shard in shards)})" if shards else None


WEBDATASET = Kind(
    name="WebDataset shards",
    words="WebDataset shards, a folder or pattern of them ('shards/{000..099}.tar')",
    found=_found,
    open=lambda place: WebDatasetSource(_shards(place), place.options, place.path.absolute()),
    missed=lambda place: None,
    instead=lambda place: f"name the shards with '{place.path / '*.tar'}' (in quotes)",
)
