"""The loss selector (eq. 6): a two-component Gaussian mixture over the losses of each class, all classes at once.

The samples are sorted by class and loss, once. Classes are then runs of one flat array, sums over a class are sums over
a run, and nothing is padded to the largest class. It also makes the result independent of the order of the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clipaudit.errors import ClipAuditError

# Two Gaussians and their weights have five free numbers; with fewer than two samples for each, they fit anything.
MIN_SAMPLES = 10
# scikit-learn's: added to every variance, in units of the scaled losses.
REG_COVAR = 1e-6
# Bounds the temporary memory at some 400 MB.
GROUP_SAMPLES = 1 << 22
# Components that ended closer than this, in units of the scaled losses, are one.
MIN_DISTANCE = 1e-6


@dataclass(frozen=True)
class LossSplit:
    """Which of two components each loss belongs to. The low component is the one with the smaller mean.

    Attributes:
        posterior: (n,) float64 in [0, 1], P(low | loss); inside a class it never rises with the loss. 1 where the
            class was not split.
        raw_posterior: (n,) float64, the same as the mixture gives it.
        abstained: (K,) bool, classes with nothing to split: too few samples, no spread, or two components that are one.
        weights: (K, 2) float64, low component first; NaN where the class was not split, as in the next two.
        means: (K, 2) float64, in units of the loss.
        deviations: (K, 2) float64, standard deviations in units of the loss.
        converged: (K,) bool; true where the class was not split.
        n_iterations: EM steps of the class that took most.
    """

    posterior: Tensor
    raw_posterior: Tensor
    abstained: Tensor
    weights: Tensor
    means: Tensor
    deviations: Tensor
    converged: Tensor
    n_iterations: int


def split_losses(
    losses: Tensor,
    labels: Tensor,
    n_classes: int,
    *,
    min_samples: int = MIN_SAMPLES,
    tolerance: float = 1e-8,
    max_iterations: int = 2000,
    group_samples: int = GROUP_SAMPLES,
) -> LossSplit:
    """Split the losses of each class in two by EM from the exact best 2-means split.

    The same model as scikit-learn's `GaussianMixture(2)` on losses scaled to [0, 1], in double precision.

    A Gaussian posterior is no monotone function of the loss: where one component is much wider, it wins on both sides
    of the other. The log-odds are a quadratic, and its vertex lies outside of the two means; beyond the vertex
    `posterior` keeps the vertex's value, so that a smaller loss is never judged dirtier than a larger one.

    Args:
        losses: (n,) finite, any float type.
        labels: (n,) int64 in [0, n_classes).
        n_classes: K.
        min_samples: Classes with fewer samples are not split.
        tolerance: EM ends for a class when its mean log-likelihood rises by less in a step.
        max_iterations: EM steps at most.
        group_samples: Samples of whole classes that are worked on together, at some 100 bytes of temporary memory each;
            the result is the same.

    Raises:
        ClipAuditError: a loss is not finite; the message names its row.
    """
    finite = losses.isfinite()
    if not bool(finite.all()):
        raise ClipAuditError(f"the loss of sample {int((~finite).nonzero()[0])} is not finite.")
    # Apple's GPUs have no double precision.
    device = torch.device("cpu") if losses.device.type == "mps" else losses.device
    values, classes = losses.to(device).double(), labels.to(device)
    by_loss = values.argsort(stable=True)
    order = by_loss[classes[by_loss].argsort(stable=True)]
    values = values[order]
    lengths = torch.bincount(classes, minlength=n_classes)

    fits = []
    for first, last in _groups(lengths, group_samples):
        start, stop = int(lengths[:first].sum()), int(lengths[:last].sum())
        fits.append(_fit(values[start:stop], lengths[first:last], min_samples, tolerance, max_iterations))
    posterior, raw_posterior = torch.empty_like(values), torch.empty_like(values)
    posterior[order] = torch.cat([fit.posterior for fit in fits])
    raw_posterior[order] = torch.cat([fit.raw_posterior for fit in fits])
    return LossSplit(
        posterior,
        raw_posterior,
        abstained=torch.cat([fit.abstained for fit in fits]),
        weights=torch.cat([fit.weights for fit in fits]),
        means=torch.cat([fit.means for fit in fits]),
        deviations=torch.cat([fit.deviations for fit in fits]),
        converged=torch.cat([fit.converged for fit in fits]),
        n_iterations=max(fit.n_iterations for fit in fits),
    )


def _groups(lengths: Tensor, group_samples: int) -> list[tuple[int, int]]:
    """Neighbouring classes, as (first, past the last), that hold about `group_samples` samples together."""
    borders, held = [0], 0
    for k, length in enumerate(lengths.tolist()):
        if held and held + length > group_samples:
            borders.append(k)
            held = 0
        held += length
    return list(zip(borders, [*borders[1:], len(lengths)], strict=True))


def _fit(values: Tensor, lengths: Tensor, min_samples: int, tolerance: float, max_iterations: int) -> LossSplit:
    """Split the classes of one group; `values` are sorted by class and loss."""
    n_classes = len(lengths)
    classes = torch.arange(n_classes, device=values.device).repeat_interleave(lengths)
    ends = lengths.cumsum(0)
    held = (lengths > 0).nonzero().squeeze(1)
    low, spread = values.new_zeros(n_classes), values.new_zeros(n_classes)
    low[held] = values[ends[held] - lengths[held]]
    spread[held] = values[ends[held] - 1] - low[held]
    split = (lengths >= min_samples) & (spread > 0)

    weights, means, variances = (values.new_full((n_classes, 2), math.nan) for _ in range(3))
    converged = torch.ones_like(split)
    n_iterations = 0
    inside = split[classes]
    if bool(inside.any()):
        x = (values[inside] - low[classes[inside]]) / spread[classes[inside]]
        weights[split], means[split], variances[split], converged[split], n_iterations = _expectation_maximisation(
            x, lengths[split], tolerance, max_iterations
        )
    distinct = (means[:, 1] - means[:, 0] > MIN_DISTANCE) & (weights.amin(1) > 0)
    for parameters in (weights, means, variances):
        parameters[~distinct] = math.nan

    posterior, raw = torch.ones_like(values), torch.ones_like(values)
    inside = distinct[classes]
    if bool(inside.any()):
        runs = torch.arange(int(distinct.sum()), device=values.device).repeat_interleave(lengths[distinct])
        x = (values[inside] - low[classes[inside]]) / spread[classes[inside]]
        mixture = _Mixture(weights[distinct], means[distinct], variances[distinct])
        raw[inside] = torch.sigmoid(mixture.log_odds(x, runs))
        monotone = torch.sigmoid(mixture.log_odds(mixture.clamp_to_vertex(x, runs), runs))
        posterior[inside] = _running_minimum(monotone, lengths[distinct])
    return LossSplit(
        posterior,
        raw,
        ~distinct,
        weights,
        low[:, None] + spread[:, None] * means,
        spread[:, None] * variances.sqrt(),
        converged,
        n_iterations,
    )


@dataclass(frozen=True)
class _Mixture:
    """Two-component mixtures of R runs: weights, means and variances, each (R, 2), low component first."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    def log_densities(self, x: Tensor, runs: Tensor) -> Tensor:
        """(n, 2) log of weight times density, for the run of each x."""
        constant = self.weights.log() - 0.5 * (2 * math.pi * self.variances).log()
        return constant[runs] - (x[:, None] - self.means[runs]).square() / (2 * self.variances[runs])

    def log_odds(self, x: Tensor, runs: Tensor) -> Tensor:
        """(n,) log P(low | x) / P(high | x)."""
        low, high = self.log_densities(x, runs).unbind(1)
        return low - high

    def clamp_to_vertex(self, x: Tensor, runs: Tensor) -> Tensor:
        """Move each x beyond the vertex of its run's log-odds, where they would turn back, onto the vertex."""
        precision = 1 / self.variances
        curvature = precision[:, 0] - precision[:, 1]
        vertex = (precision[:, 0] * self.means[:, 0] - precision[:, 1] * self.means[:, 1]) / curvature
        # A narrower low component has its vertex, a maximum, below both means; a wider one a minimum, above them.
        lower = torch.where(curvature > 0, vertex, -math.inf)
        upper = torch.where(curvature < 0, vertex, math.inf)
        return x.clamp(lower[runs], upper[runs])


