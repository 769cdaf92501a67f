"""Text from foreign files, made safe for a terminal and for a spreadsheet."""

from __future__ import annotations

import re

# What a spreadsheet takes for a formula, and what `escape_formula` has made of such a text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def printable(text: str) -> str:
    """The text with control characters (which could move the cursor or change colours) spelled out; newlines stay."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text
    )


def escape_formula(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would take it for a formula (`=`, `+`, `-`, `@`, tab).

    A text that looks escaped already gets one more apostrophe, so that `unescape_formula` gives every text back.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_formula(text: str) -> str:
    """The text that `escape_formula` was given; any other text as it is."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text, 1) else text
