"""How good an audit was, where the truth is known (the paper's Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.auditing.config import AuditConfig
from clipaudit.errors import SourceError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.truth import match_truth
from clipaudit.selectors.combine import SELECTORS


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


@dataclass(frozen=True)
class Evaluation:
    """An audit held against the truth.

    After a review, `overall` and `classes` judge the labels and flags as the review left them; AUROC, `selectors` and
    `suggestion_accuracy` judge the audit, whose scores are about the labels given before.

    Attributes:
        overall: The combined flags and `clean_score`.
        selectors: Each of the four selectors alone, with its own score.
        classes: The combined flags, by label.
        suggestion_accuracy: Share of the wrong labels for which the suggested label is the true one.
        n_unreadable: Samples without a score; they are not judged.
        matched_by: How the truth was matched to the samples: "path", "id" or "row order".
        warnings: What makes the audit, or this comparison, implausible.
        notes: Which true classes were read as which, and which ones the audit does not know.
    """

    overall: Metrics
    selectors: Mapping[str, Metrics]
    classes: Mapping[str, Metrics]
    suggestion_accuracy: float | None
    n_unreadable: int
    matched_by: str
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return asdict(self)


def evaluate(index: CleanIndex, truth: str | Path | Sequence[str], *, names: Sequence[str] | None = None) -> Evaluation:
    """Hold an index against true labels.

    Args:
        index: From `select` or `read_index`.
        truth: `FILE[:COLUMN]` (matched by path, or row by row), or one true class name a sample.
        names: Class names, where the truth is in class indices.

    Raises:
        SourceError: the truth does not cover the samples, or shares no class with the labels.
    """
    matched = match_truth(index, truth, names=names)
    values, readable = matched.values, index.readable
    if not readable.any():
        raise SourceError("the index has no readable sample, so that there is nothing to evaluate.")
    table, values = index.table.filter(readable), values[readable]
    labels = np.asarray(table["label"].to_pylist(), object)
    right = labels == values
    right_given = np.asarray(index.class_names, object)[index.scored_labels()[readable]] == values
    is_clean, scores = index.is_clean[readable], table["clean_score"].to_numpy()
    selectors = {}
    for name in SELECTORS:
        value = table[deciding_column(name, index.config)].to_numpy()
        selectors[name] = metrics(right_given, table[f"{name}_clean"].to_numpy(zero_copy_only=False), value)
    classes = {
        name: metrics(right[mine], is_clean[mine], scores[mine], right_given[mine])
        for name in index.class_names
        if (mine := labels == name).any()
    }
    suggested = np.asarray(table["suggested_label"].to_pylist(), object)
    found = float((suggested == values)[~right_given].mean()) if (~right_given).any() else None
    overall = metrics(right, is_clean, scores, right_given)
    unread, warnings = int((~readable).sum()), [*index.metadata["warnings"], *matched.warnings]
    return Evaluation(overall, selectors, classes, found, unread, matched.matched_by, warnings, matched.notes)


def deciding_column(selector: str, config: AuditConfig) -> str:
    """The column of an index that this selector puts its threshold on."""
    return selector.replace("_loss", "_posterior_raw" if config.raw_posterior else "_posterior")


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
