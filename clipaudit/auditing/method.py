"""The method, as the paper tells it: two estimates of P(y|x), two selectors on each, their combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.auditing.config import AuditConfig
from clipaudit.errors import UsageError
from clipaudit.selectors.combine import clean_scores, fallback, margins, votes_needed
from clipaudit.selectors.consistency import consistency

if TYPE_CHECKING:
    from torch import Tensor

    from clipaudit.estimates import Estimate, Estimator

ESTIMATES = ("zero_shot", "induced")


@dataclass(frozen=True)
class EstimateScores:
    """What one estimate says about n samples. All arrays have length n.

    Attributes:
        p_label: float32, P(y_i | x_i).
        p_max: float32, max_k P(k | x_i).
        prediction: int64, the class that reaches it.
        consistency: float64, eq. 5.
        loss: float32, -log P(y_i | x_i), eq. 6.
        posterior: float64, of the low-loss component, monotone in the loss.
        raw_posterior: float64, the same as the mixture gives it.
    """

    p_label: NDArray[np.float32]
    p_max: NDArray[np.float32]
    prediction: NDArray[np.int64]
    consistency: NDArray[np.float64]
    loss: NDArray[np.float32]
    posterior: NDArray[np.float64]
    raw_posterior: NDArray[np.float64]


@dataclass(frozen=True)
class Mixtures:
    """The per-class mixtures over one estimate's losses, for the report. NaN where a class was not split.

    Attributes:
        weights, means, deviations: (K, 2) float64, low-loss component first; means and deviations in units of the loss.
        abstained: (K,) bool.
        converged: (K,) bool; true where a class was not split.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    abstained: NDArray[np.bool_]
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """Everything that an audit computes before it decides.

    Attributes:
        estimates: "zero_shot" and "induced".
        mixtures: The same.
        suggested: (n,) int64, the most probable class under the mean of both estimates.
        suggested_probability: (n,) float32.
        converged: Whether the logistic regression reached its optimum.
    """

    estimates: Mapping[str, EstimateScores]
    mixtures: Mapping[str, Mixtures]
    suggested: NDArray[np.int64]
    suggested_probability: NDArray[np.float32]
    converged: bool


@dataclass(frozen=True)
class Decision:
    """Clean or not. All arrays have length n.

    Attributes:
        verdicts: bool for each of the four selectors, whether it votes or not.
        is_clean: bool, the combination and the rescued samples.
        fallback: bool, rescued because their class would have ended empty.
        clean_score: float64 in [0, 1]; at least 1/2 exactly for the samples that are clean, but for the rescued.
    """

    verdicts: Mapping[str, NDArray[np.bool_]]
    is_clean: NDArray[np.bool_]
    fallback: NDArray[np.bool_]
    clean_score: NDArray[np.float64]


def score(
    embeddings: Tensor,
    labels: Tensor,
    n_classes: int,
    texts: Tensor,
    owners: Sequence[int],
    config: AuditConfig,
    *,
    keys: Tensor | None = None,
) -> Scores:
    """Estimate P(y|x) twice and split the losses of each class (eq. 3, 4, 6, 8).

    Args:
        embeddings: (n, d) float16 or float32 unit rows, on the device that is to compute.
        labels: (n,) int64 in [0, n_classes), on the same device.
        n_classes: K.
        texts: (P, d) float32 unit rows, embeddings of the prompts, on the same device.
        owners: Class of each prompt, ascending.
        config: Its temperature must be a number here.
        keys: (n,) int64, different for each sample, that draw the folds; None takes the order of the rows.

    Raises:
        UsageError: more folds or neighbours than there are samples.
    """
    from clipaudit.estimates import ZeroShot, estimate

    _refuse_more_than(len(labels), config)

    zero_shot = ZeroShot(texts, owners, float(config.temperature))
    induced, converged = _induced(embeddings, labels, n_classes, zero_shot, config, keys)
    for _ in range(config.rounds - 1):
        (before,), *_ = estimate([induced], embeddings, labels)
        kept = _agreed(before.prediction, labels, n_classes)
        induced, converged = _induced(embeddings, labels, n_classes, zero_shot, config, keys, kept)
    (by_text, by_labels), suggested, probability = estimate([zero_shot, induced], embeddings, labels)
    estimates, mixtures = {}, {}
    for name, result in zip(ESTIMATES, (by_text, by_labels), strict=True):
        estimates[name], mixtures[name] = _judge(result, labels, n_classes)
    return Scores(estimates, mixtures, suggested.cpu().numpy(), probability.cpu().numpy(), converged)


