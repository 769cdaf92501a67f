"""Multinomial logistic regression (eq. 8): scikit-learn's optimum by L-BFGS on a whitened problem.

CLIP embeddings lie in a narrow cone, so that the plain problem is badly conditioned. Where all classes are equally
likely, the Hessian is (1/K) (I - 11'/K) x X'WX, and later its blocks stay close to X'WX times the class's share of
the remaining doubt. One eigendecomposition of the (d+1) x (d+1) matrix X'WX therefore undoes the conditioning for
every class and every step, and L-BFGS, which has only the differences to learn, needs some 20 passes over the data.
Where there are many samples, some of them tell the differences beforehand (see `curvature`), and it needs fewer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clipaudit.errors import ClipAuditError
from clipaudit.estimates.curvature import Sample, sample_size, solved
from clipaudit.estimates.shares import Sums, summing
from clipaudit.estimates.vectors import Vectors

CHUNK_BYTES, GPU_CHUNK_BYTES = 1 << 23, 1 << 28
GRAM_ROWS_PER_DIMENSION = 16
MEMORY = 10
MAX_HALVINGS = 30
TOLERANCE = 2e-3


@dataclass(frozen=True)
class LogisticModel:
    """A fitted model.

    Attributes:
        weight: (K, d) float32; zero for classes without a sample.
        intercept: (K,) float32; -inf for classes without a sample.
        n_iterations: Steps of the optimiser.
        converged: Whether it reached the optimum.
    """

    weight: Tensor
    intercept: Tensor
    n_iterations: int
    converged: bool

    def log_proba(self, embeddings: Tensor) -> Tensor:
        """(m, d) embeddings of any float type to (m, K) float32 log P(k|x); -inf for classes without a sample."""
        return torch.addmm(self.intercept, embeddings.float(), self.weight.T).log_softmax(1)


def fit_logistic_regression(
    vectors: Vectors,
    labels: Tensor,
    n_classes: int,
    *,
    c: float = 1.0,
    balanced: bool = True,
    counts: Tensor | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = 1000,
    chunk_rows: int | None = None,
    initial: LogisticModel | None = None,
) -> LogisticModel:
    """Minimise C sum_i w_i (-log P(y_i|x_i)) + 1/2 ||W||^2, the intercept not penalised.

    This is the objective of scikit-learn's `LogisticRegression(C=c, class_weight="balanced")`. With two classes
    scikit-learn fits one weight vector, which is the difference of the two here; both models then agree when the
    penalty is twice as strong. At the default tolerance, probabilities differ from the optimum's by about 1e-4.

    Args:
        vectors: n unit rows of d dimensions; read in chunks, never copied as a whole.
        labels: (n,) int64 in [0, n_classes), on the device that computes. Classes without a sample get probability 0.
        n_classes: K.
        c: C, inverse strength of the penalty.
        balanced: w_i = n / (K' n_k) for a sample of class k, where K' classes have samples; else 1.
        counts: (K,) int64, the number of samples of each class that these were drawn from, for whose sum they stand;
            None where they are all.
        tolerance: The fit ends when two steps in a row move no logit of a unit vector by more.
        max_iterations: Steps at most; then `converged` is False.
        chunk_rows: Rows a chunk; None chooses a number that keeps a chunk in the processor's cache, or a GPU busy.
        initial: Where to start, for example the model of another fold.

    Raises:
        ClipAuditError: an embedding is not finite; the message names its row.
    """
    present, dense = torch.unique(labels, return_inverse=True)
    k, d = len(present), vectors.dimension
    weight = labels.new_zeros((n_classes, d), dtype=torch.float32)
    intercept = torch.full_like(weight[:, 0], -torch.inf)
    if k == 1:
        intercept[present] = 0
        return LogisticModel(weight, intercept, 0, converged=True)
    held = torch.bincount(dense, minlength=k).float()
    all_of_class = held if counts is None else counts[present].float()
    class_weights = c * (all_of_class.sum() / (k * held) if balanced else all_of_class / held)
    chunk_bytes = GPU_CHUNK_BYTES if labels.is_cuda else CHUNK_BYTES
    rows = chunk_rows or max(256, chunk_bytes // (4 * (d + k)))
    _refuse_not_finite(vectors, rows)
    objective = _Objective(vectors, dense, class_weights, penalty=2.0 if k == 2 else 1.0, chunk_rows=rows)
    start = weight.new_zeros(k, d + 1)
    if initial is not None and torch.isfinite(initial.intercept[present]).all():
        start = torch.cat([initial.weight, initial.intercept[:, None]], 1)[present]
    parameters, n_iterations, converged = _minimise(objective, start, tolerance, max_iterations)
    weight[present], intercept[present] = parameters[:, :-1], parameters[:, -1]
    return LogisticModel(weight, intercept, n_iterations, converged)


@dataclass(frozen=True)
class _Point:
    """The objective at some parameters.

    Attributes:
        parameters: (K, d+1), the intercept last.
        value: Of the objective.
        gradient: (K, d+1), the intercept last.
        curvature: (K,) sum_i w_i p_ik (1 - p_ik): how much doubt is left about each class.
    """

    parameters: Tensor
    value: float
    gradient: Tensor
    curvature: Tensor


class Pass:
    """One pass over some samples, which adds up what they contribute to the objective."""

    def __init__(self, vectors: Vectors, labels: Tensor, class_weights: Tensor, chunk_rows: int) -> None:
        """Keep what all passes look at.

        Args:
            vectors: m unit rows of d dimensions.
            labels: (m,) int64 in [0, K), on the device that computes.
            class_weights: (K,) float32, the weight of a sample of each class.
            chunk_rows: Rows a chunk.
        """
        self._vectors, self._labels, self._class_weights = vectors, labels, class_weights
        self._chunk_rows = chunk_rows

    def __call__(self, parameters: Tensor) -> Sums:
        """For each chunk one matrix product forward and one backward, at (K, d+1) parameters; see Sums."""
        weight, intercept = parameters[:, :-1].contiguous(), parameters[:, -1]
        gradient, curvature = torch.zeros_like(parameters), torch.zeros_like(intercept)
        losses = [weight.new_zeros(())]
        for part, x in self._vectors.chunks(self._chunk_rows):
            y = self._labels[part, None]
            w = self._class_weights[y]
            p = torch.addmm(intercept, x, weight.T)
            p -= p.amax(1, keepdim=True)
            z_label = p.gather(1, y)
            sums = p.exp_().sum(1, keepdim=True)
            losses.append((w * (sums.log() - z_label)).sum())
            p /= sums
            curvature += (w.T @ (p - p.square())).squeeze(0)
            residual = (p * w).scatter_add_(1, y, -w)
            gradient[:, :-1].addmm_(residual.T, x)
            gradient[:, -1] += residual.sum(0)
        # Tens of thousands of terms: added in double precision, which not every device has.
        return gradient, curvature, float(torch.stack(losses).cpu().double().sum())


class _Objective:
    """The objective over K classes that all have samples."""

    def __init__(
        self, vectors: Vectors, labels: Tensor, class_weights: Tensor, penalty: float, chunk_rows: int
    ) -> None:
        self._vectors, self._labels, self._class_weights = vectors, labels, class_weights
        self._penalty, self._chunk_rows = penalty, chunk_rows
        self._total_weight = (class_weights * torch.bincount(labels)).sum()
        self._eigenvalues, self._eigenvectors = self._gram()
        self._sample = self._sampled()
        self._pass = summing(Pass, vectors, labels, class_weights, chunk_rows)

    def evaluate(self, parameters: Tensor) -> _Point:
        """One pass over the data, and the penalty."""
        gradient, curvature, loss = self._pass(parameters)
        weight = parameters[:, :-1]
        gradient[:, :-1] += self._penalty * weight
        squares = weight.square().sum(1).cpu().double().sum()
        return _Point(parameters, loss + self._penalty / 2 * float(squares), gradient, curvature)

    @property
    def knows_curvature(self) -> bool:
        """Whether a sample tells what the Hessian is at a point."""
        return self._sample is not None

    def newton(self, point: _Point) -> Callable[[Tensor], Tensor]:
        """The inverse of the Hessian at a point as far as the sample tells it: what it makes of a (K, d+1) vector.

        The fewer samples tell it, the more of the approximation that the preconditioner inverts is mixed in.
        """
        assert self._sample is not None
        hessian, mixed = self._sample.hessian(point.parameters), self._vectors.dimension / self._n_sampled
        share = (point.curvature / self._total_weight)[:, None]

        def times(direction: Tensor) -> Tensor:
            usual = ((direction @ self._eigenvectors) * (share * self._eigenvalues)) @ self._eigenvectors.T
            return (1 - mixed) * hessian(direction) + mixed * usual + self._penalty * direction

        return lambda vector: solved(times, lambda rest: self.precondition(point, rest), vector)

    def precondition(self, point: _Point, vector: Tensor) -> Tensor:
        """Apply the inverse of the Hessian's approximation at a point to a (K, d+1) vector."""
        share = (point.curvature / self._total_weight)[:, None]
        return ((vector @ self._eigenvectors) / (share * self._eigenvalues + self._penalty)) @ self._eigenvectors.T

    def _sampled(self) -> Sample | None:
        n, d = len(self._vectors), self._vectors.dimension
        self._n_sampled = sample_size(n, d, len(self._class_weights))
        if not self._n_sampled:
            return None
        rows = torch.arange(self._n_sampled, device=self._labels.device) * n // self._n_sampled
        weights = self._class_weights[self._labels[rows], None]
        weights *= self._total_weight / weights.sum()
        chunks = (torch.split(part, self._chunk_rows) for part in (self._vectors.take(rows), weights))
        return Sample(*chunks)

    def _gram(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (d+1,) and eigenvectors (d+1, d+1) of X'WX, the intercept's column of ones included."""
        n = len(self._vectors)
        step = max(1, n // (GRAM_ROWS_PER_DIMENSION * self._vectors.dimension))
        x = self._vectors.take(torch.arange(0, n, step, device=self._labels.device))
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        w = self._class_weights[self._labels[::step]]
        gram = (x * w[:, None]).T @ x * (self._total_weight / w.sum())
        eigenvalues, eigenvectors = torch.linalg.eigh(gram.cpu().double())
        return eigenvalues.clamp_min(0).to(x), eigenvectors.to(x)


def _minimise(
    objective: _Objective, parameters: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, int, bool]:
    """L-BFGS; returns parameters, the number of steps, and whether they converged."""
    point = objective.evaluate(parameters)
    history: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=MEMORY)
    small_steps = 0
    for iteration in range(1, max_iterations + 1):
        direction = -_two_loops(objective, point, history)
        found = _line_search(objective, parameters, point, direction)
        if found is None:
            # No step goes down any more: the optimum, as far as float32 can tell.
            return parameters, iteration, True
        step, new_point = found
        parameters = parameters + step
        change = new_point.gradient - point.gradient
        curvature = float((step * change).sum())
        if curvature > 0:
            history.append((step, change, curvature))
        point = new_point
        # Rows of the data have unit length, so that the step's norm bounds the change of a logit.
        largest = float(step[:, :-1].norm(dim=1).max() + step[:, -1].abs().max())
        small_steps = small_steps + 1 if largest < tolerance else 0
        if small_steps == 2:
            return parameters, iteration, True
    return parameters, max_iterations, False


def _two_loops(objective: _Objective, point: _Point, history: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The L-BFGS direction (Nocedal and Wright, algorithm 7.4) over the preconditioner as first approximation."""
    q = point.gradient.clone()
    alphas = []
    for step, change, curvature in reversed(history):
        alphas.append((step * q).sum() / curvature)
        q -= alphas[-1] * change
    if objective.knows_curvature:
        r = objective.newton(point)(q)
    else:
        r = objective.precondition(point, q)
        if history:
            _, change, curvature = history[-1]
            r *= curvature / (change * objective.precondition(point, change)).sum()
    for (step, change, curvature), alpha in zip(history, reversed(alphas), strict=True):
        r += (alpha - (change * r).sum() / curvature) * step
    return r


def _line_search(
    objective: _Objective, parameters: Tensor, point: _Point, direction: Tensor
) -> tuple[Tensor, _Point] | None:
    """A step along the direction that goes down, and the point it leads to; None where there is none.

    Near the optimum the value's change drowns in its rounding. There the slope decides, which is still exact (the
    approximate Wolfe conditions of Hager and Zhang, 2005).
    """
    slope, length = float((point.gradient * direction).sum()), 1.0
    if slope >= 0:
        return None
    for _ in range(MAX_HALVINGS):
        step = length * direction
        new_point = objective.evaluate(parameters + step)
        new_slope = float((new_point.gradient * direction).sum())
        goes_down = new_point.value <= point.value + 1e-4 * length * slope
        rounded = new_point.value <= point.value + 1e-6 * abs(point.value)
        if goes_down or (rounded and abs(new_slope) <= 0.9 * abs(slope)):
            return step, new_point
        # The slope of a convex function rises: where it crosses zero, by the secant.
        crossing = slope / (slope - new_slope) if new_slope > slope else 0.5
        length *= min(max(crossing, 0.1), 0.5)
    return None


def _refuse_not_finite(vectors: Vectors, chunk_rows: int) -> None:
    for part, x in vectors.chunks(chunk_rows):
        finite = x.isfinite().all(1)
        if not bool(finite.all()):
            row = part.start + int((~finite).nonzero()[0])
            raise ClipAuditError(f"embedding {row} is not finite (NaN or infinity). Embed the images again.")
