"""A box in an image as a sample of its own: `photos/1.jpg#x,y,w,h`, in whole pixels of the upright picture."""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from dataclasses import replace
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from clipaudit.errors import ImageError, SourceError
from clipaudit.remote import joined
from clipaudit.samples.base import Sample, read_file
from clipaudit.text import excerpt

if TYPE_CHECKING:
    from PIL import Image

# No picture that is decoded has an edge of this length.
MAX_EDGE = 10_000_000
# Boxes of one image follow each other, and the decoding threads work on neighbouring ones.
CACHED_PICTURES, CACHED_PIXELS = 4, 12_000_000
_BOX = re.compile(r"([0-9]{1,8}),([0-9]{1,8}),([0-9]{1,8}),([0-9]{1,8})")


class Box(NamedTuple):
    """Whole pixels; `label` as the file has it."""

    x: int
    y: int
    width: int
    height: int
    label: object

    @classmethod
    def between(cls, left: float, top: float, right: float, bottom: float, label: object) -> Box:
        """The box with its edges at the nearest pixels, without what lies left of or above the image."""
        x, y = max(0, round(left)), max(0, round(top))
        return cls(x, y, max(0, round(right) - x), max(0, round(bottom) - y), label)

    @property
    def name(self) -> str:
        """What follows `#` in the id."""
        return f"{self.x},{self.y},{self.width},{self.height}"


def crop_of(sample: Sample, box: Box) -> Sample:
    """The sample of a box in the image of another sample."""
    return replace(sample, id=f"{sample.id}#{box.name}")


def parsed(sample_id: str) -> tuple[str, tuple[int, int, int, int]] | None:
    """The path and (x, y, width, height) of an id; None where it is that of no box."""
    path, _, text = sample_id.rpartition("#")
    found = _BOX.fullmatch(text)
    if not found or not path:
        return None
    x, y, width, height = map(int, found.groups())
    return path, (x, y, width, height)


def number(value: object, what: str, where: str) -> float:
    """A number of pixels or percent, that may be written as text.

    Raises:
        SourceError: it is none, or larger than any image.
    """
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else float("nan")
    except (ValueError, OverflowError):
        found = float("nan")
    if not isfinite(found) or abs(found) > MAX_EDGE:
        raise SourceError(f"{where}: {what} of a box is {excerpt(value)}, not a number of pixels. Correct it.")
    return found


class Crops:
    """The images of boxes, by their ids; safe to call from several threads."""

    def __init__(self, root: Path, image_column: str | None = None) -> None:
        self._root, self._lock = root, Lock()
        self._pictures: OrderedDict[str, Image.Image] = OrderedDict()

    def read(self, sample_id: str) -> bytes:
        """The part of the image that a box encloses, as PNG.

        Raises:
            ImageError: the image cannot be read, or the box encloses nothing of it.
        """
        if (found := parsed(sample_id)) is None:
            raise ImageError("the id names no box in an image")
        path, (x, y, width, height) = found
        picture = self._picture(path)
        right, bottom = min(x + width, picture.width), min(y + height, picture.height)
        if right <= x or bottom <= y:
            raise ImageError(
                f"the box encloses nothing of the image, which has {picture.width} x {picture.height} pixels"
            )
        buffer = io.BytesIO()
        # It is decoded again at once: speed counts, not size.
        picture.crop((x, y, right, bottom)).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def _picture(self, path: str) -> Image.Image:
        from clipaudit.images.decoding import decode

        with self._lock:
            if path in self._pictures:
                self._pictures.move_to_end(path)
                return self._pictures[path]
        # Two threads may both decode a picture the first time; either serves.
        picture = decode(read_file(joined(self._root, path)))
        if picture.width * picture.height <= CACHED_PIXELS:
            with self._lock:
                self._pictures[path] = picture
                while len(self._pictures) > CACHED_PICTURES:
                    self._pictures.popitem(last=False)
        return picture
