"""Files as labelling tools write them, for images that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

Labels = Mapping[str, str]
# An image and boxes in it: (label, x, y, width, height).
Boxes = Mapping[str, Sequence[tuple[str, float, float, float, float]]]


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def choice(*labels: str, **fields: Any) -> dict[str, Any]:
    """An annotation of Label Studio."""
    result = {"from_name": "class", "to_name": "image", "type": "choices", "value": {"choices": list(labels)}}
    return {"id": 1, "was_cancelled": False, "result": [result] if labels else [], **fields}


def task(number: int, image: str, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": number, "data": {"image": image, **data}, "annotations": list(annotations), "predictions": []}


def label_studio(path: Path, labels: Labels, address: str = "/data/local-files/?d=") -> Path:
    tasks = [task(number, f"{address}{name}", choice(label)) for number, (name, label) in enumerate(labels.items(), 1)]
    return write_json(path, tasks)


def rectangles(boxes: Sequence[tuple[str, float, float, float, float]], size: tuple[int, int]) -> dict[str, Any]:
    """An annotation of Label Studio with boxes, in percent of the image."""
    width, height = size
    results = [
        {
            "type": "rectanglelabels",
            "from_name": "box",
            "original_width": width,
            "original_height": height,
            "value": {
                "x": x / width * 100,
                "y": y / height * 100,
                "width": w / width * 100,
                "height": h / height * 100,
                "rotation": 0,
                "rectanglelabels": [label],
            },
        }
        for label, x, y, w, h in boxes
    ]
    return {"id": 1, "was_cancelled": False, "result": results}


def coco(path: Path, labels: Labels | None = None, boxes: Boxes | None = None) -> Path:
    given = {name: [(label, None)] for name, label in (labels or {}).items()}
    given |= {name: [(label, list(box)) for label, *box in found] for name, found in (boxes or {}).items()}
    names = sorted({label for found in given.values() for label, _ in found})
    annotations: list[dict[str, Any]] = []
    for number, found in enumerate(given.values()):
        for label, box in found:
            annotation = {"id": len(annotations), "image_id": number, "category_id": names.index(label) + 1}
            annotations.append(annotation | ({"bbox": box, "iscrowd": 0} if box else {}))
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(given)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }
    return write_json(path, content)


def cvat(path: Path, labels: Labels | None = None, boxes: Boxes | None = None) -> Path:
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "<version>1.1</version>"]
    for number, name in enumerate([*(labels or {}), *(boxes or {})]):
        lines.append(f'<image id="{number}" name={quoteattr(name)} width="28" height="28">')
        if labels and name in labels:
            lines.append(f'<tag label={quoteattr(labels[name])} source="manual"></tag>')
        for label, x, y, w, h in (boxes or {}).get(name, ()):
            edges = f'xtl="{x:.2f}" ytl="{y:.2f}" xbr="{x + w:.2f}" ybr="{y + h:.2f}"'
            lines.append(f'<box label={quoteattr(label)} source="manual" occluded="0" {edges} z_order="0"></box>')
        lines.append("</image>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "</annotations>"]), encoding="utf-8")
    return path


def fiftyone(path: Path, labels: Labels) -> Path:
    names = sorted(set(labels.values()))
    content = {
        "classes": names,
        "labels": {name.rpartition(".")[0]: names.index(label) for name, label in labels.items()},
    }
    return write_json(path, content)
