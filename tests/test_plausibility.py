"""Warnings: each where it belongs, and none on data that is as it should be."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from clipaudit.auditing.plausibility import (
    Labels,
    agreement,
    class_warnings,
    decision_warnings,
    prompt_warnings,
    score_warnings,
    useless,
)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({str(k): 30 for k in range(10)}, "all 10 class names are numbers ('0', '1', '2', '3', '4' and 5 more)"),
        ({"1.0": 3, "2.0": 4}, "all 2 class names are numbers"),
        ({"cat": 20, "dog": 20, "7": 1}, "1 of 3 class names are numbers ('7')"),
        ({"train": 900, "test": 100}, "'train', 'test' look like parts of a data set"),
        ({"Training": 9, "validation": 1}, "look like parts of a data set"),
        ({"fold_1": 9, "fold_2": 9, "fold-3": 9}, "look like parts of a data set"),
        ({"data_batch_1": 9, "data_batch_2": 9}, "look like parts of a data set"),
        ({"Dog": 12, "cat": 3, "dog": 40}, "'Dog' (12), 'dog' (40) differ in spelling only"),
        ({"cat": 40, "nan": 3}, "'nan' (3) look like missing labels"),
        ({"cat": 40, "N/A": 3, "?": 1, "--": 2}, "'N/A' (3), '?' (1), '--' (2) look like missing labels"),
        ({f"image {k:04}x": 1 for k in range(200)}, "200 of 200 samples are the only one of their class"),
        ({f"a{k}.jpg": 2 for k in range(30)}, "30 of 30 class names look like file names"),
    ],
)
def test_odd_class_names_are_noticed(counts: dict[str, int], expected: str) -> None:
    (warning,) = class_warnings(counts)
    assert expected in warning


@pytest.mark.parametrize(
    "counts",
    [
        {"cat": 5000, "dog": 4000},
        {"train": 500, "bus": 500, "part time": 3},  # CIFAR-100 has a class "train"
        {"n01443537": 40, "n01629819": 40},
        {"tabby cat": 3, "tiger_cat": 4, "7up": 2, "5-spot ladybird": 1},
        {f"species {chr(97 + k)}": 1 for k in range(10)},
    ],
)
def test_classes_that_are_as_they_should_be_raise_no_warning(counts: dict[str, int]) -> None:
    assert class_warnings(counts) == []


CLASSES = [f"class {letter}" for letter in "abcdefghij"]


def noisy_labels(true: Labels, rate: float) -> Labels:
    """Drawn anew, uniformly, at this rate."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(CLASSES), len(true))
    return np.where(generator.random(len(true)) < rate, drawn, true)


def seen_by_a_model(true: Labels, accuracy: float) -> Labels:
    """Predictions that are right this often, else drawn."""
    return noisy_labels(true, (1 - accuracy) * len(CLASSES) / (len(CLASSES) - 1))


def both(zero_shot: Labels, induced: Labels) -> dict[str, Labels]:
    """What two estimates see, by their titles."""
    return {"zero-shot": zero_shot, "logistic regression": induced}


@pytest.mark.parametrize("rate", [0.0, 0.4, 0.8, 0.9])
@pytest.mark.parametrize("n", [60, 1500])
def test_heavy_noise_is_not_taken_for_chance(rate: float, n: int) -> None:
    true = np.arange(n) % 10
    labels = noisy_labels(true, rate)
    seen = seen_by_a_model(true, 0.83)
    if n == 60 and rate >= 0.8:
        return  # 60 labels of which 54 are wrong cannot be told from chance.
    assert score_warnings(CLASSES, labels, both(seen, seen)) == []
    assert useless(10, labels, both(seen, seen)) is None


