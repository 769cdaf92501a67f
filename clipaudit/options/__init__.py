"""Options as data: an entry says all about one, and the command line, the checks, the docs and the metadata follow.

A configuration is a frozen dataclass of entries, a subclass of `Options`. Standard library only, so that a command line
is made from it at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from clipaudit.errors import UsageError
from clipaudit.options.kinds import Kind, Switch
from clipaudit.text import excerpt

if TYPE_CHECKING:
    from typing_extensions import Self

# The panel of the help, below all others, for what nobody needs who only wants the result.
RESEARCHERS = "For researchers"
_ENTRY = "option"


@dataclass(frozen=True)
class Option:
    """All about one option.

    Attributes:
        default: Its value where none is given; None follows something else, which `unset` names.
        kind: What values it takes.
        help: One line, an imperative or a noun phrase, without the range and the full stop, which follow from `kind`.
        note: What is to be said after the range.
        panel: The panel of the help.
        flag: On the command line, where it is not `--` and the name.
        unset: What None follows.
        scope: What it is for, where that is not everything.
        name: The field, and the argument in Python.
    """

    default: Any
    kind: Kind
    help: str
    panel: str
    flag: str = ""
    unset: str = ""
    note: str = ""
    scope: str = ""
    name: str = ""

    def take(self, value: Any) -> Any:
        """The value as it is kept; UsageError where it has no meaning."""
        return None if value is None and self.default is None else self.kind.take(self.name, value)

    @property
    def spelling(self) -> str:
        """On the command line: `--theta-loss`, `--flip/--no-flip`."""
        word = self.name.replace("_", "-")
        return self.flag or (f"--{word}/--no-{word}" if isinstance(self.kind, Switch) else f"--{word}")

    @property
    def sentence(self) -> str:
        """The help, with the values that it takes."""
        scope = f"only for {self.scope}" if self.scope else ""
        return "; ".join(filter(None, [f"{self.help}{self.kind.words}", self.note, scope])) + "."

    def show(self, value: Any) -> str:
        """A value as the command line takes it."""
        if value is None:
            return f"({self.unset})"
        if isinstance(self.kind, Switch):
            on, _, off = self.spelling.partition("/")
            return (on if value else off).removeprefix("--")
        return self.kind.show(value)

    def defaults(self, variants: Mapping[str, Mapping[str, Any]]) -> str:
        """The default, and that of each preset or recipe that has another: "1.0; cifar: 0.8"."""
        names: dict[str, list[str]] = {}
        for name, changes in variants.items():
            if self.name in changes and changes[self.name] != self.default:
                names.setdefault(self.show(changes[self.name]), []).append(name)
        return "; ".join([self.show(self.default), *(f"{', '.join(who)}: {value}" for value, who in names.items())])

    def invalid_values(self) -> tuple[Any, ...]:
        """Values that are to be refused, for tests."""
        return self.kind.invalid if self.default is None else (None, *self.kind.invalid)


def option(
    default: Any, kind: Kind, text: str, *, panel: str = RESEARCHERS, flag: str = "", unset: str = "", note: str = ""
) -> Any:
    """A field of a dataclass, with its entry: the arguments are Option's."""
    return field(default=default, metadata={_ENTRY: Option(default, kind, text, panel, flag, unset, note)})


@dataclass(frozen=True)
class Options:
    """What all configurations are: fields with entries, which are checked when one is made."""

    @classmethod
    def entries(cls) -> dict[str, Option]:
        """The options by name, in their order."""
        return {item.name: replace(item.metadata[_ENTRY], name=item.name) for item in fields(cls)}

    def __post_init__(self) -> None:
        """Raises UsageError for a value that has no meaning, naming its field and range."""
        for name, entry in self.entries().items():
            object.__setattr__(self, name, entry.take(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON has them."""
        values = {name: getattr(self, name) for name in self.entries()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what is no field is left out, and UsageError where a value has no meaning."""
        return cls(**{name: content[name] for name in cls.entries() if name in content})

    def with_changes(self, **changes: Any) -> Self:
        """The same configuration, but for the given fields that are not None.

        Raises:
            UsageError: a value that has no meaning, or a field that is none or that would have no effect.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        changed = self.from_dict({**self.to_dict(), **given})
        changed.refuse_idle(given)
        return changed

    def refuse_idle(self, given: Collection[str]) -> None:
        """UsageError where one of these fields has no effect on this configuration."""
        if unknown := [name for name in given if name not in self.entries()]:
            raise UsageError(f"there is no option {excerpt(unknown[0])}.")
