"""The configuration of an audit: the paper's symbols, the paper's defaults, the published presets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from clipaudit.errors import UsageError
from clipaudit.options.kinds import SEED, SHARE, Range
from clipaudit.vocabulary import (
    ESTIMATES,
    INDUCED,
    ROLES,
    EstimateTerm,
    Verdict,
    estimates_of,
    verdicts_named,
)

RANKINGS = ("margins", "probability")
# Beyond these ends a number is a slip of the keyboard, or asks for work that gains nothing: with 20 folds, each model
# sees 95 % of the samples already.
RANGES: Mapping[str, Range] = {
    "temperature": Range(1e-4, 1e4, apart=("model",)),
    "c": Range(1e-6, 1e4),
    "folds": Range(2, 20, whole=True, apart=(0,)),
    "rounds": Range(1, 100, whole=True),
    "neighbours": Range(1, 1_000_000, whole=True),
    "seed": SEED,
    "theta_consistency": SHARE,
    "theta_loss": SHARE,
    "threshold": SHARE,
}


@dataclass(frozen=True)
class AuditConfig:
    """How an audit decides. Everything that scores depend on, and everything that only flags depend on.

    Attributes:
        temperature: T of eq. 4; "model" takes the model's own (1 / logit scale, 0.01 for CLIP). Published code: 0.07.
        induced: The estimate beside zero-shot: "logistic" (eq. 8), "neighbours" (the paper's other choice), or "joint"
            (beyond the paper): the normalised product of zero-shot and logistic regression. Or several, separated by
            commas.
        c: Inverse strength of the logistic regression's L2 penalty.
        balanced: Weigh class k by N / (K n_k) in the logistic regression.
        folds: 0 judges each sample by a model fitted on all, as the paper does; F >= 2 by one that has not seen it.
        transition: Treat the given label as evidence (beyond the paper): multiply the induced P(k|x) by the noise
            transition matrix P(label | true class k), which is estimated by EM.
        rounds: From the second on, the logistic regression is fitted again on the samples whose label was the most
            probable class in the round before; the paper has one.
        neighbours: Number of nearest neighbours, for "neighbours".
        seed: Of the assignment to folds, which follows the samples' ids and not their order.
        theta_consistency: Threshold of eq. 5, in [0, 1].
        theta_loss: Threshold on the posterior of the low-loss component (eq. 6), in [0, 1].
        raw_posterior: Use the mixture's posterior as it is, not made monotone in the loss (as the published code does).
        selectors: Those that vote: zero_shot_consistency and so on, with "induced" for whichever estimates `induced`
            names, or with the name of one of these.
        combine: "intersection", "union", "majority" or "K-of-M".
        ranking: What orders `clean_score` among clean and among noisy samples: "margins" of the selectors that vote, or
            "probability" (beyond the paper), the induced P(y|x).
        threshold: Least `clean_score` of a clean sample, in [0, 1] (beyond the paper). The selectors' own border is
            1/2; the score that is written is moved so that 1/2 parts clean from noisy again.
    """

    temperature: float | str = 0.07
    induced: str = "logistic"
    c: float = 1.0
    balanced: bool = True
    folds: int = 0
    transition: bool = False
    rounds: int = 1
    neighbours: int = 50
    seed: int = 0
    theta_consistency: float = 1.0
    theta_loss: float = 0.5
    raw_posterior: bool = False
    selectors: tuple[str, ...] = ROLES
    combine: str = "intersection"
    ranking: str = "margins"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Raises UsageError for a value that has no meaning."""
        for name, numbers in RANGES.items():
            object.__setattr__(self, name, numbers.take(name, getattr(self, name)))
        for name in ("balanced", "transition", "raw_posterior"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise UsageError(f"{name} must be True or False, not {getattr(self, name)!r}.")
            object.__setattr__(self, name, bool(getattr(self, name)))
        _one_of(RANKINGS, "ranking", self.ranking)
        object.__setattr__(self, "induced", ",".join(_checked_induced(self.induced)))
        object.__setattr__(self, "selectors", _checked_selectors(self.selectors, self.estimates))
        votes_needed(self.combine, len(self.voting))
        self._refuse_idle([name for name in self.idle if getattr(self, name) != getattr(AuditConfig, name)])

    @property
    def estimates(self) -> tuple[EstimateTerm, ...]:
        """The estimates of P(y|x) that the audit makes, zero-shot first."""
        return estimates_of(self.induced.split(","), transition=self.transition)

    @property
    def voting(self) -> tuple[Verdict, ...]:
        """The verdicts that `selectors` names."""
        return tuple(verdict for name in self.selectors for verdict in verdicts_named(name, self.estimates))

    @property
    def idle(self) -> tuple[str, ...]:
        """Fields that have no effect beside these `induced` estimates."""
        return _idle(self.induced)

    def _refuse_idle(self, names: Collection[str]) -> None:
        """UsageError where one of these fields has no effect."""
        if without := [name for name in self.idle if name in names]:
            raise UsageError(
                f"{', '.join(without)} would have no effect: the induced estimate {self.induced!r} does not look at"
                f" {'it' if len(without) == 1 else 'them'}. Leave the one or the other out."
            )

    def to_dict(self) -> dict[str, Any]:
        """All fields, for a file's metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> AuditConfig:
        """The inverse of `to_dict`."""
        idle = _idle(content.get("induced"))
        known = {field.name for field in fields(cls)}.difference(idle)
        return cls(**{name: value for name, value in content.items() if name in known})

    def with_changes(self, **changes: Any) -> AuditConfig:
        """The same configuration, but for the given fields that are not None.

        What it said about an estimate that the changes put aside is forgotten.

        Raises:
            UsageError: a value that has no meaning, or a change that has no effect.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        changed = AuditConfig.from_dict({**self.to_dict(), **given})
        changed._refuse_idle(given.keys())
        return changed


def _idle(induced: Any) -> tuple[str, ...]:
    chosen = {option for name in _split(induced) if name in ESTIMATES for option in ESTIMATES[name].options}
    every = dict.fromkeys(option for term in ESTIMATES.values() for option in term.options)
    return tuple(option for option in every if option not in chosen)


# Fields that decide about flags only: they can be changed later without computing scores again.
DECISION_FIELDS = ("theta_consistency", "theta_loss", "raw_posterior", "selectors", "combine", "ranking", "threshold")

# Changes to a configuration: "paper" is section 3's default; "recommended" goes beyond it and was chosen and confirmed
# on human noise (docs/benchmarks.md); the others are the published commands'.
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
    "animal10n": {"theta_consistency": 0.8},
    "red-mini-imagenet": {"theta_consistency": 0.8},
    "webvision": {"theta_consistency": 1.0},
}


def preset(name: str) -> Mapping[str, Any]:
    """The changes of a named preset, for `with_changes`; UsageError for a name that is not in PRESETS."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}. Choose from: {', '.join(PRESETS)}.")
    return PRESETS[name]


def votes_needed(combine: str, n_selectors: int) -> int:
    """How many of the selectors must call a sample clean.

    Args:
        combine: "intersection" (the paper's, all), "union" (one), "majority" (more than half) or "K-of-M".
        n_selectors: Number M of selectors in use.

    Raises:
        UsageError: another word, or a K or M that does not fit.
    """
    named = {"intersection": n_selectors, "union": 1, "majority": n_selectors // 2 + 1}
    if isinstance(combine, str) and combine in named:
        return named[combine]
    match = re.fullmatch(r"(\d{1,3})-of-(\d{1,3})", combine) if isinstance(combine, str) else None
    if match is None:
        raise UsageError(f"unknown combination {combine!r}. Use intersection, union, majority or K-of-{n_selectors}.")
    votes, of = int(match[1]), int(match[2])
    if of != n_selectors or not 1 <= votes <= of:
        raise UsageError(
            f"{combine!r} does not fit: {n_selectors} selector(s) are in use, so K-of-{n_selectors} with K from 1."
        )
    return votes


def _one_of(words: Sequence[str], name: str, value: Any) -> None:
    if not isinstance(value, str) or value not in words:
        raise UsageError(f"unknown {name} {value!r}. Choose one of: {', '.join(words)}.")


def _split(names: Any) -> list[Any]:
    """Names separated by commas, or a sequence of them."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")]
    return list(names) if isinstance(names, Sequence) else [names]


def _checked_induced(names: Any) -> list[str]:
    listed = _split(names)
    for name in listed:
        _one_of(INDUCED, "induced", name)
    if not listed or len(set(listed)) < len(listed):
        raise UsageError(f"name each induced estimate once, and at least one of: {', '.join(INDUCED)}.")
    return listed


def _checked_selectors(names: Any, estimates: Sequence[EstimateTerm]) -> tuple[str, ...]:
    listed = _split(names)
    voting: list[Verdict] = []
    for name in listed:
        if not isinstance(name, str) or not (meant := verdicts_named(name, estimates)):
            raise UsageError(f"unknown selector {name!r}. Choose one of: {', '.join(ROLES)}.")
        voting += meant
    if not listed or len(set(voting)) < len(voting):
        raise UsageError(f"name each selector once, and at least one of: {', '.join(ROLES)}.")
    return tuple(listed)