@pytest.mark.parametrize(
    "labels_of", [lambda true: np.random.default_rng(1).permutation(true), lambda true: np.roll(true, 1)]
)
def test_labels_of_other_images_are_noticed(labels_of: Callable[[Labels], Labels]) -> None:
    true = np.random.default_rng(2).integers(0, 10, 1500)
    labels, seen = labels_of(true), seen_by_a_model(true, 0.83)
    (warning,) = score_warnings(CLASSES, labels, both(seen, labels))
    assert "by chance) of the given labels" in warning
    assert useless(10, labels, both(seen, labels)) is None
    assert "would be a guess" in (useless(10, labels, both(seen, seen)) or "")
    # So few that an accident would look the same are audited.
    assert useless(10, labels[:40], both(seen[:40], seen[:40])) is None


def test_a_model_that_always_sees_the_largest_class_knows_nothing() -> None:
    labels = np.array([0] * 95 + [1] * 5)
    assert agreement(np.zeros(100, np.int64), labels, 2).share == 0.95
    assert agreement(np.zeros(100, np.int64), labels, 2).is_chance
    assert not agreement(labels, labels, 2).is_chance


def test_estimates_that_disagree_are_noticed() -> None:
    true = np.arange(1000) % 10
    labels, induced = noisy_labels(true, 0.3), np.where(np.arange(1000) % 3 > 0, (true + 3) % 10, true)
    (warning,) = score_warnings(CLASSES, labels, both(true, induced))
    assert "disagree on 66.6% of the samples" in warning


def test_swapped_and_renamed_classes_are_named() -> None:
    true = np.arange(1000) % 10
    swapped = np.array([1, 0, *range(2, 10)])[true]
    (warning,) = score_warnings(CLASSES, swapped, both(true, swapped))
    assert warning == (
        "'class a' and 'class b' look swapped: zero-shot sees 'class b' in 100% of the images labelled 'class a', and"
        " 'class a' in 100% of those labelled 'class b'"
    )
    # Class 4's images are labelled 5, whose own are labelled 6, and 6's own 7: a chain, not pairs.
    chained = np.array([0, 1, 2, 3, 5, 6, 7, 4, 8, 9])[true]
    warnings = score_warnings(CLASSES, chained, both(true, chained))
    assert [warning.split(":")[0] for warning in warnings] == [
        "'class e' looks like 'class h'",
        "'class f' looks like 'class e'",
        "'class g' looks like 'class f'",
        "'class h' looks like 'class g'",
    ]
    # 45 % of two classes mistaken for each other are noise, not names.
    mixed = np.where((true < 2) & (np.arange(1000) % 20 < 9), 1 - true, true)
    assert score_warnings(CLASSES, mixed, both(true, mixed)) == []


def test_verdicts_that_leave_little_are_noticed() -> None:
    labels = np.repeat(np.arange(10), 100)
    is_clean, rescued = np.arange(1000) % 100 < 60, np.zeros(1000, bool)
    assert decision_warnings(CLASSES, labels, is_clean, rescued) == []
    is_clean[labels == 3] = False
    is_clean[[300, 301]] = True
    (warning,) = decision_warnings(CLASSES, labels, is_clean, rescued)
    assert re.search(r"all labels of 'class d' \(98 of 100\).* in doubt", warning)
    rescued[[300, 301]] = True
    (warning,) = decision_warnings(CLASSES, labels, is_clean, rescued)
    assert "no label of 'class d' (2 of 100) was selected" in warning
    is_clean[labels < 3] = False
    assert "more than half of the labels are in doubt (" in decision_warnings(CLASSES, labels, is_clean, rescued)[0]


def test_prompts_that_say_the_same_are_noticed() -> None:
    vectors = np.eye(4, dtype=np.float32)
    texts = ["a dog", "a dog", "a cat", "a cow"]
    assert prompt_warnings(["a", "b", "c"], ["1", "2", "3", "4"], [0, 0, 1, 2], vectors) == []
    (warning,) = prompt_warnings(["a", "b", "c", "d"], texts, range(4), vectors)
    assert warning.startswith("the classes 'a', 'b' have the same prompts")
    (warning,) = prompt_warnings(["a", "b", "c"], texts[1:], range(3), np.full((3, 4), 0.5, np.float32))
    assert re.search(r"prompts of all classes.*1\.0000", warning)
