"""P(y|x) with the given label as evidence: an estimate weighed by the noise transition matrix (beyond the paper)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from clipaudit.estimates.base import Estimator, rows_at_once
from clipaudit.estimates.vectors import Vectors

# Samples' worth of belief that every mistake is equally likely; it decides where a class has few samples of its own.
PRIOR_SAMPLES = 10.0
CANDIDATES = 16


class Transition:
    """P(k|x, y) proportional to P(k|x) T_ky, with the noise transition matrix T_ky = P(label y | true class k).

    An estimate from the image alone takes every label for equally trustworthy. Where people rarely err, a label speaks
    for itself; where half of one class is labelled as another, it says little.
    """

    def __init__(self, base: Estimator, labels: Tensor, matrix: Tensor) -> None:
        """Weigh `base` by the labels.

        Args:
            base: P(k|x).
            labels: (n,) int64 in [0, K), of all audited samples.
            matrix: (K, K) float32, T; rows are true classes and sum to 1.
        """
        self.base, self.labels, self.matrix = base, labels, matrix

    @property
    def row_bytes(self) -> int:
        """Temporary memory for one row, in bytes."""
        return self.base.row_bytes + 8 * len(self.matrix)

    @property
    def converged(self) -> bool:
        """Whether `base` reached its optimum."""
        return self.base.converged

    def log_proba(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(m, d) float32 unit rows to (m, K) float32 log P(k|x, y); see Estimator."""
        evidence = self.matrix.log().T[self.labels[rows]]
        return (self.base.log_proba(embeddings, rows) + evidence).log_softmax(1)


def fit_transition(
    base: Estimator,
    vectors: Vectors,
    labels: Tensor,
    n_classes: int,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Transition:
    """Estimate T by expectation maximisation (Dawid and Skene, 1979), after one pass over the embeddings.

    Of each sample the CANDIDATES most probable classes are looked at, the label among them: all that matters, at 128
    bytes a sample. Rows of T shrink towards uniform mistakes at the common rate, as if PRIOR_SAMPLES more had been seen
    of each class.

    Args:
        base: P(k|x), at best of models that have not seen the sample's own label.
        vectors: n unit rows of d dimensions.
        labels: (n,) int64 in [0, n_classes), on the device that computes.
        n_classes: K, at least 2.
        tolerance: The fit ends when no entry of T moves by more in a step.
        max_iterations: Steps at most.
    """
    log_p, classes = _candidates(base, vectors, labels, n_classes)
    matrix = log_p.new_full((n_classes, n_classes), 1 / n_classes)
    for _ in range(max_iterations):
        before, matrix = matrix, _maximise(_expected(log_p, classes, labels, matrix))
        if float((matrix - before).abs().max()) < tolerance:
            break
    return Transition(base, labels, matrix)


def _candidates(base: Estimator, vectors: Vectors, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """(n, c) float32 log P(k|x) and (n, c) int32 k of the label and the most probable other classes."""
    shape, device = (len(vectors), min(CANDIDATES, n_classes)), labels.device
    log_p = torch.empty(shape, device=device)
    classes = torch.empty(shape, dtype=torch.int32, device=device)
    for part, chunk in vectors.chunks(rows_at_once(base.row_bytes + 8 * n_classes, vectors.dimension)):
        of_all = base.log_proba(chunk, torch.arange(part.start, part.stop, device=device))
        best = of_all.scatter(1, labels[part, None], torch.inf).topk(shape[1], 1).indices
        log_p[part], classes[part] = of_all.gather(1, best), best.int()
    return log_p, classes


def _expected(log_p: Tensor, classes: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """(K, K) float32: how many samples of true class k have label y, in expectation."""
    counts, log_matrix = torch.zeros_like(matrix).flatten(), matrix.log().flatten()
    size = rows_at_once(32 * log_p.shape[1])
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        entries = classes[part].long() * len(matrix) + labels[part, None]
        posterior = (log_p[part] + log_matrix[entries]).softmax(1)
        with _in_one_order():
            counts.index_add_(0, entries.flatten(), posterior.flatten())
    return counts.view_as(matrix)


@contextmanager
def _in_one_order() -> Iterator[None]:
    """Add in the same order every time: CUDA's index_add_ would not, and two runs would differ in the last bits."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def _maximise(counts: Tensor) -> Tensor:
    """(K, K) expected counts to T."""
    n_classes = len(counts)
    # One right and one wrong label more than expected keep every entry above zero.
    right = (counts.trace() + 1) / (counts.sum() + 2)
    common = ((1 - right) / (n_classes - 1)).expand_as(counts).clone().fill_diagonal_(float(right))
    smoothed = counts + PRIOR_SAMPLES * common
    return smoothed / smoothed.sum(1, keepdim=True)
