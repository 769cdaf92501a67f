"""What an audit says beside its result: all that is doubtful about labels, prompts and estimates, in their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clipaudit.auditing.labels import AuditedLabels
from clipaudit.auditing.method import Scores
from clipaudit.auditing.plausibility import (
    MIN_CLASS,
    MOST,
    class_warnings,
    prompt_warnings,
    score_warnings,
    some,
)
from clipaudit.prompts.sets import ClassPrompts
from clipaudit.vocabulary import EstimateTerm


def predictions(scores: Scores, estimates: Sequence[EstimateTerm]) -> dict[str, NDArray[np.int64]]:
    """Of each estimate, by its title and in their order, (n,) the most probable class."""
    return {term.title: scores.estimates[term.name].prediction for term in estimates}


def audit_warnings(
    audited: AuditedLabels,
    prompts: ClassPrompts,
    texts: NDArray[np.float32],
    scores: Scores,
    given: NDArray[np.int64],
    estimates: Sequence[EstimateTerm],
) -> list[str]:
    """What is doubtful about an audit before it decides.

    Args:
        audited: The labels, of all samples.
        prompts: P prompts of the classes; none where zero-shot does not speak.
        texts: (P, d) unit rows, their embeddings.
        scores: Of the n readable samples.
        given: (n,) their labels.
        estimates: Those of the scores.
    """
    names = audited.class_names
    return [
        *audited.warnings,
        *class_warnings(audited.counts()),
        *(prompt_warnings(names, prompts.texts, prompts.owners, texts) if prompts.texts else ()),
        *_absent(names, given),
        *_plain(prompts),
        *_not_worked_out(names, scores, given, estimates),
        *(score_warnings(names, given, predictions(scores, estimates)) if prompts.texts else ()),
    ]


def _absent(names: list[str], given: NDArray[np.int64]) -> list[str]:
    absent = [names[k] for k in np.flatnonzero(np.bincount(given, minlength=len(names)) == 0)]
    return [f"no readable image has the label {some(absent)}"] if absent else []


def _plain(prompts: ClassPrompts) -> list[str]:
    """Classes that nothing but their names is known of."""
    if prompts.source == "plain templates":
        return ["no prompt set: plain templates used for all classes; features make the zero-shot estimate better"]
    if prompts.plain:
        return [f"prompt set {prompts.source!r} has no features for {some(prompts.plain)}: plain templates used"]
    return []


def _not_worked_out(
    names: list[str], scores: Scores, given: NDArray[np.int64], estimates: Sequence[EstimateTerm]
) -> list[str]:
    """Fits without anything to fit, or that did not reach their optimum."""
    counts, warnings = np.bincount(given, minlength=len(names)), []
    for term in estimates:
        mixture = scores.mixtures[term.name]
        if kept := [names[k] for k in np.flatnonzero(mixture.abstained & (counts > 0))]:
            warnings.append(
                f"the {term.title} losses of {some(kept)} have nothing to split: that selector keeps them all"
            )
        if stopped := [names[k] for k in np.flatnonzero(~mixture.converged)]:
            warnings.append(
                f"the mixture of the {term.title} losses of {some(stopped)} stopped before its optimum; its posteriors"
                " may be off"
            )
    if not scores.converged:
        warnings.append("the logistic regression stopped before its optimum; its probabilities may be off")
    return warnings


def stranger_warnings(names: list[str], given: NDArray[np.int64], misplaced: NDArray[np.bool_]) -> list[str]:
    """Classes most of whose images seem to show none of the classes.

    Args:
        names: K class names.
        given: (n,) labels.
        misplaced: (n,) the image shows rather none of the classes than any, and its label is another than that of such.
    """
    sizes, found = (np.bincount(labels, minlength=len(names)) for labels in (given, given[misplaced]))
    most = [names[k] for k in np.flatnonzero((sizes >= MIN_CLASS) & (found > MOST * sizes))]
    if not most:
        return []
    return [
        f"most images labelled {some(most)} seem to show none of the classes. Either they do, or the prompts do not say"
        " what they show."
    ]
