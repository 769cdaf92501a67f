"""CVAT for images 1.1: an XML file in which tags label an image, and boxes parts of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import cos, radians, sin
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.samples.annotations import Annotated, AnnotationSource, Listing, PassedOver, image_path
from clipaudit.samples.crops import Box, number
from clipaudit.samples.documents import Element, xml_elements
from clipaudit.samples.place import Kind, Place

_ROOT, _IMAGE, _TAG, _BOX = "annotations", "image", "tag", "box"


@dataclass
class _Image:
    where: str
    path: str
    labels: dict[object, None] = field(default_factory=dict)
    boxes: list[Box] = field(default_factory=list)


def cvat_images(path: Path, passed: PassedOver) -> Iterator[Annotated]:
    """All images of a file, streamed.

    Raises:
        SourceError: it is no XML of CVAT for images, or something in it is missing; the message names the line.
    """
    image: _Image | None = None
    for element in xml_elements(path):
        where = f"{path}, line {element.line}"
        if element.depth == 1 and element.name == "track":
            raise SourceError(f"{where}: the file is of CVAT for video. Export it as 'CVAT for images 1.1'.")
        if element.depth == 1 and element.name == _IMAGE:
            if element.attributes is not None:
                image = _Image(where, image_path(element.attributes.get("name"), where))
            elif image is not None:
                yield Annotated(image.where, image.path, tuple(image.labels), tuple(image.boxes))
                image = None
        elif image is not None and element.depth == 2 and element.attributes is not None:
            _add(image, element.name, element.attributes, where, passed)


def _add(image: _Image, name: str, attributes: Mapping[str, str], where: str, passed: PassedOver) -> None:
    """One thing in an image."""
    if name not in (_TAG, _BOX):
        passed.add(f"shape(s) of the kind {name!r:.40} passed over", where)
        return
    label = attributes.get("label", "").strip()
    if not label:
        raise SourceError(f"{where}: a {name} has no label. Give it one, or remove it.")
    if name == _TAG:
        image.labels[label] = None
        return
    left, top, right, bottom = (number(attributes.get(edge), edge, where) for edge in ("xtl", "ytl", "xbr", "ybr"))
    turn = radians(number(attributes.get("rotation") or 0, "rotation", where))
    # CVAT turns a box about its centre; what is around the turned one is upright again.
    width, height = right - left, bottom - top
    across = abs(width * cos(turn)) + abs(height * sin(turn)) - width
    down = abs(width * sin(turn)) + abs(height * cos(turn)) - height
    edges = (left - across / 2, top - down / 2, right + across / 2, bottom + down / 2)
    image.boxes.append(Box.between(*edges, label))


def _first(place: Place) -> Element | None:
    return next(xml_elements(place.path), None) if place.suffix == ".xml" else None


def _found(place: Place) -> str | None:
    first = _first(place)
    return "annotations, as CVAT exports them" if first is not None and first.name == _ROOT else None


def _open(place: Place) -> AnnotationSource:
    root = place.path.resolve().parent
    listing = Listing(place.path, "CVAT file", root, lambda passed: cvat_images(place.path, passed), ("images", "data"))
    return AnnotationSource(listing, place.options)


def _missed(place: Place) -> str | None:
    if (first := _first(place)) is None:
        return None
    return (
        f"{place.path} begins with <{first.name:.40}>, not with <annotations> as files of CVAT for images do. Export it"
        " as 'CVAT for images 1.1'."
    )


CVAT = Kind(
    name="a CVAT file",
    words="a file of CVAT for images (.xml)",
    found=_found,
    open=_open,
    missed=_missed,
    instead=lambda place: "name the CVAT file",
    boxes=True,
)
