"""What an audit is made of: estimates of P(y|x) and selectors; their names, columns, words and order.

Files, tables, the report and its scripts, `show`, `evaluate` and the help ask here. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class EstimateTerm:
    """An estimate of P(y|x).

    Attributes:
        name: In columns and options.
        title: In a sentence: "zero-shot sees lynx".
        home: The module whose `fit` makes it.
        induced: It learns from the labels that it judges, and so is a choice of AuditConfig.induced.
        many: The title is a plural.
        parts: Names of the estimates that it is made of.
        options: Fields of AuditConfig that have an effect on it alone.
        transition: The given label is evidence, too: it is weighed by the noise transition matrix.
    """

    name: str
    title: str
    home: str
    induced: bool = True
    many: bool = False
    parts: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    transition: bool = False

    def column(self, name: str) -> str:
        """The column of an index that holds one of this estimate's scores."""
        return f"{self.name}_{name}"

    def weighed(self) -> EstimateTerm:
        """The same estimate, weighed by the noise transition matrix."""
        name, title = f"{self.name}_transition", f"{self.title} with transition"
        return replace(self, name=name, title=title, transition=True)


@dataclass(frozen=True)
class ScoreColumn:
    """What a column of an index holds of an estimate.

    Attributes:
        name: Without the estimate's name.
        single: float32, else float64.
        high: Its largest value; None where there is none. The least is 0.
    """

    name: str
    single: bool = False
    high: float | None = 1.0


@dataclass(frozen=True)
class SelectorTerm:
    """A selector, which calls a label clean or not by the scores of one estimate.

    Attributes:
        name: In columns and options.
        title: In a sentence.
        home: The module whose `measure` and `evidence` compute it.
        threshold: The field of AuditConfig that its evidence must reach.
        columns: What it adds to an index for each estimate.
    """

    name: str
    title: str
    home: str
    threshold: str
    columns: tuple[ScoreColumn, ...]


@dataclass(frozen=True)
class Verdict:
    """What one selector says by one estimate."""

    estimate: EstimateTerm
    selector: SelectorTerm

    @property
    def name(self) -> str:
        """In options: zero_shot_consistency."""
        return f"{self.estimate.name}_{self.selector.name}"

    @property
    def title(self) -> str:
        """In a sentence: zero-shot consistency."""
        return f"{self.estimate.title} {self.selector.title}"

    @property
    def column(self) -> str:
        """Of an index."""
        return f"{self.name}_clean"


_LOGISTIC = ("c", "balanced", "folds", "rounds", "fit_samples")
ESTIMATES = {
    term.name: term
    for term in (
        EstimateTerm(
            "zero_shot", "zero-shot", "clipaudit.estimates.zero_shot", induced=False, options=("temperature",)
        ),
        EstimateTerm("logistic", "logistic regression", "clipaudit.estimates.induced", options=_LOGISTIC),
        EstimateTerm("neighbours", "neighbours", "clipaudit.estimates.neighbours", many=True, options=("neighbours",)),
        EstimateTerm(
            "joint",
            "joint estimate",
            "clipaudit.estimates.joint",
            parts=("zero_shot", "logistic"),
            options=("temperature", *_LOGISTIC),
        ),
    )
}
SELECTORS = {
    term.name: term
    for term in (
        SelectorTerm(
            "consistency",
            "consistency",
            "clipaudit.selectors.consistency",
            "theta_consistency",
            (ScoreColumn("consistency"),),
        ),
        SelectorTerm(
            "loss",
            "loss",
            "clipaudit.selectors.loss",
            "theta_loss",
            (ScoreColumn("loss", single=True, high=None), ScoreColumn("posterior"), ScoreColumn("raw_posterior")),
        ),
    )
}
# An image whose off_topic_score is above it shows rather none of the classes than any.
OFF_TOPIC = 0.5
# The paper's first estimate, which needs no labels but texts; classes that would end empty are rescued by it.
ZERO_SHOT = ESTIMATES["zero_shot"]
INDUCED = tuple(name for name, term in ESTIMATES.items() if term.induced)
# The scores of each estimate, in the order of an index's columns.
SCORES = (
    ScoreColumn("p_label", single=True),
    ScoreColumn("p_max", single=True),
    *(column for term in SELECTORS.values() for column in term.columns),
)
# What AuditConfig.selectors calls the verdicts by all induced estimates together, whichever these are.
_ROLE = "induced"
ROLES = tuple(f"{who}_{name}" for who in (ZERO_SHOT.name, _ROLE) for name in SELECTORS)


def estimates_of(induced: Iterable[str], *, transition: bool, zero_shot: bool = True) -> tuple[EstimateTerm, ...]:
    """Zero-shot, if wanted, and the induced estimates of these names, weighed by the transition matrix or not."""
    terms = (term.weighed() if transition else term for term in (ESTIMATES[name] for name in induced))
    return (ZERO_SHOT, *terms) if zero_shot else tuple(terms)


def verdicts_of(estimates: Sequence[EstimateTerm]) -> tuple[Verdict, ...]:
    """Every selector on every estimate, in the order of an index's columns."""
    return tuple(Verdict(estimate, selector) for estimate in estimates for selector in SELECTORS.values())


def verdicts_named(name: str, estimates: Sequence[EstimateTerm]) -> tuple[Verdict, ...]:
    """The verdicts that a name stands for: one by one estimate, or one of ROLES; empty where it stands for none."""
    every = verdicts_of(estimates)
    return tuple(v for v in every if name in (v.name, f"{_ROLE}_{v.selector.name}" if v.estimate.induced else v.name))
