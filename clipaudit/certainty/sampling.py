"""Which samples a person should look at: every one has a known chance, a higher one where a mark teaches more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# This share of the marks is spread evenly: no region of the ranking goes unseen, however sure the model is there.
EVEN_SHARE = 0.2


def chances(spread: Floats, budget: int) -> Floats:
    """Chance of each sample to be drawn, for the smallest variance of the number of wrong labels (Neyman allocation).

    Args:
        spread: (n,) how uncertain it is whether the label is wrong: the expected sqrt(p (1 - p)).
        budget: Number of samples to draw, at most n.

    Returns:
        (n,) float64 in (0, 1], with the sum `budget`.
    """
    share = spread / spread.sum() if spread.any() else np.full(len(spread), 1 / len(spread))
    wanted = (1 - EVEN_SHARE) * share + EVEN_SHARE / len(spread)
    result = np.minimum(budget * wanted, 1.0)
    # What is sure to be drawn leaves the rest of the budget to the others.
    while (missing := budget - result.sum()) > 1e-9 * budget:
        open_ = result < 1
        result[open_] = np.minimum(result[open_] * (1 + missing / result[open_].sum()), 1.0)
    return result


def systematic(chance: Floats, order: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw samples with these chances, spread as evenly over an order as can be (systematic sampling).

    Args:
        chance: (n,) each in (0, 1]; the sum is a whole number.
        order: (n,) permutation; neighbours are rarely drawn together.
        generator: Draws one number, the start.

    Returns:
        Numbers of the drawn samples, each once, as many as the chances sum up to.
    """
    reached = np.cumsum(chance[order])
    budget = round(float(reached[-1]))
    # The sum of many chances is not exact: the last step must not fall beyond it.
    points = np.minimum(generator.uniform() + np.arange(budget), np.nextafter(reached[-1], 0))
    return np.sort(order[np.unique(np.searchsorted(reached, points, side="right"))])


def strata(ranking: Floats, labels: NDArray[np.int64], chance: Floats, n_classes: int) -> NDArray[np.int64]:
    """An order for `systematic`: along the ranking in strata, and in each of them by class.

    Args:
        ranking: (n,) scores.
        labels: (n,) classes.
        chance: (n,) of each sample to be drawn; a stratum is as large that about one sample of each class is drawn.
        n_classes: K. Where the budget is no two samples a class, the order is the ranking's.
    """
    order = np.argsort(ranking, kind="stable")
    count = round(float(chance.sum())) // n_classes
    if count < 2:
        return order
    stratum = np.empty(len(order), np.int64)
    stratum[order] = np.minimum(np.cumsum(chance[order]) // n_classes, count - 1)
    return np.lexsort((ranking, labels, stratum))
