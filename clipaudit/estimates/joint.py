"""Two estimates of P(y|x) as one: the normalised product of their probabilities."""

from __future__ import annotations

from torch import Tensor

from clipaudit.estimates.base import Estimator
from clipaudit.estimates.problem import Problem
from clipaudit.vocabulary import ESTIMATES


class Joint:
    """P(k|x) proportional to P_1(k|x) P_2(k|x): a product of experts (Hinton, 2002), beyond the paper.

    Zero-shot and logistic regression err in different ways; where one is unsure, the other decides.
    """

    def __init__(self, first: Estimator, second: Estimator) -> None:
        self.first, self.second = first, second

    @property
    def row_bytes(self) -> int:
        """Temporary memory for one row, in bytes."""
        return self.first.row_bytes + self.second.row_bytes

    @property
    def converged(self) -> bool:
        """Whether both reached their optimum."""
        return self.first.converged and self.second.converged

    def log_proba(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(m, d) float32 unit rows to (m, K) float32 log P(k|x); see Estimator."""
        product = self.first.log_proba(embeddings, rows) + self.second.log_proba(embeddings, rows)
        return product.log_softmax(1)


def fit(problem: Problem) -> Joint:
    """Zero-shot and logistic regression, as one."""
    first, second = (problem.estimator(ESTIMATES[name]) for name in ESTIMATES["joint"].parts)
    return Joint(first, second)
