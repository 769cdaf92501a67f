"""`--threshold`: how far down the ranking a label is clean, as a number or as a review of some samples says."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

import clipaudit
from clipaudit import CleanIndex
from clipaudit.auditing.metrics import best_threshold
from clipaudit.calls.apply import apply_marks
from clipaudit.errors import UsageError

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Digits = tuple[Path, dict[str, str]]

# Few different scores, so that many tie.
judged = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=30).filter(
    lambda pairs: not all(right for _, right in pairs)
)


@given(judged)
def test_no_other_threshold_has_a_higher_f1(pairs: list[tuple[int, bool]]) -> None:
    scores, right = np.array([score / 8 for score, _ in pairs]), np.array([right for _, right in pairs])
    threshold, f1 = best_threshold(scores, right)
    assert f1 == pytest.approx(f1_score(~right, scores < threshold))
    assert f1 == pytest.approx(max(f1_score(~right, scores < other) for other in (*np.unique(scores), 2)))


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.8, 0.9])
def test_a_threshold_moves_the_flags_along_the_ranking(noisy_index: CleanIndex, threshold: float) -> None:
    moved = clipaudit.reselect(noisy_index, noisy_index.config.with_changes(threshold=threshold))
    before, after = (index.table["clean_score"].to_numpy() for index in (noisy_index, moved))
    rescued = moved.table["fallback"].to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(moved.is_clean & ~rescued, before >= threshold)
    np.testing.assert_array_equal(after >= 0.5, before >= threshold)
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= 0).all()


def test_a_threshold_that_nothing_reaches_is_a_failure(noisy_index: CleanIndex, run_cli: Cli, tmp_path: Path) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    result = run_cli("select", "--from", "clean.parquet", "--threshold", "1", "--out", "none.parquet")
    assert result.returncode == 1
    assert "not one of 600 labels was selected as clean" in " ".join(result.stderr.split())
    assert not (tmp_path / "none.parquet").exists()


@pytest.fixture
def marks(noisy_index: CleanIndex, noisy_digits: Digits, tmp_path: Path) -> Path:
    """What a person says who looks at every third picture."""
    labels = noisy_index.table["label"].to_pylist()
    with (tmp_path / "marks.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "mark", "label"))
        for (name, true), label in list(zip(noisy_digits[1].items(), labels, strict=True))[::3]:
            writer.writerow((name, "right", "") if true == label else (name, "relabel", true))
    return tmp_path / "marks.csv"


def test_a_review_of_some_improves_the_verdict_on_the_others(
    run_cli: Cli, noisy_index: CleanIndex, noisy_digits: Digits, marks: Path, tmp_path: Path
) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    run_cli("apply", "clean.parquet", marks, "--out", "reviewed.parquet")
    done = run_cli("select", "--from", "reviewed.parquet", "--threshold", "reviewed", "--out", "better.parquet")
    assert done.returncode == 0, done.stderr
    better = clipaudit.read_index(tmp_path / "better.parquet")
    assert f"Threshold: {better.config.threshold:.4f}" in done.stdout
    reviewed = clipaudit.read_index(tmp_path / "reviewed.parquet")
    assert better.config.threshold == clipaudit.reviewed_threshold(reviewed) != 0.5
    wrong = np.array(list(noisy_digits[1].values())) != np.array(noisy_index.table["label"].to_pylist())
    unmarked = np.arange(len(wrong)) % 3 > 0
    f1 = [f1_score(wrong[unmarked], ~index.is_clean[unmarked]) for index in (noisy_index, better)]
    assert f1[1] > f1[0]
    # A threshold that is given as a number does the same.
    again = clipaudit.reselect(reviewed, reviewed.config.with_changes(threshold=better.config.threshold))
    assert again.table.equals(better.table)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ("high", "must be a number or 'reviewed'"),
        ("1.5", "threshold must be a number from 0 to 1"),
        ("reviewed", "holds no review"),
    ],
)
def test_a_threshold_without_a_meaning_is_refused(
    run_cli: Cli, noisy_index: CleanIndex, tmp_path: Path, threshold: str, message: str
) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    result = run_cli("select", "--from", "clean.parquet", "--threshold", threshold, "--out", "moved.parquet")
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())


def test_a_review_needs_right_and_wrong_labels(noisy_index: CleanIndex, tmp_path: Path) -> None:
    (tmp_path / "marks.csv").write_text(f"id,mark,label\n{noisy_index.table['id'][0]},right,\n")
    reviewed, _ = apply_marks(noisy_index, tmp_path / "marks.csv")
    with pytest.raises(UsageError, match="no wrong label"):
        clipaudit.reviewed_threshold(reviewed)
