"""The most similar vectors, among many of them, found without a copy: only cells near a query are searched.

It is faiss's inverted file (its k-means draws the cells) over vectors that stay where they are. Queries come in the
order of their cells, so that those which look in the same cells are multiplied with these at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipaudit.errors import UsageError

# Queries, and vectors of a cell, that are multiplied at once.
ROWS_AT_ONCE, MEMBERS_AT_ONCE = 1 << 13, 1 << 9
# Cells grow with the square root of the number of vectors; so do the vectors that they are drawn by, up to a bound.
MOST_CELLS, TRAIN_ROWS_PER_CELL, MOST_TRAIN_ROWS, TRAIN_STEPS = 1 << 15, 50, 1 << 17, 5
PROBED_CELLS = 8

Rows = NDArray[np.int64]


class Vectors(Protocol):
    """(n, d) float16 or float32 unit rows: an array, or what looks the rows of one up."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        ...

    def __len__(self) -> int:
        """n."""
        ...

    def __getitem__(self, part: slice | Rows, /) -> NDArray[Any]:
        """(m, d) some of the rows."""
        ...


def has_faiss() -> bool:
    """Whether cells can be drawn here."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def faiss_module() -> Any:
    """faiss; UsageError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise UsageError("near copies need faiss: pip install 'clipaudit[copies]'") from None
    return faiss


class Cells:
    """Vectors by the cell that each one lies in; 12 bytes a vector."""

    def __init__(self, vectors: Vectors) -> None:
        """Draw the cells.

        Args:
            vectors: (n, d) float16 or float32 unit rows, which are looked up and not copied.
        """
        self._vectors = vectors
        self.n_cells = min(int(4 * np.sqrt(len(vectors))), MOST_CELLS)
        self._centres = _centres(vectors, self.n_cells)
        cells = self._cells_of(vectors)
        self._order: Rows = np.argsort(cells, kind="stable")
        self._starts = np.searchsorted(cells[self._order], np.arange(self.n_cells + 1))

    def together(self, queries: Vectors) -> Iterator[Rows]:
        """Rows of the queries, few at once, neighbours together."""
        own = queries is self._vectors
        order = self._order if own else np.argsort(self._cells_of(queries), kind="stable")
        for start in range(0, len(order), ROWS_AT_ONCE):
            yield order[start : start + ROWS_AT_ONCE]

    def search(
        self, queries: NDArray[np.float32], k: int, probed: int = PROBED_CELLS
    ) -> tuple[NDArray[np.float32], Rows]:
        """The most similar vectors in the cells near queries.

        Args:
            queries: (m, d) unit rows.
            k: How many are wanted.
            probed: How many cells are searched.

        Returns:
            (m, k) cosines, largest first, and rows; -inf and -1 where these cells hold fewer.
        """
        cosine = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        for cell, asking in self._asked(queries, probed):
            members = self._order[self._starts[cell] : self._starts[cell + 1]]
            for start in range(0, len(members), MEMBERS_AT_ONCE):
                some = members[start : start + MEMBERS_AT_ONCE]
                similar = queries[asking] @ np.asarray(self._vectors[some], np.float32).T
                found = np.concatenate([cosine[asking], similar], axis=1)
                best = np.argpartition(-found, k - 1, axis=1)[:, :k]
                names = np.concatenate([rows[asking], np.broadcast_to(some, similar.shape)], axis=1)
                cosine[asking], rows[asking] = (np.take_along_axis(part, best, 1) for part in (found, names))
        order = np.lexsort((rows, -cosine), axis=1)
        return np.take_along_axis(cosine, order, 1), np.take_along_axis(rows, order, 1)

    def _asked(self, queries: NDArray[np.float32], probed: int) -> Iterator[tuple[int, Rows]]:
        """Each cell that is near some of the (m, d) queries, and which ones."""
        _, near = self._centres.search(queries, min(probed, self.n_cells))
        by_cell = np.argsort(near, axis=None, kind="stable")
        cells, starts = np.unique(near.ravel()[by_cell], return_index=True)
        yield from zip(cells.tolist(), np.split(by_cell // near.shape[1], starts[1:]), strict=True)

    def _cells_of(self, vectors: Vectors) -> NDArray[np.int32]:
        """(n,) the cell of each vector."""
        cells = np.empty(len(vectors), np.int32)
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            cells[part] = self._centres.search(np.asarray(vectors[part], np.float32), 1)[1][:, 0]
        return cells


def _centres(vectors: Vectors, n_cells: int) -> Any:
    """faiss's index of the centres of cells, by k-means on some of the vectors."""
    faiss, (n, dimension) = faiss_module(), vectors.shape
    n_rows = min(n, TRAIN_ROWS_PER_CELL * n_cells, MOST_TRAIN_ROWS)
    rows = np.sort(np.random.default_rng(0).choice(n, n_rows, replace=False, shuffle=False))
    parameters = faiss.ClusteringParameters()
    # All of these rows, however many or few they are for a cell.
    parameters.max_points_per_centroid, parameters.min_points_per_centroid = n, 1
    parameters.niter, parameters.spherical = TRAIN_STEPS, True
    centres = faiss.IndexFlatIP(dimension)
    faiss.Clustering(dimension, n_cells, parameters).train(np.asarray(vectors[rows], np.float32), centres)
    return centres
