"""Vectors from elsewhere as a source: ids and labels as any other has, and the vectors in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipaudit.errors import ImageError, SourceError
from clipaudit.samples.base import FILES, NOT_OPENED, Sample, SourceOptions, UniqueIds, read_file
from clipaudit.samples.labels import LabelReader, label_notes
from clipaudit.text import excerpt
from clipaudit.vectors.files import VectorFile
from clipaudit.vectors.rows import unit_rows

# In place of a label where the vectors came without: no class can have this name.
NO_LABEL = ""
FILES_SHOWN = 3


@dataclass(frozen=True)
class VectorFacts:
    """What a look at all vectors has shown.

    Attributes:
        content: A hash of all of them, in their order, in half precision.
        n: How many there are.
        n_scaled: How many had another length than 1.
        stride: Every so many-th one, from the first, is kept in `tried`.
        tried: (m, d) float32 unit rows.
    """

    content: str
    n: int
    n_scaled: int
    stride: int
    tried: NDArray[np.float32]


class VectorSource:
    """Files of vectors in their order; see `clipaudit.samples.Source`. The images may be anywhere, or nowhere."""

    def __init__(self, files: Sequence[VectorFile], location: Path, options: SourceOptions) -> None:
        """Refuse files that cannot be one data set.

        Args:
            files: One or more.
            location: What the user named, absolute.
            options: What its labels mean.
        """
        self.location, self.root = location, files[0].path.resolve().parent
        self.access, self.image_column = FILES, None
        self._files = list(files)
        self.dimension = files[0].vectors.dimension
        self._refuse_differences()
        self._names = options.names or files[0].label_names
        self.class_names: Sequence[str] | None = self._names
        self._labels = LabelReader(self._names)

    @property
    def n_rows(self) -> int:
        """Number of vectors that the files promise."""
        return sum(file.vectors.n_rows for file in self._files)

    @property
    def has_labels(self) -> bool:
        """Whether there is a column of labels."""
        return self._files[0].label_column is not None

    def _refuse_differences(self) -> None:
        first = self._files[0]
        for file in self._files[1:]:
            if file.vectors.dimension != self.dimension:
                raise SourceError(
                    f"{file.where(0)}: the vector has {file.vectors.dimension:,} numbers, those of {first.path.name}"
                    f" have {self.dimension:,}. All must have the same number."
                )
            for role, mine, its in (
                ("ids", file.id_column, first.id_column),
                ("labels", file.label_column, first.label_column),
            ):
                if mine != its:
                    raise SourceError(
                        f"{file.table or file.path} has {_column(mine)} of {role}, {first.path.name} has"
                        f" {_column(its)}. Give all files the same columns."
                    )
            if file.label_names != first.label_names:
                raise SourceError(
                    f"{file.path} and {first.path.name} do not number their classes alike. Write the class names"
                    " themselves into the column of labels."
                )
        if repeated := [name for name, count in Counter(file.path.name for file in self._files).items() if count > 1]:
            raise SourceError(f"two files of vectors have the name {repeated[0]}. Rename one of them.")

    def samples(self) -> Iterator[Sample]:
        """Id and label of every vector; raises SourceError for a bad row, and for an id that comes twice."""
        unique = UniqueIds()
        self._labels = LabelReader(self._names)
        for file in self._files:
            for sample_id, label in file.rows(self._labels):
                unique.add(sample_id)
                yield Sample(sample_id, label, -1, 0)
        if repetition := unique.first_repetition():
            (first, _), (second, text) = (self._place(position) for position in repetition)
            raise SourceError(
                f"{second}: the id {excerpt(text)} stands in {first} already. Keep one row an image, or name a column"
                " of other ids with --path-column."
            )

    def _place(self, position: int) -> tuple[str, str]:
        """File and row of a vector, and its id, by its place among all."""
        for file in self._files:
            if position < file.vectors.n_rows:
                text, _ = next(islice(file.rows(LabelReader(self._names)), position, None))
                return file.where(position), text
            position -= file.vectors.n_rows
        raise IndexError(position)

    def batches(self) -> Iterator[tuple[NDArray[np.float32], int]]:
        """(m, d) unit rows, and how many of them had another length; SourceError naming file and row of a bad one."""
        for file in self._files:
            for first, values in file.vectors.batches():
                yield unit_rows(values, file.where, first)

    def survey(self, report: Callable[[int], None], stride: int) -> VectorFacts:
        """Look at all vectors, and keep one of `stride`; `report` is called with how many were looked at."""
        digest, n, n_scaled, tried = blake2b(digest_size=16), 0, 0, []
        for rows, scaled in self.batches():
            digest.update(rows.astype(np.float16).tobytes())
            # A copy, as a view would keep the whole batch.
            tried.append(rows[-n % stride :: stride].copy())
            n, n_scaled = n + len(rows), n_scaled + scaled
            report(n)
        if not n:
            raise SourceError(f"{self.location} holds no vectors.")
        return VectorFacts(digest.hexdigest(), n, n_scaled, stride, np.concatenate(tried))

    def read(self, sample_id: str) -> bytes:
        """The bytes of an image whose id is a path; ImageError where there is none."""
        try:
            return read_file(self.root / sample_id)
        except ValueError:
            raise ImageError(f"{NOT_OPENED}: the id is no path") from None

    def decided(self) -> dict[str, str]:
        """Which files and columns are read."""
        first, names = self._files[0], [file.path.name for file in self._files]
        shown = ", ".join(names[:FILES_SHOWN]) + (", ..." if len(names) > FILES_SHOWN else "")
        return {
            "source": f"vectors that were computed elsewhere, in {len(names):,} file(s) in {self.root}: {shown}",
            "vectors": f"{first.vectors.said}, {self.dimension:,} numbers each",
            "ids": "file and row, as there is no column of ids"
            if first.id_column is None
            else _column(first.id_column),
            "labels": _column(first.label_column) if self.has_labels else "none: name them with select --labels",
        }

    def notes(self) -> list[str]:
        """Labels that may not be meant."""
        return label_notes([self._labels])


def _column(name: str | None) -> str:
    return "no column" if name is None else f"column {name!r}"
