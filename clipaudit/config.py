"""The configuration of an audit: the paper's symbols, the paper's defaults, the published presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from clipaudit.errors import UsageError
from clipaudit.selectors.combine import SELECTORS, votes_needed

INDUCED = ("logistic", "neighbours", "joint")
RANKINGS = ("margins", "probability")


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
        seed: Of the assignment to folds.
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
        object.__setattr__(self, "selectors", tuple(self.selectors))
        if isinstance(self.temperature, str) and self.temperature != "model":
            raise UsageError(f"the temperature must be a number above 0 or 'model', not {self.temperature!r}.")
        if not isinstance(self.temperature, str) and not 0 < self.temperature < float("inf"):
            raise UsageError(f"the temperature must be above 0, not {self.temperature}.")
        if self.induced not in INDUCED:
            raise UsageError(f"unknown induced estimate {self.induced!r}. Choose one of: {', '.join(INDUCED)}.")
        if not 0 < self.c < float("inf"):
            raise UsageError(f"C must be above 0, not {self.c}.")
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"the number of folds must be 0 (in-sample) or at least 2, not {self.folds}.")
        if self.rounds < 1:
            raise UsageError(f"the number of rounds must be at least 1, not {self.rounds}.")
        if self.rounds > 1 and self.induced == "neighbours":
            raise UsageError("rounds fit the logistic regression again, and neighbours have none. Leave one out.")
        if self.neighbours < 1:
            raise UsageError(f"the number of neighbours must be at least 1, not {self.neighbours}.")
        for name in ("theta_consistency", "theta_loss", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie in [0, 1], not {getattr(self, name)}.")
        unknown = [name for name in self.selectors if name not in SELECTORS]
        if unknown or not self.selectors or len(set(self.selectors)) < len(self.selectors):
            wrong = f"unknown selector {unknown[0]!r}" if unknown else "name each selector once, and at least one"
            raise UsageError(f"{wrong}. Choose from: {', '.join(SELECTORS)}.")
        votes_needed(self.combine, len(self.selectors))
        if self.ranking not in RANKINGS:
            raise UsageError(f"unknown ranking {self.ranking!r}. Choose one of: {', '.join(RANKINGS)}.")

    def to_dict(self) -> dict[str, Any]:
        """All fields, for a file's metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> AuditConfig:
        """The inverse of `to_dict`."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known})

    def with_changes(self, **changes: Any) -> AuditConfig:
        """The same configuration, but for the given fields that are not None."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


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
