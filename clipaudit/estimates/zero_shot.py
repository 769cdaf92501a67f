"""Zero-shot P(y|x) from the similarity of an image to the prompts of each class (eq. 3-4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipaudit.estimates.problem import Problem


class ZeroShot:
    """s_ik = mean_j exp(g(x_i) . h(P_kj) / T), normalised over the classes.

    The paper sums over prompts, which favours classes with more of them; where all have the same number, sum and mean
    give the same probabilities. All is done in log space: a plain exp and log would give losses of -inf.
    """

    converged = True

    def __init__(self, texts: Tensor, owners: Sequence[int], temperature: float) -> None:
        """Prepare the prompts.

        Args:
            texts: (P, d) float32 unit rows, embeddings of the prompts.
            owners: Class index of each prompt, ascending; every class 0 to K-1 has at least one.
            temperature: T, above 0.
        """
        owner = torch.tensor(owners, device=texts.device)
        counts = torch.bincount(owner)
        n_classes, longest = len(counts), int(counts.max())
        # Classes with fewer prompts are filled up with zero vectors, which the weight -inf keeps out of the sum.
        place = torch.arange(len(owner), device=texts.device) - (counts.cumsum(0) - counts)[owner]
        self._texts = texts.new_zeros(n_classes, longest, texts.shape[1])
        self._texts[owner, place] = texts / temperature
        self._log_weights = texts.new_full((n_classes, longest), -torch.inf)
        self._log_weights[owner, place] = -counts[owner].log()

    @property
    def row_bytes(self) -> int:
        """Temporary memory for one row, in bytes: the similarities to all prompts, twice."""
        return 8 * self._log_weights.numel()

    def log_proba(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(m, d) float32 unit rows to (m, K) float32 log P(k|x); see Estimator."""
        similarity = embeddings @ self._texts.flatten(0, 1).T
        scores = similarity.view(len(embeddings), *self._log_weights.shape) + self._log_weights
        return scores.logsumexp(2).log_softmax(1)


def fit(problem: Problem) -> ZeroShot:
    """From the prompts alone: neither the samples nor their labels matter."""
    return ZeroShot(problem.texts, problem.owners, float(problem.config.temperature))