def _refuse_more_than(n: int, config: AuditConfig) -> None:
    """A configuration that asks for more than n samples can give."""
    for name, most in (("folds", n), ("neighbours", n - 1)):
        if name not in config.idle and (asked := getattr(config, name)) > most:
            raise UsageError(f"{name} must be at most {most:,} with {n:,} readable images, not {asked:,}.")


def _induced(
    embeddings: Tensor,
    labels: Tensor,
    n_classes: int,
    zero_shot: Estimator,
    config: AuditConfig,
    keys: Tensor | None,
    kept: Tensor | None = None,
) -> tuple[Estimator, bool]:
    from clipaudit.estimates import Joint, Neighbours, fit_folded_logistic, fit_transition

    induced: Estimator
    converged = True
    if config.induced == "neighbours":
        induced = Neighbours(embeddings, labels, n_classes, config.neighbours)
    else:
        fitted = fit_folded_logistic(
            embeddings,
            labels,
            n_classes,
            c=config.c,
            balanced=config.balanced,
            folds=config.folds,
            keys=keys,
            kept=kept,
        )
        induced = Joint(zero_shot, fitted) if config.induced == "joint" else fitted
        converged = fitted.converged
    return fit_transition(induced, embeddings, labels, n_classes) if config.transition else induced, converged


def _agreed(prediction: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """(n,) bool: the label is the most probable class; of a class where it never is, all samples."""
    agreed = prediction == labels
    lost = labels.new_zeros(n_classes).index_add_(0, labels, agreed.to(labels.dtype)) == 0
    return agreed | lost[labels]


def _judge(result: Estimate, labels: Tensor, n_classes: int) -> tuple[EstimateScores, Mixtures]:
    from clipaudit.selectors.mixture import split_losses

    losses = -result.log_p_label
    split = split_losses(losses, labels, n_classes)
    log_p_label, log_p_max = result.log_p_label.cpu().numpy(), result.log_p_max.cpu().numpy()
    scores = EstimateScores(
        p_label=np.exp(log_p_label),
        p_max=np.exp(log_p_max),
        prediction=result.prediction.cpu().numpy(),
        consistency=consistency(log_p_label, log_p_max),
        loss=losses.cpu().numpy(),
        posterior=split.posterior.cpu().numpy(),
        raw_posterior=split.raw_posterior.cpu().numpy(),
    )
    parts: list[Any] = [split.weights, split.means, split.deviations, split.abstained, split.converged]
    return scores, Mixtures(*(part.cpu().numpy() for part in parts))


def decide(
    estimates: Mapping[str, EstimateScores], labels: NDArray[np.int64], n_classes: int, config: AuditConfig
) -> Decision:
    """Apply the thresholds, combine the verdicts, rescue empty classes (section 3.5).

    Args:
        estimates: "zero_shot" and "induced", n samples each.
        labels: (n,) in [0, n_classes).
        n_classes: K.
        config: Thresholds, selectors and combination.
    """
    all_margins = {}
    for name, scores in estimates.items():
        posterior = scores.raw_posterior if config.raw_posterior else scores.posterior
        all_margins[f"{name}_consistency"] = margins(scores.consistency, config.theta_consistency)
        all_margins[f"{name}_loss"] = margins(posterior, config.theta_loss)
    voting = np.stack([all_margins[name] for name in config.selectors])
    # From the loss in double precision: probabilities next to 1 stay apart.
    order = np.exp(-estimates["induced"].loss.astype(np.float64)) if config.ranking == "probability" else None
    clean_score = margins(clean_scores(voting, votes_needed(config.combine, len(voting)), order), config.threshold)
    selected = clean_score >= 0.5
    rescued = fallback(selected, labels, n_classes, estimates["zero_shot"].p_label)
    verdicts = {name: margin >= 0.5 for name, margin in all_margins.items()}
    return Decision(verdicts, selected | rescued, rescued, clean_score)
