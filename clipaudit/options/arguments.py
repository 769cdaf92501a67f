"""The types of what a public call is given, checked against its own annotations: a wrong one is refused in a sentence.

Values that a call keeps as options have kinds, which also know ranges (`clipaudit.options.kinds`). Here is only what
Python would answer with an AttributeError, somewhere inside.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from clipaudit.errors import UsageError
from clipaudit.text import excerpt

Call = TypeVar("Call", bound=Callable[..., Any])
# Types that Python's own check is too narrow or too wide for (a bool is an int): what passes, and the words for it.
_SCALARS: dict[Any, tuple[Callable[[Any], bool], str, str]] = {
    bool: (lambda value: type(value).__name__ in ("bool", "bool_"), "True or False", "True or False"),
    int: (lambda value: isinstance(value, Integral) and not isinstance(value, bool), "a whole number", "whole numbers"),
    float: (lambda value: isinstance(value, Real) and not isinstance(value, bool), "a number", "numbers"),
    str: (lambda value: isinstance(value, str), "a text", "texts"),
    Path: (lambda value: isinstance(value, str | Path), "a path", "paths"),
    NoneType: (lambda value: value is None, "None", "None"),
}
# How to get what is wanted, by the name of its class.
_REMEDIES = {
    "CleanIndex": "clipaudit.read_index(file) reads one, and clipaudit.select(cache) makes one.",
    "AuditConfig": "clipaudit.preset(name) and clipaudit.AuditConfig(...) make one.",
    "TrainConfig": "clipaudit.recipe(name) and clipaudit.TrainConfig(...) make one.",
}


def typed(call: Call) -> Call:
    """Let a function, or a class when it is made, refuse arguments of types that its annotations do not name.

    Raises:
        UsageError: from the call, naming the argument, what it must be and what was given.
    """
    if isinstance(call, type):
        call.__init__ = typed(call.__init__)  # type: ignore[misc]
        return cast(Call, call)

    @wraps(call)
    def checked(*given: Any, **named: Any) -> Any:
        try:
            arguments = inspect.signature(call).bind(*given, **named).arguments
        except TypeError:
            # One is missing, or there is none of that name, which Python says itself.
            return call(*given, **named)
        for name, hint in _hints(call).items():
            if name in arguments and not _fits(arguments[name], hint):
                raise UsageError(f"{name} must be {_words(hint)}, not {excerpt(arguments[name])}.{_remedy(hint)}")
        return call(*given, **named)

    return cast(Call, checked)


@cache
def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the parameters; what a call returns may be a type that only checkers of types import."""
    parameters = inspect.signature(call).parameters.values()
    single = [item.name for item in parameters if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)]

    def bare() -> None: ...

    bare.__annotations__ = {name: hint for name, hint in call.__annotations__.items() if name in single}
    return get_type_hints(bare, call.__globals__)


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if hint in _SCALARS:
        return _SCALARS[hint][0](value)
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return any(_fits(value, type(part)) for part in parts)
    if kind is Callable:
        return callable(value)
    if kind in (Iterable, Sequence, tuple, list):
        return _is_listed(value, kind) and all(_fits(item, _part(parts)) for item in _items(value, parts))
    return _is_one(value, kind)


def _is_listed(value: Any, kind: Any) -> bool:
    """Many values; neither text, whose parts are characters, nor what has keys. Arrays and columns are sequences."""
    needed = ("__iter__",) if kind is Iterable else ("__iter__", "__len__", "__getitem__")
    return all(hasattr(value, name) for name in needed) and not isinstance(value, str | bytes | Mapping | Path)


def _items(value: Any, parts: tuple[Any, ...]) -> Iterable[Any]:
    """What can be looked at without using it up. Texts have more rules, and who has these says which one fails."""
    return value if isinstance(value, list | tuple) and _part(parts) is not str else ()


def _part(parts: tuple[Any, ...]) -> Any:
    return parts[0] if parts else Any


def _is_one(value: Any, kind: Any) -> bool:
    """An object of a class; of a protocol, one with its methods."""
    # From Python 3.11 on, Any is a class that nothing is an instance of.
    if kind is Any or not isinstance(kind, type):
        return True
    if getattr(kind, "_is_protocol", False):
        return all(hasattr(value, name) for name in vars(kind) if not name.startswith("_"))
    return isinstance(value, kind)


def _words(hint: Any) -> str:
    """A type as it follows "must be"."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        *first, last = dict.fromkeys(_words(part) for part in _told(parts))
        return f"{', '.join(first)} or {last}" if first else last
    if kind in _SCALARS:
        return _SCALARS[kind][1]
    if kind is Literal:
        return _words(type(parts[0]))
    if kind in (Iterable, Sequence, tuple, list):
        return f"a list of {_plural(_part(parts))}" if _part(parts) not in (Any, object) else "a list"
    return {Callable: "a function", Mapping: "a dictionary"}.get(kind) or f"a {_name(kind)}"


def _plural(hint: Any) -> str:
    parts = _told(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]
    named = dict.fromkeys(_SCALARS[part][2] if part in _SCALARS else f"{_name(part)} objects" for part in parts)
    return " or ".join(named)


def _told(parts: Sequence[Any]) -> list[Any]:
    """Of a path, it need not be told that it may be a text."""
    return [part for part in parts if not (part is str and Path in parts)]


def _name(kind: Any) -> str:
    """As who imports the package writes it: "clipaudit.CleanIndex"."""
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _remedy(hint: Any) -> str:
    for kind in (hint, *get_args(hint)):
        if (name := getattr(kind, "__name__", "")) in _REMEDIES:
            return f" {_REMEDIES[name]}"
    return ""
