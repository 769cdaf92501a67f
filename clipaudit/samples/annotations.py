"""What files of labelling tools have in common: images with labels of their own, and boxes with labels in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.remote import joined
from clipaudit.samples.base import (
    CROPS,
    FILES,
    NOT_OPENED,
    FaultySample,
    Sample,
    SourceOptions,
    UniqueIds,
    read_file,
    relative_id,
    stat_sample,
)
from clipaudit.samples.crops import Box, Crops, crop_of
from clipaudit.samples.labels import LabelReader, label_notes
from clipaudit.samples.locations import ADDRESS, Locations
from clipaudit.samples.paths import is_absolute, other_spelling
from clipaudit.samples.values import text_of
from clipaudit.text import excerpt

LABELS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Annotated:
    """One image of a labelling tool's file.

    Attributes:
        where: The file, and where the image stands in it.
        path: As the file has it, without what only the tool's server understands.
        labels: Of the image as a whole, each once; as the file has them.
        boxes: Those with a label.
        origin: What was taken off the path; "" where nothing was.
        key: The id that clipaudit exported, where the file came from there.
    """

    where: str
    path: str
    labels: tuple[object, ...] = ()
    boxes: tuple[Box, ...] = ()
    origin: str = ""
    key: str = ""


class PassedOver:
    """Counts what is not read, and remembers where it was met first."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, what: str, where: str) -> None:
        """Count one."""
        count, first = self._found.get(what, (0, where))
        self._found[what] = count + 1, first

    def notes(self) -> list[str]:
        """In words for the user."""
        return [f"{count:,} {what}, the first being {first}" for what, (count, first) in self._found.items()]


Images = Callable[[PassedOver], Iterator[Annotated]]


@dataclass(frozen=True)
class Listing:
    """A labelling tool's file that was read.

    Attributes:
        path: The file.
        form: What it is, in words: "COCO file".
        root: The folder that ids are relative to.
        images: All images in the file's order; what is not read is counted.
        folders: Folders below the root in which the tool's paths may begin.
        class_names: The classes in their order, where the file declares one.
        entry: What a file calls an image: "task".
    """

    path: Path
    form: str
    root: Path
    images: Images
    folders: Sequence[str] = ()
    class_names: Sequence[str] | None = None
    entry: str = "image"


