"""P(y|x) induced from the embeddings and the noisy labels by logistic regression (eq. 8), in-sample or out-of-fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from clipaudit.estimates.logistic import TOLERANCE, LogisticModel, fit_logistic_regression
from clipaudit.estimates.problem import Problem

# Where a sample's model is made that of all samples: steps that move no logit by more than this end it, so that no
# probability is off by more than 1e-2.
CORRECTED = 2e-2


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


def fit(problem: Problem) -> FoldedLogistic:
    """Fit eq. 8, as the paper does on all samples, or (beyond the paper) for each fold on the others.

    In-sample probabilities are those of a model that has memorised part of the labels that it judges; out-of-fold ones
    come from a model that has never seen them. The folds are stratified by class.
    """
    labels, folds = problem.labels, problem.config.folds
    kept = torch.ones_like(labels, dtype=torch.bool) if problem.kept is None else problem.kept
    if folds == 0:
        return FoldedLogistic([_fit_on(problem, kept)], labels.new_zeros(len(labels)))
    assignment = stratified_folds(labels, folds, _keys(problem))
    if problem.first is not None:
        assignment = assignment[problem.first]
    models: list[LogisticModel] = []
    for number in range(folds):
        models.append(_fit_on(problem, kept & (assignment != number), models[0] if models else None))
    return FoldedLogistic(models, assignment)


def _fit_on(problem: Problem, chosen: Tensor, initial: LogisticModel | None = None) -> LogisticModel:
    """A model of the (n,) bool `chosen` samples; of very many, a sample gives a model that few passes make theirs."""
    vectors, labels, config, tolerance = problem.vectors, problem.labels, problem.config, TOLERANCE
    if not bool(chosen.all()):
        rows = chosen.nonzero().squeeze(1)
        vectors, labels = vectors.subset(rows), labels[rows]
    if 0 < config.fit_samples < len(labels):
        counts = torch.bincount(labels, minlength=problem.n_classes)
        drawn = _stratified(labels, counts, config.fit_samples, _keys(problem)[chosen]).nonzero().squeeze(1)
        initial = fit_logistic_regression(
            vectors.subset(drawn),
            labels[drawn],
            problem.n_classes,
            c=config.c,
            balanced=config.balanced,
            counts=counts,
            initial=initial,
        )
        tolerance = CORRECTED
    return fit_logistic_regression(
        vectors,
        labels,
        problem.n_classes,
        c=config.c,
        balanced=config.balanced,
        tolerance=tolerance,
        initial=initial,
    )


def _stratified(labels: Tensor, counts: Tensor, most: int, keys: Tensor) -> Tensor:
    """(n,) bool: at most so many samples, drawn by their keys; small classes stay whole, the others are equally many.

    A small class has as much weight as a large one, and fewer samples would say less of it.
    """
    ascending = counts.sort().values
    # What the classes from each one on may have, if all before it stay whole.
    share = (most - (ascending.cumsum(0) - ascending)) // torch.arange(len(counts), 0, -1, device=counts.device)
    quota = share[share < ascending][0]
    by_key = keys.argsort(stable=True)
    by_class = by_key[labels[by_key].argsort(stable=True)]
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(labels), device=labels.device) - starts[labels[by_class]]
    return torch.empty_like(labels, dtype=torch.bool).scatter_(0, by_class, place < quota)


def _keys(problem: Problem) -> Tensor:
    """(n,) int64 what is drawn by."""
    labels = problem.labels
    return torch.arange(len(labels), device=labels.device) if problem.keys is None else problem.keys


def fold_keys(ids: Iterable[str], seed: int) -> Tensor:
    """(n,) int64 what is drawn by: a hash of each id and the seed, whatever the order of the samples."""
    key = seed.to_bytes(8, "little")
    digests = bytearray()
    for sample_id in ids:
        digests += blake2b(sample_id.encode(), digest_size=8, key=key).digest()
    return torch.from_numpy(np.frombuffer(digests, "<i8"))


def stratified_folds(labels: Tensor, folds: int, keys: Tensor) -> Tensor:
    """(n,) int64 fold of each sample: drawn by its key, with each class spread evenly over the folds."""
    by_key = keys.argsort(stable=True)
    by_class = by_key[labels[by_key].argsort(stable=True)]
    result = torch.empty_like(labels)
    result[by_class] = torch.arange(len(labels), device=labels.device) % folds
    return result