def _expectation_maximisation(
    x: Tensor, lengths: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Fit all runs; returns weights, means, variances (R, 2), converged (R,) and the number of steps."""
    n_runs = len(lengths)
    active = torch.arange(n_runs, device=x.device)
    fitted = x.new_empty(3, n_runs, 2)
    converged = torch.zeros(n_runs, dtype=torch.bool, device=x.device)
    runs = active.repeat_interleave(lengths)
    mixture = _maximise(x, _best_two_means(x, lengths), lengths)
    likelihood = x.new_full((n_runs,), -math.inf)
    step = 0
    while len(active) and step < max_iterations:
        step += 1
        joint = mixture.log_densities(x, runs)
        log_total = torch.logaddexp(joint[:, 0], joint[:, 1])
        new_likelihood = _run_sums(log_total[:, None], lengths).squeeze(1) / lengths
        done = new_likelihood - likelihood < tolerance
        fitted[:, active] = torch.stack([mixture.weights, mixture.means, mixture.variances])
        converged[active[done]] = True
        low = torch.exp(joint[:, 0] - log_total)
        if bool(done.any()):
            # Runs that have converged leave, so that the slow ones do not pay for them.
            stay = ~done[runs]
            x, low, new_likelihood = x[stay], low[stay], new_likelihood[~done]
            active, lengths = active[~done], lengths[~done]
            runs = torch.arange(len(active), device=x.device).repeat_interleave(lengths)
        likelihood = new_likelihood
        if len(active):
            mixture = _maximise(x, low, lengths)
    # The smaller mean first.
    order = fitted[1].argsort(dim=1)
    weights, means, variances = fitted.gather(2, order.expand(3, -1, -1))
    return weights, means, variances, converged, step


def _maximise(x: Tensor, low: Tensor, lengths: Tensor) -> _Mixture:
    """M step: the mixture of each run from the responsibilities (n,) of its first component."""
    moments = torch.stack([x.new_ones(len(x)), x, x.square()], 1)
    of_low = _run_sums(low[:, None] * moments, lengths)
    of_high = _run_sums((1 - low)[:, None] * moments, lengths)
    sums = torch.stack([of_low, of_high], 1)
    # An emptied component must not divide by zero; its weight stays next to nothing, and it is found afterwards.
    totals = sums[:, :, 0].clamp_min(torch.finfo(x.dtype).tiny)
    means = sums[:, :, 1] / totals
    variances = (sums[:, :, 2] / totals - means.square()).clamp_min(0) + REG_COVAR
    return _Mixture(sums[:, :, 0] / lengths[:, None], means, variances)


def _best_two_means(x: Tensor, lengths: Tensor) -> Tensor:
    """(n,) 1 where a value lies in the lower cluster of its run's best split in two, which minimises the squares."""
    ends = lengths.cumsum(0)
    runs = torch.arange(len(lengths), device=x.device).repeat_interleave(lengths)
    totals = _run_sums(x[:, None], lengths).squeeze(1)
    below = x.cumsum(0)
    below = below - (below[ends - 1] - totals)[runs]
    count = torch.arange(1, len(x) + 1, device=x.device) - (ends - lengths)[runs]
    above, rest = totals[runs] - below, lengths[runs] - count
    # Minimising the squares within the clusters is maximising those between them.
    between = below.square() / count + torch.where(rest > 0, above.square() / rest.clamp_min(1), -math.inf)
    best = torch.segment_reduce(between, "max", lengths=lengths)
    candidates = torch.where(between == best[runs], count, lengths[runs])
    borders = torch.segment_reduce(candidates.to(x.dtype), "min", lengths=lengths)
    return (count <= borders[runs]).to(x.dtype)


def _run_sums(columns: Tensor, lengths: Tensor) -> Tensor:
    """(n, m) to (R, m): sums over runs."""
    if columns.is_cuda:
        # Of several columns CUDA's kernel adds the rows of a run one by one; of a single one, many at once.
        return torch.stack([torch.segment_reduce(x, "sum", lengths=lengths) for x in columns.T.contiguous()], 1)
    return torch.segment_reduce(columns, "sum", lengths=lengths, axis=0)


def _running_minimum(values: Tensor, lengths: Tensor) -> Tensor:
    """The smallest value so far inside each run: what rounding could still spoil of a monotone sequence."""
    return torch.cat([run.cummin(0).values for run in torch.split(values, lengths.tolist())])
