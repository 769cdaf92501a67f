"""The hashes of an index that browsers and run folders hold: what changes them, and that no release does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from training_digits import make_index

from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.fingerprints import labels_fingerprint, subset_fingerprint

IDS = ["eight/00001.png", "näht/ö.png", "/elsewhere/a b.png"]


@pytest.fixture
def index() -> CleanIndex:
    return make_index(IDS, np.array([8, 1, 1]), np.array([True, False, True]), Path("/images"))


def test_the_values_that_browsers_and_run_folders_hold_stay(index: CleanIndex) -> None:
    assert labels_fingerprint(index) == "268a93e02cdb881bc22bac97"
    assert subset_fingerprint(index) == "70b3fe81d01acd45689a2498cd89025a"


def test_other_flags_are_another_run_but_the_same_marks(index: CleanIndex) -> None:
    place = index.table.column_names.index("is_clean")
    other = CleanIndex(index.table.set_column(place, "is_clean", pa.array([True, True, True])), index.metadata)
    assert labels_fingerprint(other) == labels_fingerprint(index)
    assert subset_fingerprint(other) != subset_fingerprint(index)


def test_other_labels_and_other_images_are_another_index(index: CleanIndex) -> None:
    flags = index.is_clean
    relabelled = make_index(IDS, np.array([8, 1, 2]), flags, Path("/images"))
    renamed = make_index([*IDS[:2], "c.png"], np.array([8, 1, 1]), flags, Path("/images"))
    for fingerprint in (labels_fingerprint, subset_fingerprint):
        assert len({fingerprint(one) for one in (index, relabelled, renamed)}) == 3
