"""Kinds of options: what values they take, how a wrong one is refused, and how a text on the command line is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from clipaudit.errors import UsageError
from clipaudit.text import excerpt

# Nobody reads the digits of a number like this as an end.
_ENDLESS = 10**9


class Kind(ABC):
    """What values an option takes."""

    @property
    def metavar(self) -> str:
        """What the help calls a value."""
        return "<str>"

    @property
    @abstractmethod
    def invalid(self) -> tuple[Any, ...]:
        """Some values that it refuses, for tests."""

    @abstractmethod
    def take(self, name: str, value: Any) -> Any:
        """The value as it is kept; UsageError naming the option where it has no meaning."""

    def parse(self, text: str) -> Any:
        """What a text on the command line stands for; the text itself where `take` is to refuse it."""
        return text

    def show(self, value: Any) -> str:
        """A value as the command line takes it."""
        return str(value)

    @property
    def words(self) -> str:
        """What completes an option's help: " (0 to 1)"."""
        return ""


@dataclass(frozen=True)
class Range(Kind):
    """Numbers from `low` to `high`, both included, and words or numbers that stand apart.

    Attributes:
        low, high: The ends.
        whole: Only whole numbers.
        apart: Other values that have a meaning of their own.
        unit: What is counted or measured, for the help.
    """

    low: float
    high: float
    whole: bool = False
    apart: tuple[int | str, ...] = ()
    unit: str = ""

    def take(self, name: str, value: Any) -> Any:
        """The value as a plain int, float or word; UsageError naming the option where it is none of them."""
        for other in self.apart:
            if type(value) is type(other) and value == other:
                return value
        kind = Integral if self.whole else Real
        # A bool is an int to Python, and NaN is in no range.
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high:
            raise UsageError(f"{name} must be {self}, not {excerpt(value)}.")
        return int(value) if self.whole else float(value)

    def parse(self, text: str) -> Any:
        """The number that a text is."""
        try:
            return int(text) if self.whole else float(text)
        except ValueError:
            return text

    def __str__(self) -> str:
        """In words: "0 or a whole number from 2 to 20"."""
        numbers = f"a {'whole ' if self.whole else ''}number from {_plain(self.low)} to {_plain(self.high)}"
        return " or ".join([*map(repr, self.apart), numbers])

    @property
    def metavar(self) -> str:
        """For the help."""
        words = [str(other) for other in self.apart if isinstance(other, str)]
        return "|".join(["<int>" if self.whole else "<float>", *words])

    @property
    def words(self) -> str:
        """The ends and the unit: " (0, or 2 to 20 folds)"."""
        ends = f"{_plain(self.low)} to {_plain(self.high)}" if self.high < _ENDLESS else f"from {_plain(self.low)}"
        return f" ({', or '.join([*map(str, self.apart), ends])}{f' {self.unit}' if self.unit else ''})"

    @property
    def invalid(self) -> tuple[Any, ...]:
        """Beyond both ends, and what is no number."""
        beyond = (self.low - 1, self.high * 2 + 1, float("nan"), float("inf"), -float("inf"), 10**5000, -(10**5000))
        return (*beyond, "x", "", True, [], b"1", 1j, *([self.low + 0.5] if self.whole else []))


@dataclass(frozen=True)
class Percentage(Range):
    """A share, which the command line also takes as "5%"."""

    metavar = "<share>"

    def parse(self, text: str) -> Any:
        """The share that a text is: 0.05 for "5%" and for "0.05"."""
        number = super().parse(text.removesuffix("%"))
        return number / 100 if text.endswith("%") and isinstance(number, float) else number

    @property
    def words(self) -> str:
        """Both forms."""
        return f" ({self.low:.0%} to {self.high:.0%}, or {_plain(self.low)} to {_plain(self.high)})"


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words.

    Attributes:
        choices: The words, or what gives them, each with its meaning for the help; an empty meaning is left out.
    """

    choices: Mapping[str, str] | Callable[[], Mapping[str, str]]
    invalid = ("magic", "", 3, True, [])

    @property
    def meanings(self) -> Mapping[str, str]:
        """The words, and what they mean."""
        return self.choices() if callable(self.choices) else self.choices

    def take(self, name: str, value: Any) -> str:
        """The word."""
        if not isinstance(value, str) or value not in self.meanings:
            raise UsageError(f"unknown {name} {excerpt(value)}. Choose one of: {', '.join(self.meanings)}.")
        return value

    @property
    def words(self) -> str:
        """All of them: ": mixfix (...) or ce (...)"."""
        return f": {_listed(self.meanings)}"


@dataclass(frozen=True)
class Text(Kind):
    """A text; `meaning` says of what, in messages."""

    meaning: str
    invalid = (3, True, [], "", "\0")

    def take(self, name: str, value: Any) -> str:
        """The text."""
        if not isinstance(value, str) or not value or not value.isprintable():
            raise UsageError(f"{name} must be {self.meaning}, not {excerpt(value)}.")
        return value


class Switch(Kind):
    """On or off."""

    invalid = ("no", "", 2, 1.0, [])

    def take(self, name: str, value: Any) -> bool:
        """As a plain bool, also from numpy's."""
        plain = value.item() if getattr(value, "ndim", None) == 0 else value
        if not isinstance(plain, bool):
            raise UsageError(f"{name} must be True or False, not {excerpt(value)}.")
        return plain


