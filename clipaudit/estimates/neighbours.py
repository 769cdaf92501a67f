"""P(y|x) from the labels of the nearest neighbours in embedding space (the paper's other choice, Fig. 4)."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipaudit.estimates.problem import Problem
from clipaudit.estimates.vectors import Vectors

# Above so many samples faiss, where it is installed, looks for neighbours in the nearest cells only: so many at least,
# and so many that they hold several times the neighbours that are wanted.
EXACT_UP_TO, PROBED_CELLS, CANDIDATES = 50_000, 32, 8


class Neighbours:
    """The share of each label among the k most similar other samples, with one vote spread over all classes.

    P(k|x) = (votes for k + 1/K) / (number of votes + 1), so that no probability is zero and no loss infinite. The
    search is exact, and its time grows with the square of the number of samples, unless the voters were found before.
    """

    converged = True

    def __init__(
        self,
        vectors: Vectors,
        labels: Tensor,
        n_classes: int,
        k_neighbours: int,
        voters: NDArray[np.int32] | None = None,
    ) -> None:
        """Keep the reference samples.

        Args:
            vectors: n unit rows of d dimensions.
            labels: (n,) int64 in [0, n_classes).
            n_classes: K.
            k_neighbours: Number of neighbours; at most n - 1 are used.
            voters: (n, k) rows of the neighbours of each sample, -1 for none; None looks for them when asked.
        """
        self._vectors, self._labels, self._n_classes = vectors, labels, n_classes
        self._k, self._voters = max(1, min(k_neighbours, len(vectors) - 1)), voters

    @property
    def row_bytes(self) -> int:
        """Temporary memory for one row, in bytes: the similarities to a block of references."""
        return 8 * max(self._block, self._n_classes)

    @property
    def _block(self) -> int:
        return self._k + 1 if self._voters is not None else max(self._k + 1, 1 << 14)

    def log_proba(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(m, d) float32 unit rows to (m, K) float32 log P(k|x); see Estimator. A sample has no vote on itself."""
        if self._voters is None:
            nearest = self._nearest(embeddings, rows)
        else:
            nearest = torch.from_numpy(self._voters[rows.cpu().numpy()]).to(rows)
        voting = (nearest >= 0).float()
        votes = embeddings.new_zeros(len(embeddings), self._n_classes)
        votes.scatter_add_(1, self._labels[nearest.clamp_min(0)], voting)
        return ((votes + 1 / self._n_classes) / (voting.sum(1, keepdim=True) + 1)).log()

    def _nearest(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(m, k) int64 the most similar other samples, by a comparison with all."""
        m = len(embeddings)
        best = embeddings.new_full((m, self._k), -torch.inf)
        nearest = rows.new_zeros(m, self._k)
        for part, block in self._vectors.chunks(self._block):
            similarity = embeddings @ block.T
            itself = (rows >= part.start) & (rows < part.stop)
            similarity[itself.nonzero().squeeze(1), rows[itself] - part.start] = -torch.inf
            candidates = torch.cat([best, similarity], 1)
            best, position = candidates.topk(self._k, 1)
            numbers = torch.cat([nearest, torch.arange(part.start, part.stop, device=rows.device).expand(m, -1)], 1)
            nearest = numbers.gather(1, position)
        return nearest


def fit(problem: Problem) -> Neighbours:
    """All samples have a vote, in every round."""
    vectors, k = problem.vectors, problem.config.neighbours
    voters = voters_by_cells(vectors, problem.labels.device, k) if by_cells(len(vectors)) else None
    return Neighbours(vectors, problem.labels, problem.n_classes, k, voters)


def by_cells(n: int) -> bool:
    """Whether the neighbours of n samples are looked for in the nearest cells only."""
    from clipaudit.copies.cells import has_faiss

    return n > EXACT_UP_TO and has_faiss()


def search_said(n: int) -> str:
    """How the neighbours of n samples are found, in words."""
    if by_cells(n):
        return "the most similar images in the nearest cells, by faiss"
    if n > EXACT_UP_TO:
        return "each image compared with each, as faiss is not installed; faster: pip install 'clipaudit[copies]'"
    return "each image compared with each"


def voters_by_cells(vectors: Vectors, device: torch.device, k: int) -> NDArray[np.int32]:
    """(n, k) the most similar other samples among those in the nearest cells; -1 where there are fewer.

    Args:
        vectors: n unit rows of d dimensions, which are not copied.
        device: Where their chunks come.
        k: Number of neighbours.
    """
    from clipaudit.copies.cells import Cells

    array = _LookedUp(vectors, device)
    cells, voters = Cells(array), np.empty((len(vectors), k), np.int32)
    probed = max(PROBED_CELLS, ceil(CANDIDATES * k * cells.n_cells / len(vectors)))
    for mine in cells.together(array):
        # One more than wanted: an image is its own neighbour.
        _, rows = cells.search(array[mine], k + 1, probed)
        itself = rows == mine[:, None]
        itself[~itself.any(axis=1), -1] = True
        voters[mine] = rows[~itself].reshape(len(mine), k)
    return voters


class _LookedUp:
    """Vectors as the array whose rows cells look up."""

    def __init__(self, vectors: Vectors, device: torch.device) -> None:
        self._vectors, self._device = vectors, device
        self.shape = (len(vectors), vectors.dimension)

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, part: slice | NDArray[np.int64]) -> NDArray[Any]:
        rows = np.arange(len(self))[part] if isinstance(part, slice) else part
        # Rows ascend where vectors are taken.
        order = np.argsort(rows, kind="stable")
        taken = self._vectors.take(torch.from_numpy(rows[order]).to(self._device)).cpu().numpy()
        result = np.empty_like(taken)
        result[order] = taken
        return result
