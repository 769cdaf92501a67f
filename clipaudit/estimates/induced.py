"""P(y|x) induced from the embeddings and the noisy labels by logistic regression (eq. 8), in-sample or out-of-fold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipaudit.estimates.logistic import LogisticModel, fit_logistic_regression


class FoldedLogistic:
    """One model for each fold of the samples. The paper's in-sample probabilities are a single fold."""

    def __init__(self, models: Sequence[LogisticModel], folds: Tensor) -> None:
        self.models, self._folds = models, folds

    @property
    def row_bytes(self) -> int:
        """Temporary memory for one row, in bytes."""
        return 8 * len(self.models[0].intercept)

    @property
    def converged(self) -> bool:
        """Whether every fit reached the optimum."""
        return all(model.converged for model in self.models)

    def log_proba(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(m, d) float32 unit rows to (m, K) float32 log P(k|x), each row by its own fold's model; see Estimator."""
        if len(self.models) == 1:
            return self.models[0].log_proba(embeddings)
        folds = self._folds[rows]
        result = embeddings.new_empty(len(embeddings), len(self.models[0].intercept))
        for number, model in enumerate(self.models):
            mine = folds == number
            result[mine] = model.log_proba(embeddings[mine])
        return result


def fit_folded_logistic(
    embeddings: Tensor,
    labels: Tensor,
    n_classes: int,
    *,
    c: float = 1.0,
    balanced: bool = True,
    folds: int = 0,
    keys: Tensor | None = None,
    kept: Tensor | None = None,
) -> FoldedLogistic:
    """Fit eq. 8, as the paper does on all samples, or (beyond the paper) for each fold on the others.

    In-sample probabilities are those of a model that has memorised part of the labels that it judges; out-of-fold ones
    come from a model that has never seen them.

    Args:
        embeddings: (n, d) float16 or float32 unit rows.
        labels: (n,) int64 in [0, n_classes).
        n_classes: K.
        c: Inverse strength of the L2 penalty.
        balanced: Weigh class k by N / (K n_k).
        folds: 0 for in-sample probabilities, else at least 2.
        keys: (n,) int64, different for each sample: their order draws the folds, which are stratified by class, so that
            the order of the rows does not matter. None takes the order of the rows.
        kept: (n,) bool, the samples to fit on; None takes all. All are judged.
    """
    kept = torch.ones_like(labels, dtype=torch.bool) if kept is None else kept
    if folds == 0:
        rows = slice(None) if kept.all() else kept.nonzero().squeeze(1)
        model = fit_logistic_regression(embeddings[rows], labels[rows], n_classes, c=c, balanced=balanced)
        return FoldedLogistic([model], labels.new_zeros(len(labels)))
    keys = torch.arange(len(labels), device=labels.device) if keys is None else keys
    assignment = stratified_folds(labels, folds, keys)
    models: list[LogisticModel] = []
    for number in range(folds):
        others = ((assignment != number) & kept).nonzero().squeeze(1)
        initial = models[0] if models else None
        models.append(
            fit_logistic_regression(
                embeddings[others], labels[others], n_classes, c=c, balanced=balanced, initial=initial
            )
        )
    return FoldedLogistic(models, assignment)


def stratified_folds(labels: Tensor, folds: int, keys: Tensor) -> Tensor:
    """(n,) int64 fold of each sample: drawn by its key, with each class spread evenly over the folds."""
    by_key = keys.argsort(stable=True)
    by_class = by_key[labels[by_key].argsort(stable=True)]
    result = torch.empty_like(labels)
    result[by_class] = torch.arange(len(labels), device=labels.device) % folds
    return result
