"""Text from foreign files, made safe for a terminal, for a message and for a spreadsheet."""

from __future__ import annotations

import re
import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# What a spreadsheet takes for a formula, and what `escape_formulas` has made of such a text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def printable(text: str) -> str:
    """The text on one line, with escapes for what could move the cursor, change colours, turn the direction or hide.

    These are control and direction characters, line breaks, invisible and unassigned ones, and lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def excerpt(value: object, limit: int = 80) -> str:
    """A value as a message shows it: its `repr`, cut to about `limit` characters, however large it is."""
    if isinstance(value, str | bytes) and len(value) > limit:
        return f"{value[: limit // 2]!r}... ({len(value):,} {'bytes' if isinstance(value, bytes) else 'characters'})"
    try:
        text = reprlib.repr(value) if isinstance(value, list | tuple | dict | set) else repr(value)
    except (ValueError, RecursionError):
        return f"a very large {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def escape_formulas(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts with an apostrophe before those that a spreadsheet would take for a formula (`=`, `+`, `-`, `@`, tab).

    A text that looks escaped already gets one more apostrophe, so that `unescape_formula` gives every text back.
    """
    import pyarrow.compute as pc

    return pc.replace_substring_regex(texts, rf"\A({_FORMULA.pattern})", r"'\1")


def unescape_formula(text: str) -> str:
    """The text that `escape_formulas` was given; any other text as it is."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text, 1) else text
