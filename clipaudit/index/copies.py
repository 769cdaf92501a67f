"""The copies of an index, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clipaudit.index.check import DUPLICATE_CONFLICT, DUPLICATE_GROUP, DUPLICATE_KIND, EXACT, NEAR


@dataclass(frozen=True)
class IndexCopies:
    """Which of the n samples of an index are copies.

    Attributes:
        group: (n,) int64, a number for each group of copies; -1 for an image without.
        near: (n,) bool, of a group that not all members of are exact copies.
        in_conflict: (n,) bool, the copies of this image had different labels when they were audited.
    """

    group: NDArray[np.int64]
    near: NDArray[np.bool_]
    in_conflict: NDArray[np.bool_]

    @property
    def n_samples(self) -> int:
        """Samples that have a copy."""
        return int((self.group >= 0).sum())

    @property
    def n_groups(self) -> int:
        """Groups of copies."""
        return int(self.group.max(initial=-1)) + 1

    @property
    def n_conflicts(self) -> int:
        """Groups with different labels."""
        return len(np.unique(self.group[self.in_conflict]))

    def size_of(self, row: int) -> int:
        """The number of copies of a sample that has some, itself included."""
        return int((self.group == self.group[row]).sum())

    def kind_of(self, row: int) -> str:
        """Whether a sample's copies are "exact" or "near"."""
        return NEAR if self.near[row] else EXACT

    def conflicts(self, groups: int, members: int) -> list[NDArray[np.int64]]:
        """The rows of the first groups with different labels, so many of each at most."""
        rows = np.flatnonzero(self.in_conflict)
        rows = rows[np.argsort(self.group[rows], kind="stable")]
        starts = np.flatnonzero(np.diff(self.group[rows], prepend=-1))
        return [part[:members] for part in np.split(rows, starts[1:])[:groups] if len(part)]


def copies_in(table: pa.Table) -> IndexCopies | None:
    """The copies in an index's table; None where nobody looked for them."""
    if DUPLICATE_GROUP not in table.column_names:
        return None
    groups = table[DUPLICATE_GROUP]
    numbers = pc.index_in(groups, groups.unique().drop_null())
    return IndexCopies(
        pc.fill_null(numbers, -1).to_numpy().astype(np.int64),
        np.asarray(pc.fill_null(pc.equal(table[DUPLICATE_KIND], NEAR), False).to_numpy()),
        np.asarray(pc.fill_null(table[DUPLICATE_CONFLICT], False).to_numpy()),
    )
