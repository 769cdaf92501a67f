"""Label Studio's tasks with predictions: the suggested labels, the most doubtful first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clipaudit.exports.base import Format, most_doubtful_first, refuse_all_but, rounded, rows, write_json_lines
from clipaudit.index.check import P_WRONG
from clipaudit.index.clean_index import CleanIndex
from clipaudit.remote import is_remote, joined, to_path
from clipaudit.samples.base import FILES
from clipaudit.samples.label_studio import KEY

# The names of the tags in Label Studio's own template of image classification.
_CHOICES, _IMAGE = "choice", "image"
_COLUMNS = ("id", "label", "is_clean", "clean_score", P_WRONG, "suggested_label", "suggested_probability")


def _write(index: CleanIndex, path: Path) -> list[str]:
    refuse_all_but(index, path, [FILES], "Export .jsonl, or boxes as coco or cvat.")
    write_json_lines(path, "[", _tasks(index), "\n]\n")
    return []


def _tasks(index: CleanIndex) -> Iterator[dict[str, Any]]:
    root = to_path(index.metadata.root)
    for row in rows(index, _COLUMNS, most_doubtful_first(index)):
        served = f"/data/local-files/?d={quote(row['id'].lstrip('/'))}"
        scores = {name: rounded(row[name]) for name in ("clean_score", P_WRONG)}
        data = {
            "image": str(joined(root, row["id"])) if is_remote(root) else served,
            KEY: row["id"],
            "label": row["label"],
            "is_clean": row["is_clean"],
            **scores,
        }
        yield {"data": data, "predictions": [_prediction(row)] if row["suggested_label"] is not None else []}


def _prediction(row: dict[str, Any]) -> dict[str, Any]:
    chosen = {"choices": [row["suggested_label"]]}
    return {
        "model_version": "clipaudit",
        "score": rounded(row["suggested_probability"]),
        "result": [{"from_name": _CHOICES, "to_name": _IMAGE, "type": "choices", "value": chosen}],
    }


LABEL_STUDIO = Format("label-studio", ".json", "tasks with predictions", _write, told=False)
