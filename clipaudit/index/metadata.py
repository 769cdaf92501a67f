"""What a clean index says about itself: everything that is needed to trace and repeat the audit, typed and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipaudit import __version__
from clipaudit.cache.info import Fingerprint
from clipaudit.checked import (
    Rule,
    fault_of,
    is_class_names,
    is_count,
    is_flag,
    is_number,
    is_text,
    list_of,
    object_of,
    optional,
    refuse_unknown,
    texts_by_name,
)
from clipaudit.config import AuditConfig
from clipaudit.errors import UsageError
from clipaudit.selectors.base import Mixtures


@dataclass(frozen=True)
class PromptsUsed:
    """The prompts of an audit.

    Attributes:
        source: Name or file of the prompt set.
        texts: P prompts.
        owners: Class index of each.
    """

    source: str
    texts: Sequence[str]
    owners: Sequence[int]


@dataclass(frozen=True)
class MixtureFit:
    """The mixtures of one estimate's losses as JSON has them: lists over the K classes, None where one was not split.

    Attributes:
        weights, means, deviations: Of both components, low-loss first; means and deviations in units of the loss.
        abstained: The class was not split.
        converged: EM reached its optimum, or there was nothing to split.
    """

    weights: list[list[float | None]]
    means: list[list[float | None]]
    deviations: list[list[float | None]]
    abstained: list[bool]
    converged: list[bool]

    @classmethod
    def of(cls, mixtures: Mixtures) -> MixtureFit:
        """The same numbers; NaN, which JSON has not, as None."""

        def pairs(values: NDArray[np.float64]) -> list[list[float | None]]:
            return [[None if value != value else value for value in pair] for pair in values.tolist()]

        return cls(
            pairs(mixtures.weights),
            pairs(mixtures.means),
            pairs(mixtures.deviations),
            mixtures.abstained.tolist(),
            mixtures.converged.tolist(),
        )


@dataclass(frozen=True)
class IndexMetadata:
    """The metadata of a clean index, format 2.

    Attributes:
        config: The configuration that decided; its `estimates` name the columns.
        class_names: All K classes, in their order.
        declared_classes: The source declares its classes; else they are those that occur.
        model: The image encoder.
        source: What was embedded, absolute.
        root: What the ids are relative to.
        prompts: Those of the zero-shot estimate.
        mixtures: By the names of the estimates.
        image_column: Column with the image bytes, where they are rows of a table.
        access: How an id leads to its image; None where an earlier version did not say.
        labels: Where the labels are from, if not from the source.
        decided: What was decided about the source, the labels and the prompts, in words, by what it is about.
        model_temperature: The model's own T; None where an earlier version did not say.
        warnings: What is doubtful about the audit, in words.
        score_warnings: Those of them that no other threshold changes; None where an earlier version did not say.
        background: The class of what shows none of the others, where the data set has one.
        calibrated: `p_wrong` rests on a review, and not on the model alone.
        reviews: The files of marks that were applied: name, SHA-256 and how many samples had each mark.
        clipaudit: Version that wrote it.
    """

    config: AuditConfig
    class_names: list[str]
    declared_classes: bool
    model: Fingerprint
    source: str
    root: str
    prompts: PromptsUsed
    mixtures: Mapping[str, MixtureFit]
    image_column: str | None = None
    access: str | None = None
    labels: str | None = None
    decided: Mapping[str, str] = field(default_factory=dict)
    model_temperature: float | None = None
    warnings: list[str] = field(default_factory=list)
    score_warnings: list[str] | None = None
    calibrated: bool = False
    background: str | None = None
    reviews: list[Mapping[str, Any]] = field(default_factory=list)
    clipaudit: str = __version__

    def __getitem__(self, name: str) -> Any:
        """One field as JSON has it."""
        return self.to_dict()[name]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON has them."""
        return asdict(self) | {"config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, content: Any) -> IndexMetadata:
        """The inverse of `to_dict`, after a check of everything in it.

        Raises:
            NewerError: there is a field that this version does not know; the message is its name.
            ValueError: something is not valid; the message is a part of a sentence.
        """
        refuse_unknown(content, _RULES, {"config": AuditConfig.entries(), "model": _MODEL, "prompts": _PROMPTS})
        if fault := fault_of(content, _RULES) or _config_fault(content["config"]):
            raise ValueError(fault)
        config = AuditConfig.from_dict(content["config"])
        if fault := _mixtures_fault(content, [term.name for term in config.estimates]) or _prompts_fault(content):
            raise ValueError(fault)
        parts = {
            "config": config,
            "model": Fingerprint(**content["model"]),
            "prompts": PromptsUsed(**content["prompts"]),
            "mixtures": {name: MixtureFit(**fit) for name, fit in content["mixtures"].items()},
        }
        return cls(**{**content, **parts})


_TEXT, _TEXTS, _TEXT_OR_NULL = Rule("text", is_text), list_of(is_text), optional(is_text)
_MODEL = dict.fromkeys(("model", "weights", "precision"), _TEXT) | {
    "revision": Rule("text or null", _TEXT_OR_NULL),
    "preprocessing": Rule("a JSON object", lambda value: isinstance(value, dict)),
    "dimension": Rule("a whole number", is_count),
}
_PROMPTS = {
    "source": _TEXT,
    "texts": Rule("a list of texts", _TEXTS),
    "owners": Rule("a list of class numbers", list_of(is_count)),
}
_PAIRS = list_of(lambda pair: list_of(optional(is_number))(pair) and len(pair) == 2)
_MIXTURE = {name: Rule("pairs of numbers", _PAIRS) for name in ("weights", "means", "deviations")} | {
    name: Rule("a list of true and false", list_of(is_flag)) for name in ("abstained", "converged")
}
_RULES = {
    "clipaudit": _TEXT,
    "config": Rule("a JSON object", lambda value: isinstance(value, dict)),
    "class_names": Rule(
        "a list of at least two different names", lambda value: is_class_names(value) and len(value) > 1
    ),
    "declared_classes": Rule("true or false", is_flag),
    "model": Rule("the model's fingerprint", object_of(_MODEL)),
    "source": _TEXT,
    "root": _TEXT,
    "image_column": Rule("text or null", _TEXT_OR_NULL, optional=True),
    "access": Rule("text or null", _TEXT_OR_NULL, optional=True),
    "labels": Rule("text or null", _TEXT_OR_NULL, optional=True),
    "prompts": Rule("the prompts with their classes", object_of(_PROMPTS)),
    "mixtures": Rule("the mixtures of each estimate", lambda value: isinstance(value, dict)),
    "warnings": Rule("a list of texts", _TEXTS),
    "score_warnings": Rule("a list of texts", optional(_TEXTS), optional=True),
    "model_temperature": Rule(
        "a number above 0", optional(lambda value: is_number(value) and value > 0), optional=True
    ),
    "decided": Rule("texts by name", texts_by_name, optional=True),
    "calibrated": Rule("true or false", is_flag, optional=True),
    "background": Rule("text or null", _TEXT_OR_NULL, optional=True),
    "reviews": Rule("a list of reviews", list_of(lambda value: isinstance(value, dict)), optional=True),
}


def _mixtures_fault(content: Mapping[str, Any], estimates: Sequence[str]) -> str | None:
    n_classes, mixtures = len(content["class_names"]), content["mixtures"]
    for name in {**dict.fromkeys(estimates), **mixtures}:
        if name not in estimates or fault_of(mixtures.get(name), _MIXTURE):
            return f"'mixtures' must be the mixtures of {' and '.join(estimates)}"
        mixture = mixtures[name]
        if any(len(mixture[part]) != n_classes for part in _MIXTURE):
            return f"the mixture {name!r} must have one entry for each of the {n_classes:,} classes"
        for k, abstained in enumerate(mixture["abstained"]):
            if not abstained and None in (*mixture["weights"][k], *mixture["means"][k], *mixture["deviations"][k]):
                return f"the mixture {name!r} has no numbers for class {k}"
    return None


def _prompts_fault(content: Mapping[str, Any]) -> str | None:
    prompts, n_classes = content["prompts"], len(content["class_names"])
    if len(prompts["texts"]) != len(prompts["owners"]) or any(k >= n_classes for k in prompts["owners"]):
        return "'prompts' must name one of the classes for each text"
    return None


def _config_fault(content: Mapping[str, Any]) -> str | None:
    for option in fields(AuditConfig):
        if option.name in content and not _fits(content[option.name], option):
            return f"its configuration has no valid {option.name!r}"
    try:
        AuditConfig.from_dict(content)
    except (UsageError, ValueError) as error:
        return f"its configuration is not valid: {str(error).rstrip('.')}"
    return None


def _fits(value: Any, option: Field[Any]) -> bool:
    """The value has the type of the field's default; the temperature may be a word, too."""
    if isinstance(option.default, bool):
        return is_flag(value)
    if isinstance(option.default, float):
        return is_number(value) or (option.name == "temperature" and is_text(value))
    if isinstance(option.default, int):
        return isinstance(value, int) and not isinstance(value, bool)
    return list_of(is_text)(value) if isinstance(option.default, tuple) else is_text(value)
