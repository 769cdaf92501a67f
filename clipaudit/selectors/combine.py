"""From four verdicts to one: combination, the rescue of empty classes, and a score that agrees with both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
# Keeps a division by a threshold of 0 or 1 defined; its result is not used there.
_TINY = np.finfo(np.float64).tiny


def margins(values: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Move a threshold to 1/2: (n,) values in [0, 1] to [0, 1], monotone, >= 1/2 only where values >= threshold."""
    below = np.minimum(values, threshold) / (2 * max(threshold, _TINY))
    above = 1 - (1 - np.maximum(values, threshold)) / (2 * max(1 - threshold, _TINY))
    below = np.minimum(below, np.nextafter(0.5, 0))
    moved: NDArray[np.float64] = np.where(values >= threshold, above, below)
    return moved


def clean_scores(
    selector_margins: NDArray[np.float64], votes: int, order: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """A score in [0, 1] that is at least 1/2 exactly where `votes` selectors say clean, and orders both sides.

    The votes-th largest margin decides the side (for the intersection: the weakest verdict); within a side the mean of
    all margins gives the order, which knows more than the one that decides.

    Args:
        selector_margins: (s, n) from `margins`, one row a selector.
        votes: How many must agree.
        order: (n,) in [0, 1], to order by instead of the mean.

    Returns:
        (n,) float64.
    """
    deciding = np.sort(selector_margins, axis=0)[-votes]
    order = selector_margins.mean(axis=0) if order is None else order
    scores: NDArray[np.float64] = np.where(
        deciding >= 0.5, 0.5 + order / 2, np.minimum(order / 2, np.nextafter(0.5, 0))
    )
    return scores


def fallback(clean: Flags, labels: NDArray[np.int64], n_classes: int, p_label: NDArray[np.float32]) -> Flags:
    """Rescue classes that no sample was selected of.

    Each receives its max(1, floor(n / K^2)) samples of highest probability. (The published code sorts the
    other way round and takes the worst.)

    Args:
        clean: (n,) the combined selection.
        labels: (n,) in [0, n_classes).
        n_classes: K.
        p_label: (n,) P(y_i | x_i) by zero-shot where it speaks, or its logarithm.

    Returns:
        (n,) true for rescued samples.
    """
    rescued = np.zeros_like(clean)
    quota = max(1, len(labels) // n_classes**2)
    empty = (np.bincount(labels, minlength=n_classes) > 0) & (np.bincount(labels[clean], minlength=n_classes) == 0)
    for k in np.flatnonzero(empty):
        members = np.flatnonzero(labels == k)
        best = members[np.argsort(-p_label[members], kind="stable")[:quota]]
        rescued[best] = True
    return rescued
