"""FiftyOne's FiftyOneImageClassificationDataset: labels.json with a label for each name of a file in data/."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clipaudit.errors import SourceError
from clipaudit.files import irregular
from clipaudit.samples.annotations import Annotated, AnnotationSource, Listing, PassedOver, image_path
from clipaudit.samples.base import IMAGE_SUFFIXES
from clipaudit.samples.documents import read_json
from clipaudit.samples.place import Kind, Place
from clipaudit.samples.values import is_missing, text_of
from clipaudit.spelling import tidy
from clipaudit.text import excerpt

_FILE, _FOLDER = "labels.json", "data"


class FiftyOneFile:
    """A labels.json that was read.

    Args:
        path: The file.
        document: What it says.
    """

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        self.path, self.root = path, path.resolve().parent
        self._labels: Mapping[str, Any] = document["labels"]
        self.class_names = self._classes(document.get("classes"))
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def _classes(self, found: object) -> list[str] | None:
        if found is None:
            return None
        if not isinstance(found, list):
            raise SourceError(f"{self.path}: 'classes' is {excerpt(found)}, not a list of names. Export it again.")
        where = f"{self.path}, 'classes'"
        names = [tidy(text_of(name, "name", where)) for name in found]
        if len(set(names)) < len(names) or not all(names):
            raise SourceError(f"{where}: a name is empty or comes twice. Give each class a name of its own.")
        return names or None

    def images(self, passed: PassedOver) -> Iterator[Annotated]:
        """All images that the file names."""
        for name, target in self._labels.items():
            where = f"{self.path}, {excerpt(name)}"
            label = self._label(target.get("label") if isinstance(target, dict) else target, where)
            path = self._file(image_path(name, where), where)
            yield Annotated(where, path, () if label is None else (label,))

    def _label(self, target: object, where: str) -> str | None:
        """The class that a target means: a number is always that of a class, whatever the classes are called."""
        if target is None or (isinstance(target, str) and is_missing(target)):
            return None
        names = self.class_names
        if isinstance(target, bool | list | dict) or (names is None and not isinstance(target, str | int)):
            raise SourceError(f"{where}: the label is {excerpt(target)}, not one class. Keep one label an image.")
        text = text_of(target, "label", where)
        if names is None or (isinstance(target, str) and tidy(text) in names):
            return text
        if not text.isdecimal() or len(text) > len(str(len(names))) or int(text) >= len(names):
            raise SourceError(f"{where}: the label is {excerpt(target)}, but there are {len(names):,} 'classes'.")
        return names[int(text)]

    def _file(self, name: str, where: str) -> str:
        """The path of the image that has a name without its ending; the name itself where there is none."""
        for folder in (self.root / _FOLDER, self.root):
            place = Path(os.path.normpath(folder / name))
            found = self._images_in(place.parent).get(place.name, [])
            if len(found) > 1:
                raise SourceError(f"{where}: it may be {' or '.join(found[:3])}. Write the name with its ending.")
            if found:
                return str((place.parent / found[0]).relative_to(self.root))
        return name

    def _images_in(self, folder: Path) -> dict[str, list[str]]:
        """The images in a folder by their names with and without endings; of folders below the root alone."""
        if folder not in self._listed:
            names: dict[str, list[str]] = {}
            try:
                files = sorted(file.name for file in folder.iterdir()) if folder.is_relative_to(self.root) else []
            except (OSError, ValueError):
                files = []  # Not there, or too long.
            for file in files:
                if Path(file).suffix.lower() in IMAGE_SUFFIXES:
                    names.setdefault(Path(file).stem, []).append(file)
            # A name with its ending means that file and no other.
            names |= {file: [file] for files_ in list(names.values()) for file in files_}
            self._listed[folder] = names
        return self._listed[folder]


def _place_of(place: Place) -> Path | None:
    """The file: what was named, or what is in the folder that was."""
    if place.form == "file":
        return place.path if place.suffix == ".json" else None
    file = place.path / _FILE
    try:
        is_ours = place.form == "folder" and (place.path / _FOLDER).is_dir() and irregular(file) is None
        return file if is_ours else None
    except OSError:
        return None


def _document(place: Place) -> tuple[Path, Mapping[str, Any]] | None:
    if (file := _place_of(place)) is None:
        return None
    document = place.json if place.form == "file" else read_json(file)
    is_ours = isinstance(document, dict) and isinstance(document.get("labels"), dict)
    return (file, document) if is_ours else None


def _found(place: Place) -> str | None:
    return "images and labels, as FiftyOne exports them" if _document(place) else None


def _open(place: Place) -> AnnotationSource:
    found = _document(place)
    if found is None:
        raise SourceError(f"{place.path} was changed meanwhile. Run again.")
    file = FiftyOneFile(*found)
    listing = Listing(file.path, "FiftyOne labels", file.root, file.images, class_names=file.class_names)
    return AnnotationSource(listing, place.options)


FIFTYONE = Kind(
    name="a FiftyOne data set",
    words=f"a FiftyOne data set ({_FILE} beside {_FOLDER}/)",
    found=_found,
    open=_open,
    missed=lambda place: None,
    instead=lambda place: f"name {_FILE}",
    certain=True,
)
