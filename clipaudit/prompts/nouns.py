"""Everyday nouns: what an image may show that is none of the classes."""

from __future__ import annotations

from collections.abc import Iterable

from clipaudit.prompts.sets import prompts_folder
from clipaudit.spelling import normalise

FILE = "everyday-nouns.txt"


def everyday_nouns(class_names: Iterable[str]) -> list[str]:
    """The shipped nouns, but for those that mean or contain a class: for "cat", neither "cat" nor "cat flap".

    Args:
        class_names: Every name and alias of the classes.
    """
    nouns = (prompts_folder() / FILE).read_text(encoding="utf-8").split("\n")
    classes = {_words(name) for name in class_names}
    lengths = sorted({len(words) for words in classes})
    return [noun for noun in nouns if noun and not classes & set(_parts(_words(noun), lengths))]


def noun_text(noun: str) -> str:
    """The prompt of a noun."""
    return f"A photo of a {noun}."


def _words(name: str) -> tuple[str, ...]:
    """In the singular, as far as an s at the end tells."""
    return tuple(word.removesuffix("s") for word in normalise(name).split())


def _parts(words: tuple[str, ...], lengths: Iterable[int]) -> Iterable[tuple[str, ...]]:
    """All runs of these numbers of words."""
    return (words[start : start + n] for n in lengths for start in range(len(words) - n + 1))
