"""Label Studio's JSON export: tasks with annotations, whose choices label an image and whose rectangles are boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from math import cos, radians, sin
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from clipaudit.errors import SourceError
from clipaudit.samples import documents
from clipaudit.samples.annotations import Annotated, AnnotationSource, Listing, PassedOver, image_path
from clipaudit.samples.base import IMAGE_SUFFIXES, SourceOptions
from clipaudit.samples.crops import Box, number
from clipaudit.samples.documents import objects
from clipaudit.samples.locations import ADDRESS, SERVED, UPLOAD
from clipaudit.samples.place import Kind, Place
from clipaudit.text import excerpt, printable

# The field of a task's data with the id, in tasks that clipaudit exported.
KEY = "clipaudit_id"
FORM = "Label Studio export"
_IMAGE = "image"
_LOCAL, _UPLOADED = "/data/local-files", "/data/upload/"
_RECTANGLES = ("rectanglelabels", "rectangle")
# Tasks that are looked at to recognise a file.
_LOOKED_AT = 20
# Of a control tag; nobody types a longer one.
_LONGEST_NAME = 200
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


@dataclass
class Tasks:
    """The tasks of an export.

    Attributes:
        path: The file.
        tasks: What it holds.
        question: The control tag (`from_name`) whose choices are labels; None takes the only one.
        data: The field of a task's data with the image; None takes `image`, or the only one that names an image.
    """

    path: Path
    tasks: Sequence[Any]
    question: str | None = None
    data: str | None = None
    _asked: dict[str, str] = field(default_factory=dict)

    def images(self, passed: PassedOver) -> Iterator[Annotated]:
        """All tasks, with the choices of the most recent annotation that was not skipped."""
        self._asked.clear()
        for place, task in objects(self.tasks, "task", str(self.path)):
            known = task.get("id")
            where = f"{self.path}, task {known if isinstance(known, int) else f'number {place}'}"
            data = documents.field(task, "data", dict, where)
            path, origin = self._image(data, where)
            key = data.get(KEY)
            results = self._latest(task, where, passed)
            labels = self._choices(results, where, passed)
            boxes = tuple(_boxes(results, where, passed))
            yield Annotated(where, path, labels, boxes, origin, key if isinstance(key, str) else "")

    def _image(self, data: Mapping[str, Any], where: str) -> tuple[str, str]:
        names = [self.data] if self.data else [_IMAGE] if _IMAGE in data else list(filter(_names_image(data), data))
        if len(names) != 1 or names[0] not in data:
            raise SourceError(
                f"{where}: it is not clear which field of its data is the image ({', '.join(map(excerpt, data)):.200})."
                " Say which one: --path-column"
            )
        return _place(image_path(data[names[0]], where), where)

    def _latest(self, task: Mapping[str, Any], where: str, passed: PassedOver) -> list[dict[str, Any]]:
        """What the most recent annotation says; nothing where all were skipped, or there is none."""
        # Exports of Label Studio before version 1.0 call them completions.
        found = task.get("annotations", task.get("completions", []))
        if not isinstance(found, list):
            raise SourceError(f"{where}: its annotations are no list. Export the file again, as JSON.")
        annotations = [annotation for _, annotation in objects(found, "annotation", where)]
        live = [one for one in annotations if not (one.get("was_cancelled") or one.get("skipped"))]
        if not live:
            if annotations:
                passed.add("task(s) whose annotations were all skipped", where)
            return []
        results = [
            [result for _, result in objects(documents.field(one, "result", list, where), "result", where)]
            for one in live
        ]
        if len({repr(_said(result)) for result in results}) > 1:
            passed.add("task(s) with annotations that disagree, of which the most recent holds", where)
        return results[max(range(len(live)), key=lambda place: (_time(live[place]), place))]

    def _choices(self, results: Sequence[Mapping[str, Any]], where: str, passed: PassedOver) -> tuple[object, ...]:
        """The choices for the image as a whole."""
        labels: dict[object, None] = {}
        for result in results:
            kind = result.get("type")
            if kind != "choices":
                if kind not in _RECTANGLES:
                    passed.add(f"result(s) of the type {excerpt(kind)} passed over", where)
                continue
            value = documents.field(result, "value", dict, where)
            question = str(result.get("from_name"))[:_LONGEST_NAME]
            if "x" in value:
                passed.add("choice(s) for a region passed over", where)
            elif self.question is None or question == self.question:
                self._refuse_others(question, where)
                chosen = documents.field(value, "choices", list, where)
                labels |= dict.fromkeys(_text(choice, where) for choice in chosen)
        return tuple(labels)

    def _refuse_others(self, question: str, where: str) -> None:
        """Answers to two questions are not labels of the same classes."""
        self._asked.setdefault(question, where)
        if len(self._asked) > 1:
            first, *_, last = self._asked
            raise SourceError(
                f"{where}: there are choices for {excerpt(last)} here and for {excerpt(first)} in"
                f" {self._asked[first]}. Say which ones are the labels: --label-column {printable(first)}"
            )


def _said(results: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What an annotation says of the image, without the ids that differ in each one."""
    return sorted(repr((one.get("from_name"), one.get("value"))) for one in results)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SourceError(f"{where}: a choice is {excerpt(value)}, not the name of a class. Correct it.")
    return value


