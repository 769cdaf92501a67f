"""FiftyOne's labels.json of a FiftyOneImageClassificationDataset, whose data folder is that of the images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from clipaudit.exports.base import Format, refuse_all_but, rows, write_json_lines
from clipaudit.exports.grouped import images, remarks
from clipaudit.index.clean_index import CleanIndex
from clipaudit.remote import joined, to_path
from clipaudit.samples.base import FILES


def _write(index: CleanIndex, path: Path) -> list[str]:
    refuse_all_but(index, path, [FILES], "Export .jsonl, or boxes as coco or cvat.")
    numbers = {name: number for number, name in enumerate(index.class_names)}
    shared = Counter(_stem(row["id"]) for row in rows(index, ["id"]))

    def labels() -> Iterator[str]:
        for name, ((_, row),) in images(index, path):
            # FiftyOne knows files by their names without endings; only an absolute path may have one.
            key = _stem(name) if shared[_stem(name)] == 1 else str(joined(to_path(index.metadata.root), name))
            target = {"label": numbers[row["label"]], "attributes": remarks(row)}
            yield f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(target, ensure_ascii=False)}"

    start = f'{{"classes": {json.dumps(index.class_names, ensure_ascii=False)}, "labels": {{'
    write_json_lines(path, start, labels(), "\n}}\n")
    return []


def _stem(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and stem and not stem.endswith("/") and "/" not in ending else name


FIFTYONE = Format("fiftyone", ".json", "labels.json of a classification data set", _write, told=False)
