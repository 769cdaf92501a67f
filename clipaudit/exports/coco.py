"""COCO: an annotation a sample, with its box where it is one; what the audit says is in the field `attributes`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipaudit.exports.base import Format, write_json_lines
from clipaudit.exports.grouped import images, remarks
from clipaudit.index.clean_index import CleanIndex


def _write(index: CleanIndex, path: Path) -> list[str]:
    # An error has to come before anything is written.
    found = [(name, parts) for name, parts in images(index, path)]
    listed = [{"id": number, "file_name": name} for number, (name, _) in enumerate(found, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(index.class_names, 1)]
    numbers = {name: number for number, name in enumerate(index.class_names, 1)}

    def annotations() -> Iterator[dict[str, Any]]:
        every = ((number, box, row) for number, (_, parts) in enumerate(found, 1) for box, row in parts)
        for key, (number, box, row) in enumerate(every, 1):
            annotation = {"id": key, "image_id": number, "category_id": numbers[row["label"]], "iscrowd": 0}
            place = {} if box is None else {"bbox": list(box), "area": box[2] * box[3]}
            yield {**annotation, **place, "attributes": remarks(row)}

    start = f'{{"info": {{"description": "clipaudit"}}, "images": {json.dumps(listed, ensure_ascii=False)}'
    start += f', "categories": {json.dumps(categories, ensure_ascii=False)}, "annotations": ['
    write_json_lines(path, start, annotations(), "\n]}\n")
    return []


COCO = Format("coco", ".json", "images, annotations and categories", _write, told=False)
