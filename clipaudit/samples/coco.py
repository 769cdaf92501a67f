"""COCO files: images, annotations and categories in one JSON; the categories of its annotations label an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipaudit.errors import SourceError
from clipaudit.samples.annotations import Annotated, AnnotationSource, Listing, PassedOver, image_path
from clipaudit.samples.crops import Box, number
from clipaudit.samples.documents import field, objects
from clipaudit.samples.place import Kind, Place
from clipaudit.samples.values import text_of
from clipaudit.spelling import tidy
from clipaudit.text import excerpt

_PARTS = ("images", "annotations", "categories")
# What the names of COCO's files begin with before that of their folder: instances_val2017.json, images in val2017/.
_PREFIXES = ("instances_", "annotations_", "labels_")
_Id = int | str


class CocoFile:
    """A COCO file that was read: its categories by id, and the annotations of each image.

    Args:
        path: The file.
        document: What it says.

    Raises:
        SourceError: something in it is missing or damaged; the message names the annotation or category.
    """

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        self.path = path
        self._images = field(document, "images", list, str(path))
        self._names = self._categories(field(document, "categories", list, str(path)))
        self._by_image: defaultdict[_Id, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
        for place, annotation in objects(field(document, "annotations", list, str(path)), "annotation", str(path)):
            where = f"{path}, annotation {_name(annotation, place)}"
            self._by_image[field(annotation, "image_id", (int, str), where)].append((where, annotation))

    def _categories(self, found: Sequence[Any]) -> dict[_Id, str]:
        names: dict[_Id, str] = {}
        for place, category in objects(found, "category", str(self.path)):
            where = f"{self.path}, category {place:,}"
            number = field(category, "id", (int, str), where)
            name = tidy(text_of(field(category, "name", (int, str), where), "name", where))
            if names.setdefault(number, name) != name:
                raise SourceError(
                    f"{where}: the id {excerpt(number)} is that of {names[number]!r}, too. Give it another."
                )
        return names

    @property
    def class_names(self) -> list[str]:
        """The categories that annotations have, in the file's order: some tools write one that stands for all."""
        used = {
            annotation.get("category_id")
            for annotations in self._by_image.values()
            for _, annotation in annotations
            if not annotation.get("iscrowd") and isinstance(annotation.get("category_id"), int | str)
        }
        return list(dict.fromkeys(name for key, name in self._names.items() if key in used and name))

    def images(self, passed: PassedOver) -> Iterator[Annotated]:
        """All images, with the categories of their annotations as labels."""
        known: set[_Id] = set()
        for place, image in objects(self._images, "image", str(self.path)):
            where = f"{self.path}, image {_name(image, place)}"
            key = field(image, "id", (int, str), where)
            if key in known:
                raise SourceError(f"{where}: another image has the same id. Give each one its own.")
            known.add(key)
            path = image_path(image.get("file_name"), where)
            # Looked up, not made: a defaultdict would grow.
            annotations = self._by_image.get(key, ())
            labels, boxes = self._labels(annotations, passed)
            yield Annotated(where, path, tuple(dict.fromkeys(labels)), tuple(boxes))
        for key in self._by_image.keys() - known:
            for where, _ in self._by_image[key]:
                passed.add("annotation(s) of images that the file does not list passed over", where)

    def _labels(
        self, annotations: Sequence[tuple[str, Mapping[str, Any]]], passed: PassedOver
    ) -> tuple[list[str], list[Box]]:
        labels, boxes = [], []
        for where, annotation in annotations:
            if annotation.get("iscrowd"):
                passed.add("annotation(s) of crowds (iscrowd) passed over", where)
                continue
            category = field(annotation, "category_id", (int, str), where)
            if category not in self._names:
                raise SourceError(f"{where}: there is no category {excerpt(category)}. Add it to 'categories'.")
            labels.append(self._names[category])
            if bbox := annotation.get("bbox"):
                boxes.append(_box(bbox, self._names[category], where))
        return labels, boxes


def _name(entry: Mapping[str, Any], place: int) -> str:
    """What a message calls an entry: its id, or its place where it has none."""
    return excerpt(entry["id"]) if "id" in entry else f"number {place:,}"


def _box(bbox: object, label: str, where: str) -> Box:
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise SourceError(f"{where}: the field 'bbox' is {excerpt(bbox)}, not [x, y, width, height]. Correct it.")
    left, top, width, height = (
        number(value, name, where) for value, name in zip(bbox, ("x", "y", "width", "height"), strict=True)
    )
    return Box.between(left, top, left + width, top + height, label)


def _is_coco(document: object) -> bool:
    return isinstance(document, dict) and all(isinstance(document.get(name), list) for name in _PARTS)


def _found(place: Place) -> str | None:
    return "images, annotations and categories, as COCO has them" if _is_coco(place.json) else None


def _open(place: Place) -> AnnotationSource:
    file, folder = CocoFile(place.path, place.json), place.path.resolve().parent
    # annotations/instances_val2017.json lies beside val2017/, not above it.
    root = folder.parent if folder.name.lower() in ("annotations", "labels") else folder
    stem = place.path.stem
    split = next((stem.removeprefix(prefix) for prefix in _PREFIXES if stem.startswith(prefix)), stem)
    folders = ("images", "data", split, f"images/{split}")
    listing = Listing(place.path, "COCO file", root, file.images, folders, file.class_names or None)
    return AnnotationSource(listing, place.options)


def _missed(place: Place) -> str | None:
    document = place.json
    if not isinstance(document, dict) or "images" not in document:
        return None
    absent = [name for name in _PARTS if not isinstance(document.get(name), list)]
    return f"{place.path} looks like a COCO file, but has no list {' and '.join(map(repr, absent))}. Export it again."


COCO = Kind(
    name="a COCO file",
    words="a COCO file (.json)",
    found=_found,
    open=_open,
    missed=_missed,
    instead=lambda place: "name the COCO file",
    boxes=True,
)
