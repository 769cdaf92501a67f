"""Near copies: pairs of images whose embeddings and looks agree. The neighbours come from faiss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipaudit.copies.cells import ROWS_AT_ONCE, Cells, Vectors, faiss_module
from clipaudit.copies.hashes import differing_bits

# Both must agree. The embedding of a copy is much nearer than those of other images, which are the nearer the more
# alike all images are: its distance is at most this share of that to the NEIGHBOURS-th neighbour. And at most so
# many of the 64 bits of the looks differ.
NEARER, MAX_BITS = 0.4, 10
NEIGHBOURS = 16
# Above this share of usual neighbours that look alike, that is what the data set is about (digits, scans), and a look
# says nothing of copies.
MOST_ALIKE = 0.1
# Above so many images, only the nearest cells are searched.
EXACT_UP_TO = 20_000

Looks = NDArray[np.uint64]
Pairs = NDArray[np.int64]
NO_PAIRS: Pairs = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class NearCopies:
    """What is nearly the same.

    Attributes:
        pairs: (m, 2) rows that are near copies.
        alike: Share of the usual neighbours, which are no copies, that look alike all the same: where it is large, a
            look tells nothing.
    """

    pairs: Pairs
    alike: float

    @property
    def can_tell(self) -> bool:
        """Whether the pairs are copies, and not what all images are like."""
        return self.alike <= MOST_ALIKE


def near_copies(vectors: Vectors, looks: Looks) -> NearCopies:
    """Pairs of different rows, the smaller one first.

    Args:
        vectors: (n, d) float16 or float32 unit rows, which are not copied.
        looks: (n,) the difference hashes.
    """
    found = _candidates(vectors, looks, vectors, looks)
    rows, usual = found.pairs, found.usual
    near = (rows[:, 0] != rows[:, 1]) & (found.distance <= NEARER * usual[rows].min(axis=1))
    return NearCopies(np.unique(np.sort(rows[near], axis=1), axis=0), found.alike)


def near_copies_between(vectors: Vectors, looks: Looks, others: Vectors, other_looks: Looks) -> NearCopies:
    """Pairs of a row and a row of the others; the arguments as `near_copies` takes them."""
    found = _candidates(vectors, looks, others, other_looks)
    near = found.distance <= NEARER * found.usual[found.pairs[:, 0]]
    return NearCopies(found.pairs[near], found.alike)


@dataclass(frozen=True)
class _Candidates:
    """Near neighbours that look alike: (m, 2) rows, (m,) distances (1 - cosine); (n,) the usual one of each row."""

    pairs: Pairs
    distance: NDArray[np.float32]
    usual: NDArray[np.float32]
    alike: float


def _candidates(vectors: Vectors, looks: Looks, others: Vectors, other_looks: Looks) -> _Candidates:
    usual = np.zeros(len(vectors), np.float32)
    if not len(vectors) or len(others) <= NEIGHBOURS:
        return _Candidates(NO_PAIRS, np.zeros(0, np.float32), usual, 0.0)
    index, found, distances = (Cells if len(others) > EXACT_UP_TO else _Whole)(others), [], []
    n_usual = n_alike = 0
    for mine in index.together(vectors):
        # One more than wanted: among its own, an image is its own neighbour.
        cosine, rows = index.search(np.asarray(vectors[mine], np.float32), NEIGHBOURS + 1)
        distance = 1 - cosine
        usual[mine] = distance[:, -1]
        bits = differing_bits(np.repeat(looks[mine], NEIGHBOURS + 1), other_looks[rows.ravel()]).reshape(rows.shape)
        near = distance <= NEARER * distance[:, -1:]
        n_usual, n_alike = n_usual + int((~near).sum()), n_alike + int((~near & (bits <= MAX_BITS)).sum())
        place, neighbour = np.nonzero(near & (bits <= MAX_BITS) & (rows >= 0))
        found.append(np.stack([mine[place], rows[place, neighbour]], axis=1))
        distances.append(distance[place, neighbour])
    pairs, distance = np.concatenate(found).astype(np.int64), np.concatenate(distances)
    order = np.lexsort(pairs.T[::-1])
    return _Candidates(pairs[order], distance[order], usual, n_alike / max(1, n_usual))


class _Whole:
    """Few vectors, each compared with each."""

    def __init__(self, vectors: Vectors) -> None:
        self._index = faiss_module().IndexFlatIP(vectors.shape[1])
        for rows in self.together(vectors):
            self._index.add(np.asarray(vectors[rows], np.float32))

    def together(self, queries: Vectors) -> Iterator[NDArray[np.int64]]:
        """Rows of the queries, few at once."""
        for start in range(0, len(queries), ROWS_AT_ONCE):
            yield np.arange(start, min(start + ROWS_AT_ONCE, len(queries)))

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(m, k) cosines, largest first, and rows."""
        cosine, rows = self._index.search(queries, k)
        return cosine, rows
