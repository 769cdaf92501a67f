"""Columns that come from elsewhere (other labels, the truth) and class names, matched to the samples of an audit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.samples.base import label_name, relative_id
from clipaudit.samples.tables import LABEL_COLUMNS, PATH_COLUMNS, pick_column, table_columns, table_rows


@dataclass(frozen=True)
class Column:
    """One value a sample, in the samples' order, and how the rows were matched ("path" or "row order")."""

    values: list[str]
    name: str
    matched_by: str


def read_column(
    spec: str | Path,
    ids: Sequence[str],
    root: Path,
    *,
    usual: Sequence[str] = LABEL_COLUMNS,
    names: Sequence[str] | None = None,
) -> Column:
    """Labels from `FILE[:COLUMN]`, one for each sample.

    A file with a path column is matched by path, and may hold more rows than there are samples; one without must have
    one row a sample, in the same order.

    Args:
        spec: The file (CSV, TSV, JSONL, Parquet), with the column's name behind a colon where it is not a usual one.
        ids: Sample ids, relative to `root`.
        usual: Column names to look for where none is given.
        names: Class names, where the labels are class indices.

    Raises:
        SourceError: no such file or column, a missing label, a sample without a row.
    """
    path, wanted = _split_spec(str(spec))
    columns = table_columns(path)
    label_column = pick_column(path, columns, wanted, usual, "label")
    path_column = next((name for name in columns if name.lower() in PATH_COLUMNS and name != label_column), None)
    folder, known = path.resolve().parent, frozenset(names or ())
    by_id: dict[str, str] = {}
    in_order: list[str] = []
    for where, row in table_rows(path, [name for name in (path_column, label_column) if name]):
        label = label_name(row[label_column], names, known, where)
        in_order.append(label)
        if path_column and isinstance(row[path_column], str):
            by_id[relative_id(folder, row[path_column])] = label
            by_id.setdefault(os.path.normpath(row[path_column]), label)
    if by_id:
        return Column(_match_by_path(path, by_id, ids, root), label_column, "path")
    if len(in_order) != len(ids):
        raise SourceError(
            f"{path} has {len(in_order):,} rows for {len(ids):,} images and no path column to match them by."
            " Add a path column, or give one row an image in the order of the source."
        )
    return Column(in_order, label_column, "row order")


def _match_by_path(path: Path, by_id: dict[str, str], ids: Sequence[str], root: Path) -> list[str]:
    folder = path.resolve().parent
    values = []
    for sample_id in ids:
        label = by_id.get(sample_id) or by_id.get(relative_id(folder, str(root / sample_id)))
        if label is None:
            raise SourceError(f"{path} has no row for {sample_id}. Every image needs one.")
        values.append(label)
    return values


def _split_spec(spec: str) -> tuple[Path, str | None]:
    file, colon, column = spec.rpartition(":")
    if colon and not Path(spec).exists() and Path(file).exists():
        return Path(file), column
    if not Path(spec).exists():
        raise SourceError(f"{spec} does not exist. Give a table as FILE or FILE:COLUMN.")
    return Path(spec), None


def read_names(path: str | Path) -> list[str]:
    """Class names by class index: a text file with one name a line, or JSON (a list, or an object {"0": name}).

    Raises:
        SourceError: the file cannot be read, a name comes twice, or an index is missing.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
        if isinstance(content, dict):
            content = [content[str(index)] for index in range(len(content))]
        names = [str(name).strip() for name in content]
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise SourceError(f"{path} is not a list of class names: {error}.") from None
    except KeyError as error:
        raise SourceError(
            f"{path}: there is no class name for index {error}. Number the classes 0, 1, 2, ..."
        ) from None
    if names and not names[-1]:
        names.pop()
    for index, name in enumerate(names):
        if not name:
            raise SourceError(f"{path}, line {index + 1}: the class name is empty.")
        if name in names[:index]:
            raise SourceError(f"{path}, line {index + 1}: class {name!r} comes twice.")
    if not names:
        raise SourceError(f"{path} holds no class names.")
    return names
