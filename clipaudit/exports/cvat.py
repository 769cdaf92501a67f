"""CVAT for images 1.1: a tag a sample, or its box; CVAT shows the suggestion where a label has such an attribute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape, quoteattr

from clipaudit.errors import UsageError
from clipaudit.exports.base import Format
from clipaudit.exports.grouped import images, remarks
from clipaudit.files import write_atomically
from clipaudit.index.clean_index import CleanIndex

# What XML 1.0 cannot hold, not even as a reference.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _write(index: CleanIndex, path: Path) -> list[str]:
    found = list(images(index, path))
    for text in (*index.class_names, *(name for name, _ in found)):
        if _NO_XML.search(text):
            raise UsageError(f"{path}: {text!r:.200} has a character that XML cannot hold. Export coco instead.")

    def write(file: BinaryIO) -> None:
        file.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        for number, (name, parts) in enumerate(found):
            file.write(f'  <image id="{number}" name={quoteattr(name)}>\n'.encode())
            file.writelines(line.encode() for part in parts for line in _part(*part))
            file.write(b"  </image>\n")
        file.write(b"</annotations>\n")

    write_atomically(path, write)
    return []


def _part(box: tuple[int, int, int, int] | None, row: dict[str, Any]) -> Iterator[str]:
    # "auto" becomes "semi-auto" in CVAT once a person changes it.
    said = f'label={quoteattr(row["label"])} source="auto"'
    name, place = "tag", ""
    if box is not None:
        x, y, width, height = box
        name = "box"
        place = f' occluded="0" xtl="{x}.00" ytl="{y}.00" xbr="{x + width}.00" ybr="{y + height}.00" z_order="0"'
    yield f"    <{name} {said}{place}>\n"
    for key, value in remarks(row).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        yield f"      <attribute name={quoteattr(key)}>{escape(text)}</attribute>\n"
    yield f"    </{name}>\n"


CVAT = Format("cvat", ".xml", "tags of images", _write)
