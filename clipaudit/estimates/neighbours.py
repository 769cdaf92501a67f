"""P(y|x) from the labels of the nearest neighbours in embedding space (the paper's other choice, Fig. 4)."""

from __future__ import annotations

import torch
from torch import Tensor


class Neighbours:
    """The share of each label among the k most similar other samples, with one vote spread over all classes.

    P(k|x) = (votes for k + 1/K) / (k_neighbours + 1), so that no probability is zero and no loss infinite. The search
    is exact: its time grows with the square of the number of samples.
    """

    def __init__(self, embeddings: Tensor, labels: Tensor, n_classes: int, k_neighbours: int) -> None:
        """Keep the reference samples.

        Args:
            embeddings: (n, d) float16 or float32 unit rows.
            labels: (n,) int64 in [0, n_classes).
            n_classes: K.
            k_neighbours: Number of neighbours; at most n - 1 are used.
        """
        self._embeddings, self._labels, self._n_classes = embeddings, labels, n_classes
        self._k = max(1, min(k_neighbours, len(embeddings) - 1))

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
        for start in range(0, len(self._embeddings), self._block):
            block = self._embeddings[start : start + self._block].float()
            similarity = embeddings @ block.T
            itself = (rows >= start) & (rows < start + len(block))
            similarity[itself.nonzero().squeeze(1), rows[itself] - start] = -torch.inf
            candidates = torch.cat([best, similarity], 1)
            best, position = candidates.topk(self._k, 1)
            numbers = torch.cat([nearest, torch.arange(start, start + len(block), device=rows.device).expand(m, -1)], 1)
            nearest = numbers.gather(1, position)
        votes = embeddings.new_zeros(m, self._n_classes)
        votes.scatter_add_(1, self._labels[nearest], torch.ones_like(best))
        return ((votes + 1 / self._n_classes) / (self._k + 1)).log()
