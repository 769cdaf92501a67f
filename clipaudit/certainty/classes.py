"""How many labels of each class are wrong: a class may be better or worse than the ranking alone says.

The logit of P(wrong) of a sample of class k is f(x) + u_k, with a normal u_k, or the class is flawless. How much
classes differ and how many are flawless is weighed by the evidence, as are the sizes of the bend in `curve`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logit, logsumexp, softmax

from clipaudit.certainty.survey import Surveyed

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

DRAWS, BINS = 250, 60
# Of a class with fewer marks on drawn samples nothing is said.
MARKS_FOR_A_CLASS = 5
# What u_k may be, deviations of it over the classes, and shares of flawless classes.
EFFECTS = np.linspace(-4.8, 4.8, 25)
DEVIATIONS, FLAWLESS = (0.25, 0.7, 1.5), (0.0, 0.1, 0.3)
TINY = 1e-12


@dataclass(frozen=True)
class _Coarse:
    """Draws of the curve over few bins: `p` (S, B), `mistaken` (S, 1), and the bin of each sample."""

    p: Floats
    mistaken: Floats
    of: Counts


def wrong_by_class(found: Surveyed, labels: Counts, n_classes: int, generator: np.random.Generator) -> Counts:
    """(S, K) int64 draws of the number of wrong labels of each class.

    Args:
        found: From `survey`.
        labels: (n,) class of each sample.
        n_classes: K.
        generator: Draws.
    """
    coarse, marks = _coarse(found), found.marks
    effects, flawless = _effects(coarse, found, labels, n_classes, generator)
    cells, counts = np.unique(labels[marks.open] * BINS + coarse.of[marks.open], return_counts=True)
    k, b = np.divmod(cells, BINS)
    p = expit(logit(coarse.p[:, b]) + effects[:, k])
    drawn = generator.binomial(counts, np.where(flawless[:, k], 0.0, p))
    total = np.zeros((len(p), n_classes), np.int64)
    starts = np.flatnonzero(np.diff(k, prepend=-1))
    if len(starts):
        total[:, k[starts]] = np.add.reduceat(drawn, starts, axis=1)
    return total + np.bincount(labels[marks.wrong | marks.known_wrong], minlength=n_classes)


def _coarse(found: Surveyed) -> _Coarse:
    """Every few bins as one."""
    curve, bins = found.curve, found.bins
    rows = np.linspace(0, len(curve.p_wrong) - 1, min(DRAWS, len(curve.p_wrong))).astype(int)
    of = np.arange(len(bins.x)) * BINS // len(bins.x)
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    size = np.add.reduceat(bins.size, starts)
    p = np.add.reduceat(curve.p_wrong[rows] * bins.size, starts, axis=1) / size
    within = np.zeros((len(rows), BINS))
    within[:, of[starts]] = np.clip(p, TINY, 1 - TINY)
    within[within == 0] = 0.5
    return _Coarse(within, curve.mistaken[rows][:, None], of[bins.of])


def _effects(
    coarse: _Coarse, found: Surveyed, labels: Counts, n_classes: int, generator: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """(S, K) draws of each class's u_k, and of whether it is flawless."""
    marked, evidence = _evidence(coarse, found, labels)
    priors = np.array([_log_prior(deviation, share) for deviation, share in product(DEVIATIONS, FLAWLESS)])
    scores = [logsumexp(evidence + prior, axis=2).sum(axis=1).mean() for prior in priors]
    chosen = priors[generator.choice(len(priors), size=len(evidence), p=softmax(scores))]
    # A class without marks is as classes are.
    drawn = _one_of(np.repeat(softmax(chosen, axis=1)[:, None], n_classes, axis=1), generator)
    drawn[:, marked] = _one_of(softmax(evidence + chosen[:, None], axis=2), generator)
    return EFFECTS[np.minimum(drawn, len(EFFECTS) - 1)], drawn == len(EFFECTS)


def _one_of(shares: Floats, generator: np.random.Generator) -> Counts:
    """The number of one of the entries along the last axis, drawn with these probabilities."""
    reached = np.cumsum(shares, axis=-1)
    point = generator.uniform(size=(*shares.shape[:-1], 1)) * reached[..., -1:]
    return np.asarray((reached <= point).sum(axis=-1))


def _log_prior(deviation: float, flawless: float) -> Floats:
    """(G + 1,) log-probability of each effect, and of the class being flawless."""
    normal = log_softmax(-((EFFECTS / deviation) ** 2) / 2)
    return np.append(normal + np.log1p(-flawless), np.log(flawless) if flawless else -np.inf)


def _evidence(coarse: _Coarse, found: Surveyed, labels: Counts) -> tuple[Counts, Floats]:
    """The M classes with marks, and (S, M, G + 1) log-likelihoods of these, by effect and for being flawless."""
    drawn = np.flatnonzero(found.marks.wrong | found.marks.right)
    drawn = drawn[np.argsort(labels[drawn], kind="stable")]
    if not len(drawn):
        return drawn, np.zeros((len(coarse.p), 0, len(EFFECTS) + 1))
    p = expit(logit(coarse.p[:, coarse.of[drawn]])[:, :, None] + EFFECTS)
    p = np.concatenate([p, np.zeros((*p.shape[:2], 1))], axis=2)
    mistaken = coarse.mistaken[:, :, None]
    said_wrong = np.clip(mistaken + (1 - 2 * mistaken) * p, TINY, 1 - TINY)
    each = np.log(np.where(found.marks.wrong[drawn][:, None], said_wrong, 1 - said_wrong))
    starts = np.flatnonzero(np.diff(labels[drawn], prepend=-1))
    return labels[drawn[starts]], np.add.reduceat(each, starts, axis=1)
