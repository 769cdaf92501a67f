"""How probable a wrong label is along the ranking, learnt from marks: Bayesian logistic regression with a smooth bend.

The logit of P(wrong) at position x of the ranking is f(x) = a + b x + g(x), with normal priors on a and b and a
Gaussian process g. A mark is mistaken with a probability that is not known either. The posterior is a mixture of
Laplace approximations, one for each size of the bend and rate of mistakes, weighed by their evidence (Rasmussen and
Williams, Gaussian Processes for Machine Learning, 2006, section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]

# Priors of a and b as (mean, deviation), for positions in units of their deviation: most labels are right, give or take
# nearly all, and fewer are wrong where the ranking is higher. Set on five noises and confirmed on five others
# (docs/benchmarks.md).
LEVEL, SLOPE = (-0.5, 2.5), (-3.2, 1.2)
# Deviations of the bend g, and the distance over which it stays alike.
BENDS, REACH = (0.3, 1.0), 1.0
# Rates of mistaken marks, and how probable each is beforehand.
MISTAKES = {0.0: 0.4, 0.02: 0.2, 0.05: 0.2, 0.1: 0.2}
# A ranking is a probability; beyond this its logit says no more.
FARTHEST = 12.0
# The bend is fixed by its values at so many points.
KNOTS = 25
STEPS = 50


def positions(ranking: Floats) -> Floats:
    """(n,) logits of (n,) scores in [0, 1] that are higher where a label looks cleaner, in units of their deviation."""
    low = expit(-FARTHEST)
    logits = logit(np.clip(ranking, low, 1 - low))
    return np.asarray(logits / (logits.std() or 1.0))


@dataclass(frozen=True)
class Posterior:
    """What is known of the curve, as S equally probable draws.

    Attributes:
        p_wrong: (S, B) float64, P(wrong) at B positions.
        mistaken: (S,) float64, the probability that a mark is mistaken.
    """

    p_wrong: Floats
    mistaken: Floats


@dataclass(frozen=True)
class _Fit:
    """A Laplace approximation: mode, root of the covariance, log evidence."""

    mode: Floats
    root: Floats
    evidence: float


def fit_curve(x: Floats, wrong: Floats, right: Floats, n_draws: int, generator: np.random.Generator) -> Posterior:
    """The posterior of P(wrong) at B positions.

    Args:
        x: (B,) positions, ascending.
        wrong, right: (B,) numbers of marks that say so at each.
        n_draws: S.
        generator: Draws.
    """
    grid = list(product(BENDS, MISTAKES))
    bases = {bend: _basis(x, bend) for bend in BENDS}
    offset = LEVEL[0] + SLOPE[0] * x
    fits = [_laplace(bases[bend], offset, wrong, right, mistaken) for bend, mistaken in grid]
    weights = np.array(
        [fit.evidence + np.log(MISTAKES[mistaken]) for fit, (_, mistaken) in zip(fits, grid, strict=True)]
    )
    weights = np.exp(weights - weights.max())
    counts = _apportioned(weights / weights.sum(), n_draws)
    drawn = [
        expit(offset + (fit.mode + generator.standard_normal((count, len(fit.mode))) @ fit.root.T) @ bases[bend].T)
        for fit, (bend, _), count in zip(fits, grid, counts, strict=True)
    ]
    return Posterior(np.concatenate(drawn), np.repeat([mistaken for _, mistaken in grid], counts))


def _basis(x: Floats, bend: float) -> Floats:
    """(B, D) functions whose sum with standard normal weights has the prior's covariance."""
    knots = np.linspace(x[0], x[-1], KNOTS)
    root = np.linalg.cholesky(_kernel(knots, knots) + 1e-6 * np.eye(KNOTS))
    bends = bend * np.linalg.solve(root, _kernel(knots, x)).T
    return np.column_stack([np.full(len(x), LEVEL[1]), SLOPE[1] * x, bends])


def _kernel(one: Floats, other: Floats) -> Floats:
    return np.asarray(np.exp(-(((one[:, None] - other) / REACH) ** 2) / 2))


def _laplace(basis: Floats, offset: Floats, wrong: Floats, right: Floats, mistaken: float) -> _Fit:
    """The mode by Fisher scoring with halved steps, and the covariance around it."""
    seen = wrong + right > 0
    rows, shift, wrong, total = basis[seen], offset[seen], wrong[seen], (wrong + right)[seen]

    def parts(weights: Floats) -> tuple[float, Floats, Floats]:
        p = expit(shift + rows @ weights)
        said = np.clip(mistaken + (1 - 2 * mistaken) * p, 1e-12, 1 - 1e-12)
        value = float(wrong @ np.log(said) + (total - wrong) @ np.log1p(-said) - weights @ weights / 2)
        slope = (1 - 2 * mistaken) * p * (1 - p)
        variance = said * (1 - said)
        return value, slope * (wrong - total * said) / variance, total * slope**2 / variance

    mode = np.zeros(basis.shape[1])
    value, gradient, information = parts(mode)
    for _ in range(STEPS):
        hessian = np.eye(len(mode)) + rows.T @ (information[:, None] * rows)
        step = np.linalg.solve(hessian, rows.T @ gradient - mode)
        size = 1.0
        while (found := parts(mode + size * step))[0] < value and size > 1e-4:
            size /= 2
        if found[0] - value < 1e-8:
            break
        mode, (value, gradient, information) = mode + size * step, found
    factor = np.linalg.cholesky(np.eye(len(mode)) + rows.T @ (information[:, None] * rows))
    return _Fit(mode, np.linalg.inv(factor).T, value - float(np.log(np.diag(factor)).sum()))


def _apportioned(shares: Floats, total: int) -> NDArray[np.int64]:
    """Whole numbers that sum to `total`, as near to the shares as can be."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts
