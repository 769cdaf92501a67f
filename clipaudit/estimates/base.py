"""What the selectors need of P(y|x), computed in chunks: never an (n, K) matrix as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clipaudit.estimates.vectors import Vectors

CHUNK_BYTES = 1 << 26
# A class that a fold's model has never seen has probability 0; its loss must stay finite to be split.
LOWEST_LOG_P = -1e4


class Estimator(Protocol):
    """Gives P(y|x) for a chunk of the audited samples."""

    @property
    def row_bytes(self) -> int:
        """Temporary memory for one row, in bytes."""
        ...

    @property
    def converged(self) -> bool:
        """Whether every fit behind it reached its optimum; true where there is none to reach."""
        ...

    def log_proba(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """Log-probabilities.

        Args:
            embeddings: (m, d) float32 unit rows.
            rows: (m,) int64, their positions among all audited samples.

        Returns:
            (m, K) float32, each row log P(.|x).
        """
        ...


@dataclass(frozen=True)
class Estimate:
    """P(y|x) of n samples, as far as the selectors look at it.

    Attributes:
        log_p_label: (n,) float32, log P(y_i | x_i) of the given label.
        log_p_max: (n,) float32, max_k log P(k | x_i).
        prediction: (n,) int64, the first class that reaches it.
    """

    log_p_label: Tensor
    log_p_max: Tensor
    prediction: Tensor


def estimate(
    estimators: Sequence[Estimator], vectors: Vectors, labels: Tensor
) -> tuple[list[Estimate], Tensor, Tensor]:
    """Apply estimators to all samples, chunk by chunk.

    Args:
        estimators: One or more.
        vectors: n unit rows of d dimensions.
        labels: (n,) int64, on the device that computes.

    Returns:
        One Estimate for each estimator; then, of the mean of their probabilities, the most probable class (n,) int64
        and its probability (n,) float32: the suggested label.
    """
    n, device = len(vectors), labels.device
    results = [
        Estimate(
            torch.empty(n, device=device),
            torch.empty(n, device=device),
            torch.empty(n, dtype=torch.int64, device=device),
        )
        for _ in estimators
    ]
    suggested, probability = torch.empty(n, dtype=torch.int64, device=device), torch.empty(n, device=device)
    for part, chunk in vectors.chunks(
        rows_at_once(max(estimator.row_bytes for estimator in estimators), vectors.dimension)
    ):
        rows = torch.arange(part.start, part.stop, device=device)
        mean = torch.zeros((), device=device)
        for estimator, result in zip(estimators, results, strict=True):
            log_p = estimator.log_proba(chunk, rows)
            result.log_p_label[part] = log_p.gather(1, labels[part, None]).squeeze(1).clamp_min(LOWEST_LOG_P)
            result.log_p_max[part], result.prediction[part] = log_p.max(1)
            mean = mean + log_p.exp() / len(estimators)
        probability[part], suggested[part] = mean.max(1)
    return results, suggested, probability


def rows_at_once(row_bytes: int, dimension: int = 0) -> int:
    """How many rows have a temporary memory of CHUNK_BYTES together.

    Args:
        row_bytes: Of a row, beside its embedding.
        dimension: Of the embeddings, where a chunk holds them, in single precision.
    """
    return max(1, CHUNK_BYTES // (row_bytes + 4 * dimension))
