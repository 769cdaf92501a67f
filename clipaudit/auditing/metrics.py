"""Flags and scores compared with the truth: ratios, AUROC, the threshold that suits best; arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metrics:
    """Agreement of clean/noisy flags with the truth. Ratios are None where they have no denominator.

    Attributes:
        n: Samples judged.
        noise_rate: Share of wrong labels among them.
        clean_precision: Of the samples called clean, how many have a right label.
        clean_recall: Of the right labels, how many were called clean.
        clean_f1: Harmonic mean of the two.
        noisy_precision: Of the samples called noisy, how many have a wrong label.
        noisy_recall: Of the wrong labels, how many were called noisy.
        noisy_f1: Harmonic mean of the two.
        auroc: Probability that a right label has a higher score than a wrong one.
    """

    n: int
    noise_rate: float | None
    clean_precision: float | None
    clean_recall: float | None
    clean_f1: float | None
    noisy_precision: float | None
    noisy_recall: float | None
    noisy_f1: float | None
    auroc: float | None


def metrics(
    right: NDArray[np.bool_],
    is_clean: NDArray[np.bool_],
    scores: NDArray[np.float64],
    right_scored: NDArray[np.bool_] | None = None,
) -> Metrics:
    """Compare flags and scores with the truth.

    Args:
        right: (n,) the label is the true one.
        is_clean: (n,) the audit says so.
        scores: (n,) higher is cleaner.
        right_scored: (n,) the label that the scores are about is the true one; None where that is the same label.
    """
    from sklearn.metrics import roc_auc_score

    clean_precision, clean_recall, clean_f1 = _precision_recall_f1(right, is_clean)
    noisy_precision, noisy_recall, noisy_f1 = _precision_recall_f1(~right, ~is_clean)
    right_scored = right if right_scored is None else right_scored
    both_kinds = right_scored.any() and not right_scored.all()
    return Metrics(
        n=len(right),
        noise_rate=_ratio((~right).sum(), len(right)),
        clean_precision=clean_precision,
        clean_recall=clean_recall,
        clean_f1=clean_f1,
        noisy_precision=noisy_precision,
        noisy_recall=noisy_recall,
        noisy_f1=noisy_f1,
        auroc=float(roc_auc_score(right_scored, scores)) if both_kinds else None,
    )


def best_threshold(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float]:
    """Where to part clean from noisy, such that the F1 of the wrong labels is highest.

    Args:
        scores: (n,) higher is cleaner.
        right: (n,) the label is the true one; some are not.

    Returns:
        The threshold, which clean scores reach, half-way between two scores or above all of them; and the F1.
    """
    order = np.argsort(scores, kind="stable")
    called_noisy, found = np.arange(1, len(order) + 1), np.cumsum(~right[order])
    f1 = 2 * found / (called_noisy + found[-1])
    ranked = scores[order]
    following = np.append(ranked[1:], np.inf)
    # Nothing parts equal scores.
    best = int(np.where(ranked < following, f1, -1).argmax())
    middle = (ranked[best] + following[best]) / 2
    return float(middle if middle > ranked[best] else following[best]), float(f1[best])


def _precision_recall_f1(
    actual: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> tuple[float | None, float | None, float | None]:
    hits = int((actual & predicted).sum())
    return _ratio(hits, predicted.sum()), _ratio(hits, actual.sum()), _ratio(2 * hits, actual.sum() + predicted.sum())


def _ratio(numerator: Any, denominator: Any) -> float | None:
    return float(numerator) / float(denominator) if denominator else None
