"""The method, as the paper tells it: two estimates of P(y|x), two selectors on each, their combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.config import AuditConfig, votes_needed
from clipaudit.copies.groups import overruled
from clipaudit.errors import UsageError
from clipaudit.selectors.base import Mixtures, evidence, measure
from clipaudit.selectors.combine import clean_scores, fallback, margins
from clipaudit.vocabulary import SELECTORS, EstimateTerm, verdicts_of

if TYPE_CHECKING:
    from torch import Tensor

    from clipaudit.estimates import Estimate, Estimator, Problem, Vectors


# Samples that are decided about at once: what is between scores and verdicts takes memory for these alone.
ROWS_AT_ONCE = 1 << 16
# What halves of scores up to 1 are short of 1/2.
_BELOW = 1e-9


@dataclass(frozen=True)
class EstimateScores:
    """What one estimate says about n samples.

    Attributes:
        prediction: (n,) int64, the most probable class.
        scores: (n,) arrays by the names of `clipaudit.vocabulary.SCORES`: `p_label` and `p_max` (float32, P(y_i | x_i)
            and max_k P(k | x_i)), and those of each selector.
    """

    prediction: NDArray[np.int64]
    scores: Mapping[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        """(n,) one of the scores."""
        return self.scores[name]


@dataclass(frozen=True)
class Scores:
    """Everything that an audit computes before it decides.

    Attributes:
        estimates: By the names of the configuration's `estimates`.
        mixtures: The same.
        suggested: (n,) int64, the most probable class under the mean of all estimates.
        suggested_probability: (n,) float32.
        converged: Whether the logistic regression reached its optimum.
    """

    estimates: Mapping[str, EstimateScores]
    mixtures: Mapping[str, Mixtures]
    suggested: NDArray[np.int64]
    suggested_probability: NDArray[np.float32]
    converged: bool

    def confirmed(self, labels: NDArray[np.int64], terms: Sequence[EstimateTerm]) -> NDArray[np.bool_]:
        """(n,) bool: an estimate that does not take the label as evidence finds it the most probable.

        Args:
            labels: (n,) the given ones.
            terms: The estimates.
        """
        own = [self.estimates[term.name].prediction for term in terms if not term.transition]
        return np.asarray((np.stack(own) == labels).any(axis=0))


@dataclass(frozen=True)
class Decision:
    """Clean or not. All arrays have length n.

    Attributes:
        verdicts: bool by the name of each verdict, whether it votes or not.
        is_clean: bool, the combination and the rescued samples.
        fallback: bool, rescued because their class would have ended empty.
        clean_score: float64 in [0, 1]; at least 1/2 exactly for the samples that are clean, but for the rescued.
    """

    verdicts: Mapping[str, NDArray[np.bool_]]
    is_clean: NDArray[np.bool_]
    fallback: NDArray[np.bool_]
    clean_score: NDArray[np.float64]


def score(
    vectors: Vectors,
    labels: Tensor,
    n_classes: int,
    texts: Tensor,
    owners: Sequence[int],
    config: AuditConfig,
    *,
    keys: Tensor | None = None,
    first: Tensor | None = None,
) -> Scores:
    """Estimate P(y|x) by each estimate of the configuration and split the losses of each class (eq. 3, 4, 6, 8).

    Args:
        vectors: n unit rows of d dimensions; their chunks come on the device that is to compute.
        labels: (n,) int64 in [0, n_classes), on the same device.
        n_classes: K.
        texts: (P, d) float32 unit rows, embeddings of the prompts, on the same device; none where zero-shot is silent.
        owners: Class of each prompt, ascending.
        config: Its temperature must be a number here.
        keys: (n,) int64, different for each sample, that draw the folds; None takes the order of the rows.
        first: (n,) int64, the first row with the same image; None where nobody looked for copies.

    Raises:
        UsageError: more folds or neighbours than there are samples.
    """
    from clipaudit.estimates import Problem, estimate

    _refuse_more_than(len(labels), config)
    problem = Problem(vectors, labels, n_classes, texts, owners, config, keys, first)
    estimators = [fitted(term, problem) for term in config.estimates]
    results, suggested, probability = estimate(estimators, vectors, labels)
    estimates, mixtures = {}, {}
    for term, result in zip(config.estimates, results, strict=True):
        estimates[term.name], mixtures[term.name] = _judge(result, labels, n_classes)
    converged = all(estimator.converged for estimator in estimators)
    return Scores(estimates, mixtures, suggested.cpu().numpy(), probability.cpu().numpy(), converged)


def _refuse_more_than(n: int, config: AuditConfig) -> None:
    """A configuration that asks for more than n samples can give."""
    for name, most in (("folds", n), ("neighbours", n - 1)):
        if name not in config.idle and (asked := getattr(config, name)) > most:
            raise UsageError(f"{name} must be at most {most:,} with {n:,} readable images, not {asked:,}.")


def fitted(term: EstimateTerm, problem: Problem) -> Estimator:
    """An estimate; one that fits in rounds leaves out, from the second on, labels that it disagreed with."""
    from clipaudit.estimates import estimate

    estimator = _weighed(term, problem)
    for _ in range(problem.config.rounds - 1 if "rounds" in term.options else 0):
        (before,), *_ = estimate([estimator], problem.vectors, problem.labels)
        problem = problem.keeping(_agreed(before.prediction, problem.labels, problem.n_classes))
        estimator = _weighed(term, problem)
    return estimator


def _weighed(term: EstimateTerm, problem: Problem) -> Estimator:
    """With the given label as evidence, where that is what the term says."""
    from clipaudit.estimates import fit_transition

    estimator = problem.estimator(term)
    if not term.transition:
        return estimator
    return fit_transition(estimator, problem.vectors, problem.labels, problem.n_classes)


def _agreed(prediction: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """(n,) bool: the label is the most probable class; of a class where it never is, all samples."""
    agreed = prediction == labels
    lost = labels.new_zeros(n_classes).index_add_(0, labels, agreed.to(labels.dtype)) == 0
    return agreed | lost[labels]


def _judge(result: Estimate, labels: Tensor, n_classes: int) -> tuple[EstimateScores, Mixtures]:
    scores: dict[str, NDArray[Any]] = {
        "p_label": np.exp(result.log_p_label.cpu().numpy()),
        "p_max": np.exp(result.log_p_max.cpu().numpy()),
    }
    measured = [measure(selector, result, labels, n_classes) for selector in SELECTORS.values()]
    for found in measured:
        scores |= found.scores
    (mixtures,) = (found.mixtures for found in measured if found.mixtures is not None)
    return EstimateScores(result.prediction.cpu().numpy(), scores), mixtures


def decide(
    estimates: Mapping[str, EstimateScores],
    labels: NDArray[np.int64],
    n_classes: int,
    config: AuditConfig,
    first: NDArray[np.int64] | None = None,
) -> Decision:
    """Apply the thresholds, combine the verdicts, rescue empty classes (section 3.5); of copies, trust one label.

    Args:
        estimates: n samples each, by the names of the configuration's `estimates`.
        labels: (n,) in [0, n_classes).
        n_classes: K.
        config: Thresholds, selectors and combination.
        first: (n,) the first row with the same image: of copies whose labels contradict each other, those that are
            trusted less are not clean. None where nobody looked for copies.
    """
    verdicts = {verdict.name: np.empty(len(labels), bool) for verdict in verdicts_of(config.estimates)}
    clean_score = np.empty(len(labels))
    for start in range(0, len(labels), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        clean_score[part] = _judged(estimates, config, part, verdicts)
    selected = clean_score >= 0.5
    # Zero-shot needs no labels; without texts the first induced estimate has to do.
    nearest = config.estimates[0].name
    rescued = fallback(selected, labels, n_classes, estimates[nearest]["p_label"])
    if first is not None:
        lost = overruled(first, labels, clean_score)
        clean_score = np.where(lost & selected, clean_score / 2 - _BELOW, clean_score)
        selected, rescued = selected & ~lost, rescued & ~lost
    return Decision(verdicts, selected | rescued, rescued, clean_score)


def _judged(
    estimates: Mapping[str, EstimateScores],
    config: AuditConfig,
    part: slice,
    verdicts: Mapping[str, NDArray[np.bool_]],
) -> NDArray[np.float64]:
    """The clean scores of some rows; their part of the verdicts is filled in."""
    found = {}
    for verdict in verdicts_of(config.estimates):
        values = estimates[verdict.estimate.name][evidence(verdict.selector, config)][part]
        found[verdict.name] = margins(values, getattr(config, verdict.selector.threshold))
        verdicts[verdict.name][part] = found[verdict.name] >= 0.5
    voting = np.stack([found[verdict.name] for verdict in config.voting])
    order = mean_probability(estimates, config, part) if config.ranking == "probability" else None
    return margins(clean_scores(voting, votes_needed(config.combine, len(voting)), order), config.threshold)


def mean_probability(
    estimates: Mapping[str, EstimateScores], config: AuditConfig, part: slice = slice(None)
) -> NDArray[np.float64]:
    """(n,) float64 P(y_i | x_i) of the given label, the mean of the induced estimates'; or of a part of the samples."""
    losses = [estimates[term.name]["loss"][part] for term in config.estimates if term.induced]
    # From the loss in double precision: probabilities next to 1 stay apart.
    probabilities = [np.exp(-loss.astype(np.float64)) for loss in losses]
    return np.asarray(np.mean(probabilities, axis=0))
