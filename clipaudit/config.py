"""The configuration of an audit: the paper's symbols, the paper's defaults, the published presets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from clipaudit.errors import UsageError
from clipaudit.options import Option, Options, option
from clipaudit.options.arguments import typed
from clipaudit.options.kinds import SEED, SHARE, Choice, Kind, Names, Range, Switch
from clipaudit.text import excerpt
from clipaudit.vocabulary import (
    ESTIMATES,
    INDUCED,
    ROLES,
    ZERO_SHOT,
    EstimateTerm,
    Verdict,
    estimates_of,
    verdicts_named,
)

_K_OF_M = re.compile(r"([0-9]{1,3})-of-([0-9]{1,3})")
_COMBINATIONS = {"intersection": "all", "union": "one", "majority": "more than half"}
_RANKINGS = {"margins": "of the selectors that vote", "probability": "of the label, by the induced estimate"}
# A title that says no more than the name is left out.
_ESTIMATES = {name: title if (title := ESTIMATES[name].title) != name else "" for name in INDUCED}
# Those of the selectors that vote where nobody describes the classes by texts.
_WITHOUT_TEXTS = tuple(name for name in ROLES if not name.startswith(ZERO_SHOT.name))


class _Combination(Kind):
    """How many of the selectors must agree, by a word or a number of all."""

    invalid = ("most", "2-of", "", 3, True, [])
    words = f": {', '.join(f'{word} ({votes})' for word, votes in _COMBINATIONS.items())} or K-of-M, such as 2-of-4"

    def take(self, name: str, value: Any) -> str:
        """The word."""
        if not isinstance(value, str) or not (value in _COMBINATIONS or _K_OF_M.fullmatch(value)):
            raise UsageError(f"unknown combination {excerpt(value)}. Choose from: {', '.join(_COMBINATIONS)}, K-of-M.")
        return value


# Beyond the ends of its range a number is a slip of the keyboard, or asks for work that gains nothing: with 20 folds,
# each model sees 95 % of the samples already.
@dataclass(frozen=True)
class AuditConfig(Options):
    """How an audit decides. Everything that scores depend on, and everything that only flags depend on.

    `clipaudit.preset(name)` gives the published ones; docs/options.md lists all fields, with ranges and defaults.
    """

    threshold: float = option(
        0.5,
        SHARE,
        "Minimum clean_score of a clean sample",
        panel="Options",
        note="with --from also reviewed: the value that best separates correct from incorrect labels in the review",
    )
    zero_shot: bool = option(
        True,
        Switch(),
        "Let the zero-shot estimate speak, which compares images with texts about the classes",
        panel="Options",
        note="without it, only the induced estimate decides, which learns from the labels that it judges",
    )
    temperature: float | str = option(
        0.07,
        Range(1e-4, 1e4, apart=("model",)),
        "Temperature T of the zero-shot softmax",
        note="model is the model's own, 1 / logit scale",
    )
    induced: str = option(
        "logistic", Names("induced estimate", _ESTIMATES, joined=True), "Estimate of P(y|x) beside zero-shot"
    )
    c: float = option(1.0, Range(1e-6, 1e4), "Inverse strength of the logistic regression's L2 penalty", flag="--c")
    balanced: bool = option(
        True, Switch(), "Weigh each class by the inverse of its size in the logistic regression: N / (K n_k)"
    )
    folds: int = option(
        0,
        Range(2, 20, whole=True, apart=(0,)),
        "Number of folds, so that each sample is judged by a model that was not fitted on it",
        note="0 fits one model on all samples",
    )
    rounds: int = option(
        1,
        Range(1, 100, whole=True),
        "Number of fits",
        note="each later fit uses only samples whose label the previous one predicted",
    )
    fit_samples: int = option(
        5_000_000,
        Range(1_000, 1_000_000_000, whole=True, apart=(0,)),
        "Number of samples above which the logistic regression is fitted on a stratified sample of so many first",
        note="few passes over all then correct it to 1e-2 in any probability; 0 fits on all from the start",
    )
    transition: bool = option(
        False,
        Switch(),
        "Treat the given label as evidence: weigh the induced estimate by the noise transition matrix, found by EM",
    )
    neighbours: int = option(50, Range(1, 1_000_000, whole=True), "Number of nearest neighbours")
    seed: int = option(0, SEED, "Random seed of what is drawn, folds and samples to fit on, by the samples' ids")
    theta_consistency: float = option(
        1.0, SHARE, "Minimum ratio of the label's probability to the highest class probability"
    )
    theta_loss: float = option(0.5, SHARE, "Minimum posterior of the low-loss component for a clean label")
    raw_posterior: bool = option(
        False,
        Switch(),
        "Use the mixture's posterior as it is, as the published code does, or make it monotone in the loss",
        flag="--raw-posterior/--monotone-posterior",
    )
    selectors: tuple[str, ...] = option(
        ROLES, Names("selector", dict.fromkeys(ROLES, ""), closed=False), "Selectors that vote"
    )
    combine: str = option("intersection", _Combination(), "How many of the selectors must call a sample clean")
    ranking: str = option("margins", Choice(_RANKINGS), "What orders clean_score among clean and among noisy samples")

    @classmethod
    @cache
    def entries(cls) -> dict[str, Option]:
        """The options by name, in their order; those of some estimates only say so."""
        scopes = {name: " and ".join(_estimates_with(name)) for name in super().entries()}
        return {name: replace(entry, scope=scopes[name]) for name, entry in super().entries().items()}

    def __post_init__(self) -> None:
        """Raises UsageError for a value that has no meaning."""
        super().__post_init__()
        if not self.zero_shot:
            self._refuse_parts_of_texts()
            if self.selectors == ROLES:
                object.__setattr__(self, "selectors", _WITHOUT_TEXTS)
        choices = ROLES if self.zero_shot else _WITHOUT_TEXTS
        for name in self.selectors:
            if not verdicts_named(name, self.estimates):
                raise UsageError(f"unknown selector {excerpt(name)}. Choose from: {', '.join(choices)}.")
        if len(set(self.voting)) < len(self.voting):
            raise UsageError(f"name each selector once: {', '.join(self.selectors)} says one of them twice.")
        votes_needed(self.combine, len(self.voting))
        self._refuse_idle([name for name in self.idle if getattr(self, name) != getattr(AuditConfig, name)])

    @property
    def estimates(self) -> tuple[EstimateTerm, ...]:
        """The estimates of P(y|x) that the audit makes, zero-shot first where it speaks."""
        return estimates_of(self.induced.split(","), transition=self.transition, zero_shot=self.zero_shot)

    @property
    def voting(self) -> tuple[Verdict, ...]:
        """The verdicts that `selectors` names."""
        return tuple(verdict for name in self.selectors for verdict in verdicts_named(name, self.estimates))

    @property
    def idle(self) -> tuple[str, ...]:
        """Fields that have no effect on these estimates."""
        return _idle(self.induced, self.zero_shot)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> AuditConfig:
        """The inverse of `to_dict`; what has no effect is left out."""
        idle = _idle(content.get("induced", cls.induced), content.get("zero_shot", cls.zero_shot))
        return super().from_dict({name: value for name, value in content.items() if name not in idle})

    def refuse_idle(self, given: Collection[str]) -> None:
        """UsageError where one of these fields has no effect on this configuration."""
        super().refuse_idle(given)
        self._refuse_idle([name for name in self.idle if name in given])

    def _refuse_parts_of_texts(self) -> None:
        """UsageError where an induced estimate is made of zero-shot, which does not speak."""
        for name in self.induced.split(","):
            if ZERO_SHOT.name in ESTIMATES[name].parts:
                raise UsageError(
                    f"the induced estimate {name!r} is made of zero-shot, which does not speak here. Leave out --preset"
                    " recommended, whose thresholds are made for it, or name another with --induced."
                )

    def _refuse_idle(self, without: Collection[str]) -> None:
        if without:
            raise UsageError(
                f"{', '.join(without)} would have no effect: the induced estimate {self.induced!r} does not look at"
                f" {'it' if len(without) == 1 else 'them'}. Leave the one or the other out."
            )


def _estimates_with(name: str) -> list[str]:
    return [term.name for term in ESTIMATES.values() if name in term.options]


def _idle(induced: Any, zero_shot: Any) -> tuple[str, ...]:
    entries = AuditConfig.entries()
    chosen = entries["induced"].take(induced).split(",")
    if entries["zero_shot"].take(zero_shot):
        chosen.append(ZERO_SHOT.name)
    scopes = {name: _estimates_with(name) for name in AuditConfig.entries()}
    return tuple(name for name, estimates in scopes.items() if estimates and not set(estimates) & set(chosen))


def votes_needed(combine: str, n_selectors: int) -> int:
    """How many of the selectors must call a sample clean.

    Args:
        combine: "intersection" (the paper's, all), "union" (one), "majority" (more than half) or "K-of-M".
        n_selectors: Number M of selectors in use.

    Raises:
        UsageError: another word, or a K or M that does not fit.
    """
    named = {"intersection": n_selectors, "union": 1, "majority": n_selectors // 2 + 1}
    match = _K_OF_M.fullmatch(_Combination().take("combine", combine))
    if match is None:
        return named[combine]
    votes, of = int(match[1]), int(match[2])
    if of != n_selectors or not 1 <= votes <= of:
        raise UsageError(
            f"{combine!r} does not fit: {n_selectors} selector(s) are in use, so K-of-{n_selectors} with K from 1."
        )
    return votes


# Fields that decide about flags only: they can be changed later without computing scores again.
DECISION_FIELDS = ("theta_consistency", "theta_loss", "raw_posterior", "selectors", "combine", "ranking", "threshold")

# Changes to a configuration: "paper" is section 3's default; "recommended" goes beyond it and was chosen and confirmed
# on human noise (docs/benchmarks.md); "cifar" is the published command's.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"theta_consistency": 1.0, "theta_loss": 0.5},
    "recommended": {
        "temperature": "model",
        "induced": "joint",
        "c": 0.1,
        "folds": 5,
        "transition": True,
        "rounds": 2,
        "selectors": ("induced_consistency",),
        "theta_consistency": 1.0,
        "ranking": "probability",
        # P(y|x) of at least 0.7: mistakes that depend on the picture look likelier to be right than they are.
        "threshold": 0.85,
    },
    "cifar": {"theta_consistency": 0.8},
}
# The published commands of other data sets have the same numbers.
ALIASES = {"animal10n": "cifar", "red-mini-imagenet": "cifar", "webvision": "paper"}
PRESET = Option(
    None,
    Choice(
        {"recommended": "beyond the paper: measured to find more"}
        | dict.fromkeys((name for name in PRESETS if name != "recommended"), "as published")
        | {name: f"as {same}" for name, same in ALIASES.items()}
    ),
    "Values for several options, each of which overrides it",
    "Options",
    unset="the paper's",
    name="preset",
)


@typed
def preset(name: str | None = None, base: AuditConfig | None = None, **changes: Any) -> AuditConfig:
    """The configuration of a preset, with changes (None changes nothing).

    Args:
        name: One of PRESETS or ALIASES; None leaves the base as it is.
        base: What the preset changes, the defaults where there is none; it says on what scores an index rests, say.
        changes: Fields of AuditConfig, which override the preset.

    Raises:
        UsageError: no such preset, a value that has no meaning, or a change that has no effect.
    """
    taken = PRESET.take(name)
    numbers: Mapping[str, Any] = {} if taken is None else PRESETS[ALIASES.get(taken, taken)]
    return (base or AuditConfig()).with_changes(**numbers).with_changes(**changes)