class AnnotationSource:
    """The images of a labelling tool's file, or with `SourceOptions.crops` the boxes in them."""

    image_column = None

    def __init__(self, listing: Listing, options: SourceOptions) -> None:
        self.location, self.root = listing.path.resolve(), listing.root.resolve()
        self.class_names: Sequence[str] | None = options.names or listing.class_names
        self.access = CROPS if options.crops else FILES
        self._listing, self._names = listing, options.names
        self._crops = Crops(self.root) if options.crops else None
        self._locations = Locations(self.root, listing.folders, listing.images(PassedOver()))
        self._passed, self._labels = PassedOver(), LabelReader(options.names)
        self._n_respelled, self._respelled = 0, ("", "")

    def samples(self) -> Iterator[Sample]:
        """All images with a label in the file's order; with crops, all boxes."""
        self._passed, self._labels, self._n_respelled = PassedOver(), LabelReader(self._names), 0
        unique, count = UniqueIds(), 0
        for _, sample in self._found():
            unique.add(sample.id)
            count += 1
            yield sample
        if not count:
            raise SourceError(self._nothing())
        if repetition := unique.first_repetition():
            self._passed = PassedOver()
            first, second = (next(islice(self._found(), number, None))[0] for number in repetition)
            raise SourceError(f"{second}: the image was listed before, in {first}. Keep one of the two.")

    def _found(self) -> Iterator[tuple[str, Sample]]:
        for image in self._listing.images(self._passed):
            for label, box in self._labelled(image):
                sample = self._sample(image, self._labels.read(label, image.where))
                yield image.where, sample if box is None else crop_of(sample, box)

    def _labelled(self, image: Annotated) -> Iterator[tuple[object, Box | None]]:
        """The label of an image, or the labels of its boxes."""
        if self._crops:
            if not image.boxes:
                self._passed.add(f"{self._listing.entry}(s) without boxes passed over", image.where)
            yield from ((box.label, box) for box in self._different(image))
        elif len(image.labels) > 1:
            shown = ", ".join(map(excerpt, image.labels[:LABELS_SHOWN]))
            boxes = "Audit each box by itself with --crops, or keep" if image.boxes else "Keep"
            raise SourceError(
                f"{image.where}: {excerpt(image.path)} has {len(image.labels):,} different labels ({shown}).  {boxes}"
                " one label an image.".replace("  ", " ")
            )
        elif image.labels:
            yield image.labels[0], None
        else:
            what = "with boxes, but without a label of its own," if image.boxes else "without a label"
            self._passed.add(f"{self._listing.entry}(s) {what} passed over", image.where)

    def _different(self, image: Annotated) -> Iterator[Box]:
        """The boxes of an image at different places."""
        known: dict[str, Box] = {}
        for box in image.boxes:
            other = known.setdefault(box.name, box)
            if other is box:
                yield box
            elif other.label == box.label:
                self._passed.add("box(es) that are there twice passed over", image.where)
            else:
                raise SourceError(
                    f"{image.where}: the box {box.name} of {excerpt(image.path)} is there twice, with the labels"
                    f" {excerpt(other.label)} and {excerpt(box.label)}. Keep one of the two."
                )

    def _sample(self, image: Annotated, label: str) -> Sample:
        path = self._locations.of(image)
        sample_id = relative_id(self.root, path)
        # Whoever wrote the file should not be able to name any file of this machine.
        if is_absolute(sample_id):
            reason = f"the path leads out of the folder {self.root}: move the image below it"
            return FaultySample(sample_id, label, -1, -1, reason)
        sample = stat_sample(self.root, sample_id, label)
        if not isinstance(sample, FaultySample):
            return sample
        if image.origin == ADDRESS:
            reason = f"{NOT_OPENED}: the image is at an address. Download it below {self.root}"
            return FaultySample(sample.id, label, -1, -1, reason)
        if meant := other_spelling(self.root, path):
            self._respelled = self._respelled if self._n_respelled else (path, meant)
            self._n_respelled += 1
            return stat_sample(self.root, relative_id(self.root, meant), label)
        return sample

    def _nothing(self) -> str:
        what = "boxes with a label" if self._crops else f"{self._listing.entry} with a label"
        found = "; ".join(self._passed.notes())
        hint = " --crops reads the boxes." if "with boxes" in found else " Label some, and export the file again."
        return f"{self.location} has no {what}{f' ({found})' if found else ''}.{hint}"

    def read(self, sample_id: str) -> bytes:
        """The bytes of the image file, or of a box in it as PNG."""
        return self._crops.read(sample_id) if self._crops else read_file(joined(self.root, sample_id))

    def decided(self) -> dict[str, str]:
        """What the file is, where its images are, and whether boxes are read."""
        what = "boxes in the images" if self._crops else "the images"
        return {
            "source": f"{self._listing.form} {self.location.name}",
            "images": f"{what} below {self.root}{self._locations.said}",
        }

    def notes(self) -> list[str]:
        """What was passed over, labels that may not be meant, and paths that were found in another spelling."""
        notes = [*self._passed.notes(), *label_notes([self._labels])]
        if self._n_respelled:
            path, meant = self._respelled
            notes.append(
                f"{self._n_respelled:,} path(s) differ from their files in blanks, backslashes or Unicode form:"
                f" {excerpt(path)} was read as {excerpt(meant)}"
            )
        return notes


def image_path(value: object, where: str) -> str:
    """A path as a file has it.

    Raises:
        SourceError: it is none.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise SourceError(f"{where}: the path of the image is {excerpt(value)}. Name an image, or remove the entry.")
    return text_of(value, "path", where)
