"""When two class names are one class, and when they only may be."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from clipaudit.spelling import Spellings, alike, normalise, tidy


@given(st.text())
def test_tidying_and_normalising_twice_changes_nothing_more(name: str) -> None:
    assert tidy(tidy(name)) == tidy(name)
    assert normalise(normalise(name)) == normalise(name)
    assert normalise(tidy(name)) == normalise(name)


@given(st.lists(st.text(min_size=1), unique=True))
def test_every_class_is_found_by_its_own_name(names: list[str]) -> None:
    spellings = Spellings(names)
    assert [spellings.find(name) for name in names] == list(range(len(names)))


def test_unicode_forms_and_blanks_are_one_class() -> None:
    assert tidy(unicodedata.normalize("NFD", " café  au lait ")) == unicodedata.normalize("NFC", "café au lait")


def test_a_spelling_that_may_mean_two_classes_means_none() -> None:
    spellings = Spellings(["Dog", "dog", "tabby_cat"])
    assert spellings.find("DOG") is None
    assert spellings.find("dog") == 1
    assert spellings.find("Tabby-Cat") == 2


def test_names_that_may_be_one_class_are_found_for_a_warning() -> None:
    assert alike(["Dog", "cat", "dog", "do\u200bg", "cat"]) == [["Dog", "dog", "do\u200bg"]]