@dataclass(frozen=True)
class Names(Kind):
    """One or more names, each once, separated by commas; in Python also a sequence of them.

    Attributes:
        what: What one of them is called, for messages.
        choices: The names, each with its meaning for the help; an empty meaning is left out.
        closed: There are no other names; else the configuration judges them.
        joined: They are kept as one text, else as a tuple.
    """

    what: str
    choices: Mapping[str, str]
    closed: bool = True
    joined: bool = False
    invalid = ("", 4, True, (), [[]], ["twice", "twice"], "magic,")

    def take(self, name: str, value: Any) -> Any:
        """The names."""
        if isinstance(value, str):
            value = [word.strip() for word in value.split(",")]
        listed = list(value) if isinstance(value, Sequence) else [value]
        for word in listed:
            if not isinstance(word, str) or not word or (self.closed and word not in self.choices):
                raise UsageError(f"unknown {self.what} {excerpt(word)}. Choose from: {', '.join(self.choices)}.")
        if not listed or len(set(listed)) < len(listed):
            raise UsageError(f"name each {self.what} once in {name}, and at least one of: {', '.join(self.choices)}.")
        return ",".join(listed) if self.joined else tuple(listed)

    def show(self, value: Any) -> str:
        """Separated by commas."""
        return value if isinstance(value, str) else ", ".join(value)

    @property
    def words(self) -> str:
        """All of them."""
        return f": {_listed(self.choices)}, several separated by commas"


@dataclass(frozen=True)
class Numbers(Kind):
    """Some numbers in ascending order, separated by commas; a tuple in Python.

    Attributes:
        each: What each of them may be.
        most: How many there may be.
        example: For messages and the help.
    """

    each: Range
    most: int
    example: tuple[int, ...]
    metavar = "<list>"
    invalid = ("3", (3, 2), (1.5,), (True,), 3, [[]])

    def take(self, name: str, value: Any) -> tuple[Any, ...]:
        """As a tuple."""
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > self.most:
            raise UsageError(
                f"{name} must be at most {self.most} numbers in ascending order, for example {self.show(self.example)}"
                f" on the command line and {self.example} in Python, not {excerpt(value)}."
            )
        taken = [self.each.take(f"each of the {name}", number) for number in value]
        if taken != sorted(taken):
            raise UsageError(f"{name} must ascend, and {excerpt(taken)} does not.")
        return tuple(taken)

    def parse(self, text: str) -> Any:
        """The numbers; none from an empty text."""
        numbers = [self.each.parse(word.strip()) for word in text.split(",") if word.strip()]
        return text if any(isinstance(number, str) for number in numbers) else tuple(numbers)

    def show(self, value: Any) -> str:
        """Separated by commas."""
        return ",".join(map(str, value))

    @property
    def words(self) -> str:
        """An example."""
        return f", separated by commas, such as {self.show(self.example)}"


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _listed(meanings: Mapping[str, str]) -> str:
    *first, end = [f"{word} ({meaning})" if meaning else word for word, meaning in meanings.items()]
    return f"{', '.join(first)} or {end}" if first else end


COUNT = Range(0, 1_000_000_000, whole=True)
SEED = Range(0, 2**63 - 1, whole=True)
SHARE = Range(0.0, 1.0)
