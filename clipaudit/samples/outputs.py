"""What clipaudit itself writes: recognised, so that it never becomes a source by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipaudit.remote import RemotePath

_FOLDERS = {"cache.json": "an embeddings cache", "run.json": "a run of clipaudit train"}
_METADATA = {
    b"clipaudit": "a clean index",
    b"clipaudit.model": "a part of an embeddings cache",
    b"clipaudit.plan": "the plan of an embeddings cache",
}
# By columns, for tables without metadata of ours and for those that lost it on their way through another tool.
_COLUMNS = {
    frozenset({"id", "label", "is_clean", "suggested_label"}): "a clean index",
    frozenset({"id", "label", "final_label", "action", "p_m"}): "the relabelled data set of a run",
    frozenset({"id", "predicted_label", "probability", "status"}): "predictions of clipaudit",
    frozenset({"id", "label", "label_true"}): "labels of clipaudit corrupt",
    frozenset({"path", "label", "label_true"}): "labels of clipaudit corrupt",
}


def own_folder(path: Path) -> str | None:
    """What a folder is in words, if clipaudit made it; links of an export look like any other folder."""
    try:
        if isinstance(path, RemotePath):
            names = {entry.name for entry in path.entries()}
            return next((kind for name, kind in _FOLDERS.items() if name in names), None)
        return next((kind for name, kind in _FOLDERS.items() if (path / name).is_file()), None)
    except OSError:
        return None  # Whoever lists it will say why that cannot be.


def own_table(schema: Any) -> str | None:
    """What a Parquet file with this Arrow schema is in words, if clipaudit wrote it."""
    metadata, columns = schema.metadata or {}, set(schema.names)
    by_metadata = (kind for key, kind in _METADATA.items() if key in metadata)
    # With the images in it, it is an export, which is as good a source as any.
    by_columns = (kind for needed, kind in _COLUMNS.items() if needed <= columns and "image" not in columns)
    return next(by_metadata, None) or next(by_columns, None)
