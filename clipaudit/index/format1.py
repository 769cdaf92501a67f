"""Format 1 of the index, which called every estimate beside zero-shot "induced", whatever it was: still read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clipaudit.index.check import Column, columns_of
from clipaudit.vocabulary import INDUCED, SCORES, EstimateTerm, estimates_of, verdicts_of

_INDUCED = "induced"
_SCORES = {"raw_posterior": "posterior_raw"}


def former_names(estimates: Sequence[EstimateTerm]) -> dict[str, str]:
    """What format 1 called the columns that have another name now, by this name."""
    names = {}
    for term in estimates:
        former = replace(term, name=_INDUCED) if term.induced else term
        for score in ("label", *(score.name for score in SCORES)):
            names[term.column(score)] = former.column(_SCORES.get(score, score))
    for verdict in verdicts_of(estimates):
        if verdict.estimate.induced:
            names[verdict.column] = replace(verdict, estimate=replace(verdict.estimate, name=_INDUCED)).column
    return {new: old for new, old in names.items() if new != old}


def former_columns(estimates: Sequence[EstimateTerm]) -> tuple[Column, ...]:
    """The columns of an index of format 1."""
    names = former_names(estimates)
    return tuple(replace(column, name=names.get(column.name, column.name)) for column in columns_of(estimates))


def upgraded(content: Any) -> Any:
    """The metadata of format 1 as format 2 has it; what is not valid stays so."""
    config, mixtures = (content.get(name) if isinstance(content, dict) else None for name in ("config", "mixtures"))
    if not isinstance(config, dict) or not isinstance(mixtures, dict):
        return content
    names = {}
    if (induced := config.get("induced")) in INDUCED:
        (_, term) = estimates_of([induced], transition=config.get("transition") is True)
        names = {_INDUCED: term.name}
    return {**content, "mixtures": {names.get(name, name): _converged(fit) for name, fit in mixtures.items()}}


def _converged(fit: Any) -> Any:
    """The first indices of format 1 did not say which mixtures converged."""
    if isinstance(fit, dict) and isinstance(fit.get("abstained"), list):
        return {"converged": [True] * len(fit["abstained"]), **fit}
    return fit
