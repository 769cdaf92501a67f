"""Text from foreign files, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with control characters (which could move the cursor or change colours) spelled out; newlines stay."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text
    )
