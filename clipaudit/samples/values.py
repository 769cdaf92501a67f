"""Single values of tables as text: what can be a label or a path, and what cannot."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from numbers import Real

from clipaudit.errors import SourceError
from clipaudit.text import excerpt

# Longer texts are no names and no paths, but a column that was taken by mistake.
MAX_TEXT = 4096
_WHOLE = re.compile(r"([+-]?[0-9]{1,18})\.0+")


def text_of(value: object, role: str, where: str) -> str:
    """A value as text: whole numbers without a fraction (`0.0` is "0"), bytes as UTF-8, dates in ISO form.

    Args:
        value: What a table holds; not None.
        role: What it is to be ("label", "path"), for the message.
        where: File and row.

    Raises:
        SourceError: a list, an object or another thing that is no single value; text that is not Unicode, or too long.
    """
    text = _plain_text(value)
    if text is None:
        kind = type(value).__name__
        raise SourceError(f"{where}: the {role} is {excerpt(value)} ({kind}). Use text or a whole number.")
    if len(text) > MAX_TEXT:
        raise SourceError(
            f"{where}: the {role} has {len(text):,} characters ({excerpt(value)}). Is this the right column?"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{where}: the {role} is not valid Unicode: {excerpt(text)}.") from None
    return text


def _plain_text(value: object) -> str | None:
    try:
        if isinstance(value, str):
            return value
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, bool | int | date | datetime | time):
            return str(value)
        if isinstance(value, Decimal | Real) and isfinite(value):
            number = float(value)
            return str(int(number)) if number.is_integer() else str(value)
    except ValueError:
        pass  # Bytes that are not UTF-8; an integer with more digits than Python writes out.
    return None


def is_missing(value: object) -> bool:
    """Whether a cell is empty: null, NaN, blank text, or what libraries write in place of these."""
    if isinstance(value, str):
        return value.strip().casefold() in ("", "nan", "nat", "<na>")
    return value is None or (isinstance(value, Decimal | Real) and value != value)


def whole(value: object) -> object:
    """The text `3.0` as `3`: a CSV has no integers, and pandas writes them like this where a cell is empty."""
    found = _WHOLE.fullmatch(value.strip()) if isinstance(value, str) else None
    return found[1] if found else value
