"""The configuration of an audit: the paper's symbols, the paper's defaults, the published presets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from clipaudit.errors import UsageError
from clipaudit.ranges import SEED, SHARE, Range
from clipaudit.selectors.combine import SELECTORS, votes_needed

INDUCED = ("logistic", "neighbours", "joint")
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
        induced: "logistic" (eq. 8), "neighbours" (the paper's other choice), or "joint" (beyond the paper): the
            normalised product of zero-shot and logistic regression.
        c: Inverse strength of the logistic regression's L2 penalty.
        balanced: Weigh class k by N / (K n_k) in the logistic regression.
        folds: 0 judges each sample by a model fitted on all, as the paper does; F >= 2 by one that has not seen it.
        transition: Take the given label for evidence (beyond the paper): multiply the induced P(k|x) by the noise
            transition matrix P(label | true class k), which is estimated by EM.
        rounds: From the second on, the logistic regression is fitted again on the samples whose label was the most
            probable class in the round before; the paper has one.
        neighbours: Number of nearest neighbours, for "neighbours".
        seed: Of the assignment to folds, which follows the samples' ids and not their order.
        theta_consistency: Threshold of eq. 5, in [0, 1].
        theta_loss: Threshold on the posterior of the low-loss component (eq. 6), in [0, 1].
        raw_posterior: Use the mixture's posterior as it is, not made monotone in the loss (as the published code does).
        selectors: Those of SELECTORS that vote.
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
    selectors: tuple[str, ...] = SELECTORS
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
        for name, words in (("induced", INDUCED), ("ranking", RANKINGS)):
            _one_of(words, name, getattr(self, name))
        object.__setattr__(self, "selectors", _checked_selectors(self.selectors))
        votes_needed(self.combine, len(self.selectors))
        self._refuse_idle([name for name in self.idle if getattr(self, name) != getattr(AuditConfig, name)])

    @property
    def idle(self) -> tuple[str, ...]:
        """Fields that have no effect beside this `induced` estimate."""
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
    return ("c", "balanced", "folds", "rounds") if induced == "neighbours" else ("neighbours",)


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


def _one_of(words: Sequence[str], name: str, value: Any) -> None:
    if not isinstance(value, str) or value not in words:
        raise UsageError(f"unknown {name} {value!r}. Choose one of: {', '.join(words)}.")


def _checked_selectors(names: Any) -> tuple[str, ...]:
    try:
        listed = [names] if isinstance(names, str) else list(names)
    except TypeError:
        listed = [names]
    for name in listed:
        _one_of(SELECTORS, "selector", name)
    if not listed or len(set(listed)) < len(listed):
        raise UsageError(f"name each selector once, and at least one of: {', '.join(SELECTORS)}.")
    return tuple(listed)
