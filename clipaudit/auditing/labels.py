"""The labels that an audit is about: the source's own, other ones from a file, or a list; as class indices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clipaudit.auditing.plausibility import row_order_warning
from clipaudit.cache.embeddings import Embeddings
from clipaudit.errors import SourceError, UsageError
from clipaudit.remote import to_path
from clipaudit.samples.labels import ROW_ORDER, LabelReader, read_column
from clipaudit.samples.names import checked_names

CLASSES_LISTED = 3


@dataclass(frozen=True)
class AuditedLabels:
    """The labels of n samples.

    Attributes:
        class_names: K names.
        indices: (n,) int64 in [0, K).
        declared: The names and their order come from the source or the user, not from the labels.
        spec: The file and column that they come from, as the user wrote it; None for the source's own and for a list.
        origin: Where they come from, in words; empty for the source's own.
        warnings: What is odd about how they were matched.
    """

    class_names: list[str]
    indices: NDArray[np.int64]
    declared: bool
    spec: str | None = None
    origin: str = ""
    warnings: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Samples of each class that has any."""
        sizes = np.bincount(self.indices, minlength=len(self.class_names)).tolist()
        return {name: size for name, size in zip(self.class_names, sizes, strict=True) if size}


def audited_labels(
    embeddings: Embeddings, labels: str | Path | Iterable[Any] | None, names: Sequence[str] | None
) -> AuditedLabels:
    """The labels to audit.

    Args:
        embeddings: The cache.
        labels: `FILE[:COLUMN]`, or one label a sample (a class name or index); None takes the source's own.
        names: Class names by index, where labels are indices; None takes those that the source declares, if it does.

    Raises:
        SourceError: a label or name that is missing or no class, labels that do not fit the samples, fewer than two
            classes.
        UsageError: labels of a kind that is not read.
    """
    declared = checked_names(names) if names is not None else embeddings.info.class_names
    spec, origin, warnings = None, "", []
    if labels is None:
        values = _own_labels(embeddings, names and declared)
    elif isinstance(labels, str | Path):
        ids = embeddings.table["id"].to_pylist()
        column = read_column(labels, ids, to_path(embeddings.info.root), names=declared)
        values, spec = pa.array(column.values), str(labels)
        origin, warnings = column.said, [*column.notes]
        if column.matched_by == ROW_ORDER:
            warnings.append(row_order_warning(f"the labels of {labels}"))
    else:
        values, origin = _listed_labels(labels, len(embeddings.table), declared), "a list, one label a sample"
    present = sorted(values.unique().to_pylist())
    class_names = list(declared) if declared and set(present) <= set(declared) else present
    indices = np.asarray(pc.index_in(values, pa.array(class_names)).to_numpy(zero_copy_only=False), np.int64)
    _refuse_too_little(embeddings, class_names, indices)
    return AuditedLabels(class_names, indices, class_names == list(declared or ()), spec, origin, warnings)


def listed_classes(names: Sequence[str]) -> str:
    """The number of classes and the first names: "10: airplane, automobile, bird, ..."."""
    return f"{len(names):,}: {', '.join(names[:CLASSES_LISTED])}{', ...' if len(names) > CLASSES_LISTED else ''}"


def _own_labels(embeddings: Embeddings, names: Sequence[str] | None) -> pa.ChunkedArray:
    values = embeddings.table["label"]
    if pc.any(pc.equal(values, "")).as_py():
        raise SourceError(
            f"{embeddings.info.source} came without labels. Name a file of them, with a row an id: --labels FILE or"
            " FILE:COLUMN (in Python labels=, also a list)."
        )
    if not names:
        return values
    distinct, reader = values.unique(), LabelReader(names)
    numbers, mapped = pc.index_in(values, distinct), []
    for number, label in enumerate(distinct.to_pylist()):
        first = embeddings.table["id"][pc.index(numbers, number).as_py()]
        mapped.append(reader.read(label, f"{embeddings.info.source}, {first}"))
    return pa.array(mapped).take(numbers)


def _listed_labels(labels: object, n: int, names: Sequence[str] | None) -> pa.Array:
    listed = _as_list(labels)
    if listed is None:
        raise UsageError(
            "labels must be a table (FILE or FILE:COLUMN) or a list with one label a sample, not"
            f" {type(labels).__name__}."
        )
    if len(listed) != n:
        raise SourceError(f"there are {len(listed):,} labels for {n:,} samples. Give one a sample.")
    reader = LabelReader(names)
    return pa.array(
        reader.read(label.item() if isinstance(label, np.generic) else label, f"label {place:,} of the list")
        for place, label in enumerate(listed)
    )


def _as_list(values: object) -> list[Any] | None:
    """What a list, an array or a tensor holds, in its order; None where it is no sequence of values."""
    if isinstance(values, str | bytes | bytearray | Mapping | Set):
        return None
    # Of arrays and tensors, plain numbers; of one without dimensions, no list.
    listed = values.tolist() if hasattr(values, "tolist") else list(values) if isinstance(values, Iterable) else None
    return listed if isinstance(listed, list) else None


def _refuse_too_little(embeddings: Embeddings, class_names: Sequence[str], indices: NDArray[np.int64]) -> None:
    """An audit compares classes: it needs images, and two classes that have some."""
    if not embeddings.readable.any():
        raise SourceError(
            f"no image of {embeddings.info.source} could be read. See the reasons with:"
            f" clipaudit embed {embeddings.info.source}"
        )
    held = np.unique(indices[embeddings.readable])
    if len(held) < 2:
        which = "images" if embeddings.readable.all() else "images that can be read"
        raise SourceError(f"all {which} have the label {class_names[held[0]]!r}. An audit needs at least two classes.")
