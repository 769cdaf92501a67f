"""Near copies: pairs of images whose embeddings and looks agree. The neighbours come from faiss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.copies.hashes import differing_bits
from clipaudit.errors import UsageError

# Both must agree. The embedding of a copy is much nearer than those of other images, which are the nearer the more
# alike all images are: its distance is at most this share of that to the NEIGHBOURS-th neighbour. And at most so
# many of the 64 bits of the looks differ.
NEARER, MAX_BITS = 0.4, 10
NEIGHBOURS = 16
# Above so many images, only some cells of an index are searched.
EXACT_UP_TO = 20_000
ROWS_AT_ONCE = 1 << 14
TRAIN_ROWS_PER_CELL, PROBED_CELLS = 50, 8

Vectors = NDArray[np.floating]
Looks = NDArray[np.uint64]
Pairs = NDArray[np.int64]
NO_PAIRS: Pairs = np.zeros((0, 2), np.int64)


def has_faiss() -> bool:
    """Whether near copies can be found here."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def near_copies(vectors: Vectors, looks: Looks) -> Pairs:
    """(m, 2) pairs of different rows that are near copies, the smaller row first.

    Args:
        vectors: (n, d) float16 or float32 unit rows.
        looks: (n,) the difference hashes.
    """
    pairs, distance, usual = _candidates(vectors, looks, vectors, looks)
    near = (pairs[:, 0] != pairs[:, 1]) & (distance <= NEARER * usual[pairs].min(axis=1))
    return np.unique(np.sort(pairs[near], axis=1), axis=0)


def near_copies_between(vectors: Vectors, looks: Looks, others: Vectors, other_looks: Looks) -> Pairs:
    """(m, 2) pairs of a row and a row of the others that are near copies; the arguments as `near_copies` takes them."""
    pairs, distance, usual = _candidates(vectors, looks, others, other_looks)
    return pairs[distance <= NEARER * usual[pairs[:, 0]]]


def _candidates(
    vectors: Vectors, looks: Looks, others: Vectors, other_looks: Looks
) -> tuple[Pairs, NDArray[np.float32], NDArray[np.float32]]:
    """Neighbours that look alike: (m, 2) pairs, (m,) distances (1 - cosine), and (n,) the usual one of each row."""
    if not len(vectors) or len(others) <= NEIGHBOURS:
        return NO_PAIRS, np.zeros(0, np.float32), np.zeros(len(vectors), np.float32)
    index, found, distances = _index(others), [], []
    usual = np.empty(len(vectors), np.float32)
    for start, chunk in _chunks(vectors):
        # One more than wanted: among its own, an image is its own neighbour.
        cosine, rows = index.search(chunk, NEIGHBOURS + 1)
        usual[start : start + len(chunk)] = 1 - cosine[:, -1]
        mine, place = np.nonzero((1 - cosine <= NEARER * (1 - cosine[:, -1:])) & (rows >= 0))
        theirs, distance = rows[mine, place], 1 - cosine[mine, place]
        alike = differing_bits(looks[mine + start], other_looks[theirs]) <= MAX_BITS
        found.append(np.stack([mine + start, theirs], axis=1)[alike])
        distances.append(distance[alike])
    return np.concatenate(found).astype(np.int64), np.concatenate(distances), usual


def _index(vectors: Vectors) -> Any:
    """All vectors: searched one by one where they are few, by cells where they are many."""
    try:
        import faiss
    except ImportError:
        raise UsageError("near copies need faiss: pip install 'clipaudit[copies]'") from None
    n, dimension = vectors.shape
    index: Any = faiss.IndexFlatIP(dimension)
    if n > EXACT_UP_TO:
        cells = int(4 * np.sqrt(n))
        index = faiss.IndexIVFScalarQuantizer(
            index, dimension, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        index.nprobe = PROBED_CELLS
        rows = np.sort(np.random.default_rng(0).permutation(n)[: TRAIN_ROWS_PER_CELL * cells])
        index.train(np.ascontiguousarray(vectors[rows], np.float32))
    for _, chunk in _chunks(vectors):
        index.add(chunk)
    return index


def _chunks(vectors: Vectors) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        yield start, np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE], np.float32)
