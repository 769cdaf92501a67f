"""Numbers that options take, and how a wrong one is refused: before any work, by the option's name, with its range."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from clipaudit.errors import UsageError
from clipaudit.text import excerpt


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, and words or numbers that stand apart.

    Attributes:
        low, high: The ends.
        whole: Only whole numbers.
        apart: Other values that have a meaning of their own.
    """

    low: float
    high: float
    whole: bool = False
    apart: tuple[int | str, ...] = ()

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

    def __str__(self) -> str:
        """In words: "0 or a whole number from 2 to 20"."""
        numbers = f"a {'whole ' if self.whole else ''}number from {_plain(self.low)} to {_plain(self.high)}"
        return " or ".join([*map(repr, self.apart), numbers])


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


COUNT = Range(0, 1_000_000_000, whole=True)
SEED = Range(0, 2**63 - 1, whole=True)
SHARE = Range(0.0, 1.0)
