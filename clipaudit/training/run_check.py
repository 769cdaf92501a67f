"""What a run folder must say before anything is built or resumed from it: types, ranges, and what belongs together.

Each check raises ValueError with words that complete "run.json is damaged: ..."; whoever reads a file adds its name and
the remedy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from clipaudit.cache.info import FINGERPRINT
from clipaudit.checked import fault_of
from clipaudit.errors import UsageError
from clipaudit.options.kinds import COUNT, SHARE, Range
from clipaudit.training.config import HIDDEN, IMAGE_SIZE, PROBE, WIDTH, TrainConfig
from clipaudit.training.models import Architecture
from clipaudit.training.probe import Probe

_CLASSES = Range(1, 1_000_000, whole=True)


def digest_of(content: Any) -> str:
    """A checksum of anything that JSON can hold, whatever the order of its keys and the blanks between them."""
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def check_facts(facts: Mapping[str, Any]) -> TrainConfig:
    """The facts of run.json; returns the configuration among them."""
    for name in ("clipaudit", "index_fingerprint", "index_source"):
        _require(isinstance(facts.get(name), str), f"{name} is no text")
    _require(isinstance(facts.get("test"), (str, type(None))), "test is no path")
    names: Any = facts.get("class_names")
    _require(isinstance(names, list) and all(isinstance(name, str) for name in names), "class_names are no names")
    _require(bool(names) and len(set(names)) == len(names), "class_names has no name, or one twice")
    _require(isinstance(facts.get("config"), dict), "config is missing")
    try:
        config = TrainConfig.from_dict(facts["config"])
    except UsageError as error:
        raise ValueError(f"in config, {error}") from None
    _check_architecture(facts.get("architecture"))
    classes = facts["architecture"]["classes"]
    _require(classes == len(names), f"the architecture has {classes} classes, and class_names {len(names):,}")
    return config


def check_history(rows: Any, best_epoch: Any, epochs: int) -> None:
    """The rows of finished epochs, one each from the first on, and which of them the best weights are from."""
    _require(isinstance(rows, list) and 1 <= len(rows) <= epochs, f"the history has no row, or more than {epochs:,}")
    for number, row in enumerate(rows, start=1):
        _require(isinstance(row, dict) and row.get("epoch") == number, f"the history has no row of epoch {number}")
        for name in ("learning_rate", "loss", "n_samples"):
            _require(_is_finite(row.get(name)), f"epoch {number} has no {name}")
        for name, value in row.items():
            _require(value is None or _is_finite(value), f"{name} of epoch {number} is no number")
            if name.endswith("_accuracy") and value is not None:
                _take(SHARE, f"{name} of epoch {number}", value)
        _require("val_accuracy" in row, f"epoch {number} has no val_accuracy")
    _take(Range(1, len(rows), whole=True), "the best epoch", best_epoch)


def architecture_class(content: Any) -> type[Architecture] | type[Probe]:
    """The class of the architecture that a run.json describes."""
    return Probe if isinstance(content, dict) and content.get("model") == PROBE else Architecture


def _check_architecture(content: Any) -> None:
    kind = architecture_class(content)
    names = kind.__dataclass_fields__.keys()
    _require(isinstance(content, dict) and content.keys() == names, "architecture is missing or incomplete")
    _require(isinstance(content["model"], str), "the architecture's model is no name")
    _take(_CLASSES, "the architecture's classes", content["classes"])
    check = _check_head if kind is Probe else _check_network
    check(content)


def _check_head(content: Mapping[str, Any]) -> None:
    _take(HIDDEN, "the architecture's hidden", content["hidden"])
    if fault := fault_of(content["encoder"], FINGERPRINT):
        raise ValueError(f"in the architecture's encoder, {fault}")


def _check_network(content: Mapping[str, Any]) -> None:
    for name, numbers in (("width", WIDTH), ("image_size", IMAGE_SIZE)):
        _take(numbers, f"the architecture's {name}", content[name])
    for name, numbers in (("mean", Range(-10.0, 10.0)), ("std", Range(1e-6, 10.0))):
        values = content[name]
        _require(isinstance(values, list) and len(values) == 3, f"the architecture's {name} is not of three channels")
        for value in values:
            _take(numbers, f"the architecture's {name}", value)
    _require(isinstance(content["hugging_face"], (dict, type(None))), "the model's configuration is none")


def check_look(p_m: Any, y_m: Any, n: int, classes: int) -> None:
    """What a network saw: arrays of n, probabilities (or NaN) and classes (or -1)."""
    _require(p_m.shape == y_m.shape == (n,), f"what a network saw are {p_m.shape} values, not one for each of {n:,}")
    _require(p_m.dtype == "float32" and y_m.dtype == "int64", "what a network saw has other types")
    _require(not ((p_m < 0) | (p_m > 1.001)).any(), "a probability that a network saw is in no range")
    _require(not ((y_m < -1) | (y_m >= classes)).any(), "a class that a network saw does not exist")


def check_count(name: str, value: Any) -> int:
    """A whole number from 0 on."""
    return int(_take(COUNT, name, value))


def _take(numbers: Range, name: str, value: Any) -> Any:
    try:
        return numbers.take(name, value)
    except UsageError as error:
        raise ValueError(str(error).removesuffix(".")) from None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require(holds: bool, words: str) -> None:
    if not holds:
        raise ValueError(words)
