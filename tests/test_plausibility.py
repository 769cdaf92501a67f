"""Warnings: each where it belongs, and none on data that is as it should be."""

from __future__ import annotations

import pytest

from clipaudit.plausibility import class_warnings


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
