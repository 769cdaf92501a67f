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
NO_EFFECT = len(EFFECTS) // 2
DEVIATIONS, FLAWLESS = (0.25, 0.7, 1.5), (0.0, 0.1, 0.3, 0.5)
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
    marks = found.marks
    coarse, effects, flawless = _effects(_coarse(found), found, labels, n_classes, generator)
    cells, counts = np.unique(labels[marks.open] * BINS + coarse.of[marks.open], return_counts=True)
    k, b = np.divmod(cells, BINS)
    p = _within(coarse, b, k, effects, flawless)
    total = _summed(generator.binomial(counts, p), k, n_classes)
    drawn = np.flatnonzero(marks.wrong | marks.right)
    drawn = drawn[np.argsort(labels[drawn], kind="stable")]
    p = _within(coarse, coarse.of[drawn], labels[drawn], effects, flawless)
    # A mark may be mistaken.
    said_wrong = np.clip(coarse.mistaken + (1 - 2 * coarse.mistaken) * p, TINY, 1 - TINY)
    if_wrong, if_right = (1 - coarse.mistaken) * p / said_wrong, coarse.mistaken * p / (1 - said_wrong)
    truly = np.clip(np.where(marks.wrong[drawn], if_wrong, if_right), 0, 1)
    total += _summed(generator.binomial(1, truly), labels[drawn], n_classes)
    return total + np.bincount(labels[marks.known_wrong], minlength=n_classes)


def _within(coarse: _Coarse, bins: Counts, classes: Counts, effects: Floats, flawless: NDArray[np.bool_]) -> Floats:
    """(S, c) P(wrong) in c cells, each a bin and a class."""
    p = expit(logit(coarse.p[:, bins]) + effects[:, classes])
    return np.where(flawless[:, classes], 0.0, p)


def _summed(counts: Counts, classes: Counts, n_classes: int) -> Counts:
    """(S, K) sums of (S, c) counts by their class, which ascends."""
    total = np.zeros((len(counts), n_classes), np.int64)
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    if len(starts):
        total[:, classes[starts]] = np.add.reduceat(counts, starts, axis=1)
    return total


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
) -> tuple[_Coarse, Floats, NDArray[np.bool_]]:
    """Draws of the curve that suit the classes, and for each (S, K) u_k and whether the class is flawless."""
    marked, evidence = _evidence(coarse, found, labels)
    priors = np.array([_log_prior(deviation, share) for deviation, share in product(DEVIATIONS, FLAWLESS)])
    scores = np.array([logsumexp(evidence + prior, axis=2).sum(axis=1) for prior in priors])
    # The curve was learnt as if classes were alike: a draw counts the more, the more the marks gain by differences.
    scores -= evidence[:, :, NO_EFFECT].sum(axis=1)
    chosen = generator.choice(scores.size, size=len(evidence), p=softmax(scores, axis=None).ravel())
    which, rows = np.divmod(chosen, len(evidence))
    # A class without marks is as classes are.
    drawn = _one_of(np.repeat(softmax(priors[which], axis=1)[:, None], n_classes, axis=1), generator)
    drawn[:, marked] = _one_of(softmax(evidence[rows] + priors[which][:, None], axis=2), generator)
    chosen_draws = _Coarse(coarse.p[rows], coarse.mistaken[rows], coarse.of)
    return chosen_draws, EFFECTS[np.minimum(drawn, len(EFFECTS) - 1)], drawn == len(EFFECTS)


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
    marks = found.marks
    drawn = np.flatnonzero(marks.wrong | marks.right)
    cells, of = np.unique(labels[drawn] * BINS + coarse.of[drawn], return_inverse=True)
    k, b = np.divmod(cells, BINS)
    if not len(cells):
        return cells, np.zeros((len(coarse.p), 0, len(EFFECTS) + 1))
    wrong = np.bincount(of, marks.wrong[drawn])[:, None]
    right = np.bincount(of, marks.right[drawn])[:, None]
    p = expit(logit(coarse.p[:, b])[:, :, None] + EFFECTS)
    p = np.concatenate([p, np.zeros((*p.shape[:2], 1))], axis=2)
    mistaken = coarse.mistaken[:, :, None]
    said_wrong = np.clip(mistaken + (1 - 2 * mistaken) * p, TINY, 1 - TINY)
    each = wrong * np.log(said_wrong) + right * np.log1p(-said_wrong)
    starts = np.flatnonzero(np.diff(k, prepend=-1))
    return k[starts], np.add.reduceat(each, starts, axis=1)
