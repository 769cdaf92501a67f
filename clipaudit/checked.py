"""JSON from files that may be damaged or foreign: parsed strictly, then checked against rules that are data."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

Test = Callable[[Any], bool]


class NewerError(ValueError):
    """A field that this version does not know, so that a newer one wrote it; the message is the field's name."""


@dataclass(frozen=True)
class Rule:
    """What the value of a key must be.

    Attributes:
        words: The rule in words, as they follow "must be".
        holds: The rule as a test of the value.
        optional: The key may be left out.
    """

    words: str
    holds: Test
    optional: bool = False


def parse_json(data: bytes) -> Any:
    """What a JSON document in UTF-8 says.

    Raises:
        ValueError: it is no JSON, or holds what could not be written again: NaN, infinity, half a Unicode character.
    """
    try:
        content = json.loads(data.decode("utf-8"))
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return content


def refuse_unknown(content: Any, names: Collection[str], parts: Mapping[str, Collection[str]]) -> None:
    """Refuse what a newer version wrote.

    Args:
        content: A JSON object; anything else has no fields.
        names: Those that its fields may have.
        parts: For some fields that hold objects, the names that theirs may have.

    Raises:
        NewerError: for the first field, of the object or of one of these parts, that is not known.
    """
    if not isinstance(content, dict):
        return
    unknown = [name for name in content if name not in names]
    for part, known in parts.items():
        held = content.get(part)
        unknown += [f"{part}.{name}" for name in held if name not in known] if isinstance(held, dict) else []
    if unknown:
        raise NewerError(unknown[0])


def fault_of(content: Any, rules: Mapping[str, Rule]) -> str | None:
    """The first rule that does not hold, as part of a sentence; None where all hold."""
    if not isinstance(content, dict):
        return "it is no JSON object"
    for name, rule in rules.items():
        if name not in content:
            if not rule.optional:
                return f"{name!r} is missing"
        elif not rule.holds(content[name]):
            return f"{name!r} must be {rule.words}"
    return None


def is_text(value: Any) -> bool:
    """Text that can be part of a path: without the character NUL."""
    return isinstance(value, str) and "\0" not in value


def is_number(value: Any) -> bool:
    """A finite number, however it is written."""
    return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) < 1e300


def is_count(value: Any) -> bool:
    """A whole number that is not negative and fits 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def is_flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_class_names(value: Any) -> bool:
    """Names that are not empty, each once."""
    return list_of(is_text)(value) and all(value) and len(set(value)) == len(value)


def optional(holds: Test) -> Test:
    """None, or what `holds` is true for."""
    return lambda value: value is None or holds(value)


def list_of(holds: Test) -> Test:
    """A list whose items all pass."""
    return lambda value: isinstance(value, list) and all(map(holds, value))


def object_of(rules: Mapping[str, Rule]) -> Test:
    """A JSON object that follows the rules."""
    return lambda value: fault_of(value, rules) is None


def texts_by_name(value: Any) -> bool:
    """A JSON object whose values are texts."""
    return isinstance(value, dict) and all(map(is_text, value.values()))
