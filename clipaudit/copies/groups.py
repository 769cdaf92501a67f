"""Groups of images that are copies of each other, and whether their labels contradict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CopyGroups:
    """Which of n images are copies.

    Attributes:
        first: (n,) int64, the first row of the group that a row belongs to; of an image without copies its own.
        exact: (n,) int64, the first row of its exact copies.
    """

    first: Rows
    exact: Rows

    @property
    def near(self) -> NDArray[np.bool_]:
        """(n,) bool: of a group that not all members of are exact copies."""
        return np.asarray(np.bincount(self.first[self.exact != self.first], minlength=len(self.first))[self.first] > 0)

    @property
    def is_copy(self) -> NDArray[np.bool_]:
        """(n,) bool: the image has a copy."""
        return np.asarray(np.bincount(self.first, minlength=len(self.first))[self.first] > 1)

    def conflicting(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) bool: the copies of this image have different labels."""
        return contradicting(self.first, labels)


def contradicting(first: Rows, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) bool: rows of a group, named by its first row, in which not all have one label."""
    other = labels != labels[first]
    return np.asarray(np.bincount(first[other], minlength=len(first))[first] > 0)


def copy_groups(exact: Sequence[pa.ChunkedArray], near: Rows) -> CopyGroups:
    """Groups of copies.

    Args:
        exact: Columns of n hashes: rows with an equal one are exact copies; null equals nothing.
        near: (m, 2) pairs of rows that are near copies.
    """
    n = len(exact[0])
    pairs = [_equal_rows(column) for column in exact]
    same = _components(n, np.concatenate(pairs))
    return CopyGroups(_components(n, np.concatenate([*pairs, near])), same)


def _equal_rows(column: pa.ChunkedArray) -> Rows:
    """(m, 2) pairs of each row whose hash was seen before with the first row that has it."""
    codes = pc.fill_null(column.combine_chunks().dictionary_encode().indices, -1)
    first = first_rows(codes.to_numpy().astype(np.int64))
    pairs = np.stack([first, np.arange(len(first))], axis=1)
    return np.asarray(pairs[pairs[:, 0] != pairs[:, 1]])


def first_rows(groups: NDArray[np.int64]) -> Rows:
    """(n,) the first row of the same group, for the (n,) numbers of groups; a row of -1, in no group, its own."""
    first, grouped = np.arange(len(groups)), np.flatnonzero(groups >= 0)
    _, place, inverse = np.unique(groups[grouped], return_index=True, return_inverse=True)
    first[grouped] = grouped[place[inverse]]
    return first


def _components(n: int, pairs: Rows) -> Rows:
    """(n,) the first row that each row is connected with."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    result: Rows = first[component].astype(np.int64)
    return result


def overruled(first: Rows, labels: NDArray[np.int64], trust: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(n,) bool: samples whose copies contradict them, and whose label is not the one that is trusted most.

    Args:
        first: (n,) the first row of each row's group.
        labels: (n,) class indices.
        trust: (n,) how far each label is trusted, at least 0: the sum over a group's samples with a label decides, and
            between equal sums the label that comes first.
    """
    rows = np.flatnonzero(contradicting(first, labels))
    if not len(rows):
        return np.zeros(len(first), bool)
    keys = np.stack([first[rows], labels[rows]], axis=1)
    pairs, inverse = np.unique(keys, axis=0, return_inverse=True)
    total = np.bincount(inverse, weights=trust[rows])
    order = np.lexsort((-total, pairs[:, 0]))
    best = np.zeros(len(pairs), bool)
    best[order[np.unique(pairs[order, 0], return_index=True)[1]]] = True
    lost = np.zeros(len(first), bool)
    lost[rows[~best[inverse]]] = True
    return lost