def _time(annotation: Mapping[str, Any]) -> datetime:
    """When an annotation was changed last; long ago where it does not say."""
    for name in ("updated_at", "created_at"):
        try:
            # Python 3.10 does not know the letter.
            time = datetime.fromisoformat(str(annotation.get(name)).replace("Z", "+00:00"))
        except ValueError:
            continue
        return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return _LONG_AGO


def _names_image(data: Mapping[str, Any]) -> Any:
    def names_image(name: str) -> bool:
        value = data[name]
        return (
            isinstance(value, str) and PurePosixPath(value.partition("?")[0] or value).suffix.lower() in IMAGE_SUFFIXES
        )

    return names_image


def _place(text: str, where: str) -> tuple[str, str]:
    """The path in an address of Label Studio, and what was taken off it."""
    if text.startswith("data:"):
        raise SourceError(f"{where}: the image lies in the JSON itself. Save it as a file, and name that.")
    try:
        parts = urlsplit(text)
    except ValueError:
        return text, ""
    if parts.path.rstrip("/").endswith(_LOCAL):
        found = unquote(text.partition("?")[2].partition("d=")[2]), SERVED
    elif _UPLOADED in parts.path:
        found = unquote(f"upload/{parts.path.partition(_UPLOADED)[2]}"), UPLOAD
    elif len(parts.scheme) > 1 and parts.netloc:
        found = unquote(parts.path.lstrip("/")), ADDRESS
    else:
        return text, ""
    return image_path(found[0], where), found[1]


def _boxes(results: Sequence[Mapping[str, Any]], where: str, passed: PassedOver) -> Iterator[Box]:
    for result in results:
        if result.get("type") not in _RECTANGLES:
            continue
        value = documents.field(result, "value", dict, where)
        labels = value.get("rectanglelabels") or []
        if not isinstance(labels, list) or len(labels) > 1:
            raise SourceError(f"{where}: a box has the labels {excerpt(labels)}. Keep one label a box.")
        if not labels:
            passed.add("box(es) without a label passed over", where)
            continue
        across, down = (
            number(result.get(f"original_{name}"), f"original_{name}", where) for name in ("width", "height")
        )
        x, y, width, height = (number(value.get(name), name, where) for name in ("x", "y", "width", "height"))
        turn = number(value.get("rotation") or 0, "rotation", where)
        left, top = x / 100 * across, y / 100 * down
        yield Box.between(
            *_upright(left, top, width / 100 * across, height / 100 * down, turn), _text(labels[0], where)
        )


def _upright(left: float, top: float, width: float, height: float, turn: float) -> tuple[float, float, float, float]:
    """The edges around a box that is turned about its first corner, in degrees clockwise."""
    c, s = cos(radians(turn)), sin(radians(turn))
    corners = [(u * c - v * s, u * s + v * c) for u in (0, width) for v in (0, height)]
    across, down = zip(*corners, strict=True)
    return left + min(across), top + min(down), left + max(across), top + max(down)


def has_tasks(document: object) -> bool:
    """Whether a JSON document is a list of Label Studio's tasks."""
    if not isinstance(document, list):
        return False
    return any(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in document[:_LOOKED_AT])


def _found(place: Place) -> str | None:
    return "tasks, as Label Studio exports them" if has_tasks(place.json) else None


def _open(place: Place) -> AnnotationSource:
    options: SourceOptions = place.options
    tasks = Tasks(place.path, place.json, options.label_column, options.path_column)
    listing = Listing(place.path, FORM, place.path.resolve().parent, tasks.images, ("images", "media"), entry="task")
    return AnnotationSource(listing, options)


def _missed(place: Place) -> str | None:
    if not isinstance(place.json, list):
        return None
    return (
        f"{place.path} is a list, but not of Label Studio's tasks: none has the field 'data'. Export as JSON, not as"
        " JSON-MIN."
    )


LABEL_STUDIO = Kind(
    name="a Label Studio export",
    words="a Label Studio export (.json)",
    found=_found,
    open=_open,
    missed=_missed,
    instead=lambda place: "name the export",
    boxes=True,
)
