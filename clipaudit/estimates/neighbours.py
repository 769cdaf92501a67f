"""P(y|x) from the labels of the nearest neighbours in embedding space (the paper's other choice, Fig. 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from clipaudit.estimates.problem import Problem
from clipaudit.estimates.vectors import Vectors


class Neighbours:
    """The share of each label among the k most similar other samples, with one vote spread over all classes.

    P(k|x) = (votes for k + 1/K) / (k_neighbours + 1), so that no probability is zero and no loss infinite. The search
    is exact: its time grows with the square of the number of samples.
    """

    converged = True

    def __init__(self, vectors: Vectors, labels: Tensor, n_classes: int, k_neighbours: int) -> None:
        """Keep the reference samples.

        Args:
            vectors: n unit rows of d dimensions.
            labels: (n,) int64 in [0, n_classes).
            n_classes: K.
            k_neighbours: Number of neighbours; at most n - 1 are used.
        """
        self._vectors, self._labels, self._n_classes = vectors, labels, n_classes
        self._k = max(1, min(k_neighbours, len(vectors) - 1))

    @property
    def row_bytes(self) -> int:
        """Temporary memory for one row, in bytes: the similarities to a block of references."""
        return 8 * max(self._block, self._n_classes)

    @property
    def _block(self) -> int:
        return max(self._k + 1, 1 << 14)

    def log_proba(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(m, d) float32 unit rows to (m, K) float32 log P(k|x); see Estimator. A sample has no vote on itself."""
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
        votes = embeddings.new_zeros(m, self._n_classes)
        votes.scatter_add_(1, self._labels[nearest], torch.ones_like(best))
        return ((votes + 1 / self._n_classes) / (self._k + 1)).log()


def fit(problem: Problem) -> Neighbours:
    """All samples have a vote, in every round."""
    return Neighbours(problem.vectors, problem.labels, problem.n_classes, problem.config.neighbours)
