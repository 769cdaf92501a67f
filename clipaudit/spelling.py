"""When two class names are one, and when they may be: the only place that knows.

- Names that `tidy` makes equal are one class: they look the same to a person (Unicode form, blanks around them).
- Names that `normalise` makes equal may be one class: `Dog` and `dog`, `tabby_cat` and `tabby cat`. A name that someone
  else wrote (a prompt set, true labels, marks) means such a class where no other one could be meant; names of one
  source stay apart, and `alike` finds them for a warning.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from itertools import islice

# Bounds for what strangers' files declare: far above any real data set, low enough that no file exhausts the machine.
MAX_CLASSES = 100_000
MAX_LINE_CHARACTERS = 1_000
NOTES_SHOWN = 5


def tidy(name: str) -> str:
    """A class name as it is kept: in Unicode form NFC, without blanks at its ends or doubled ones."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def normalise(name: str) -> str:
    """A class name without case, `_`, `-`, doubled blanks and invisible characters, so that spellings meet."""
    text = unicodedata.normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ")
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFC", visible).split())


_LOOKS_MISSING = frozenset(
    ("none", "null", "nil", "na", "n/a", "n.a.", "#n/a", "#na", "nan", "nat", "<na>", "?", ".", "missing")
)


def looks_missing(name: str) -> bool:
    """Whether a class name looks like what people and programs write where there is no label.

    It is for warnings. Tables refuse only what no one writes for a class: empty cells, `nan`, `NaT` and `<NA>`.
    """
    return tidy(name).casefold() in _LOOKS_MISSING or not name.strip("-_* ")


def line_fault(text: str) -> str | None:
    """Why a text cannot be a class name or another text of one line, as the end of a sentence; None where it can."""
    if len(text) > MAX_LINE_CHARACTERS:
        return f"has {len(text):,} characters, more than {MAX_LINE_CHARACTERS:,}"
    for character in "" if text.isprintable() else text:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            return f"contains the control character {character!r}"
        if unicodedata.category(character) == "Cs":
            return f"contains {character!r}, which is no character (the file or folder it came from is not UTF-8)"
    return None if any(character.isprintable() for character in text if character != " ") else "is empty"


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of two or more different names that `normalise` makes equal, each group in the names' order."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(normalise(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def united(what: str, groups: Iterable[Collection[str]]) -> list[str]:
    """Notes that several spellings were read as one class: "the folders 'cat' and 'cat ' are one class".

    Args:
        what: What carries the names, in the plural.
        groups: The spellings of each class; those of a class with one are no news.
    """
    notes = []
    for group in groups:
        if len(group) > 1:
            shown = [f"{name!a:.80}" for name in islice(group, NOTES_SHOWN)]
            more = [f"{len(group) - NOTES_SHOWN:,} more"] if len(group) > NOTES_SHOWN else []
            notes.append(f"the {what} {' and '.join(shown + more)} are one class")
    return first_notes(notes, f"classes have several spellings among the {what}")


def first_notes(notes: list[str], more: str) -> list[str]:
    """The first NOTES_SHOWN notes of a kind, and how many more there are, ending in `more`."""
    rest = len(notes) - NOTES_SHOWN
    return notes if rest <= 0 else [*notes[:NOTES_SHOWN], f"{rest:,} more {more}"]


class Spellings:
    """Finds the class that a spelling means: the same name, else the same when tidied, else the only one it may be."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = {name: number for number, name in reversed(list(enumerate(names)))}
        self._tidy = _unambiguous((tidy(name), number) for number, name in enumerate(names))
        self._normal = _unambiguous((normalise(name), number) for number, name in enumerate(names))

    def find(self, spelling: str) -> int | None:
        """The number of the class, or None where there is none or where several could be meant."""
        for known, key in ((self._exact, spelling), (self._tidy, tidy(spelling)), (self._normal, normalise(spelling))):
            if (number := known.get(key)) is not None:
                return number
        return None


def _unambiguous(spellings: Iterable[tuple[str, int]]) -> dict[str, int]:
    owners: dict[str, set[int]] = {}
    for spelling, number in spellings:
        owners.setdefault(spelling, set()).add(number)
    return {spelling: numbers.pop() for spelling, numbers in owners.items() if len(numbers) == 1}
