"""Prompt sets: which one is taken, what a file may hold, and that a stranger's file is only data."""

from __future__ import annotations

import pytest

from clipaudit.demo.digits import CLASS_NAMES
from clipaudit.prompts import find_prompts, load_prompts, shipped_prompt_sets


@pytest.mark.parametrize(
    ("names", "chosen", "reason"),
    [
        (CLASS_NAMES, "digits", "the only shipped set that knows all 10 classes"),
        (["lion", "Bee"], "CIFAR-100", "the smallest shipped set that knows all 2 classes"),
        (["cat", "Dog", "ship"], "CIFAR-10", "the only shipped set that knows all 3 classes"),
        (["cat", "abacus", "zyzzyva"], None, "no shipped set knows all 3 classes"),
        ([*map(str, range(10))], None, "class names are numbers ('0'), by which no prompt set is chosen"),
        (["-1", "1"], None, "class names are numbers ('-1'), by which no prompt set is chosen"),
        (["\uff11", "\u00b2"], None, "class names are numbers ('\uff11'), by which no prompt set is chosen"),
        (["zero", "1"], None, "1 class name(s) are numbers ('1'), by which no prompt set is chosen"),
    ],
)
def test_auto_says_what_it_takes_and_why(names: list[str], chosen: str | None, reason: str) -> None:
    prompts, why = find_prompts("auto", names)
    assert (prompts.name if prompts else None) == chosen
    assert why == reason


def test_a_named_set_is_taken_for_numbers_too() -> None:
    prompts, why = find_prompts("digits", ["0", "1"])
    assert prompts == load_prompts(shipped_prompt_sets()["digits"])
    assert [entry.name for entry in prompts.match(["0", "1"]) if entry] == ["zero", "one"]
    assert why == "as asked for"
    assert find_prompts("none", ["zero", "one"]) == (None, "as asked for")
