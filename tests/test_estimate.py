"""`review`, `apply`, `estimate`, `select --threshold reviewed` and `--target`, as a user runs them."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clipaudit
from clipaudit import CleanIndex
from clipaudit.errors import IndexFileError, UsageError
from clipaudit.index.building import with_column

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Digits = tuple[Path, dict[str, str]]


def fill_in(queue: Path, truth: dict[str, str], *, rows: int | None = None, out: Path | None = None) -> Path:
    """Somebody who knows the truth fills in the first rows of a queue."""
    with queue.open(newline="") as file:
        header, *lines = csv.reader(file)
    for line in lines[:rows]:
        right = line[0].split("/")[0] == truth[line[0]]
        line[1:] = ["right", ""] if right else ["relabel", truth[line[0]]]
    with (out or queue).open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return out or queue


@pytest.fixture
def drawn(noisy_index: CleanIndex, noisy_digits: Digits, tmp_path: Path) -> Path:
    """`clean.parquet` with 80 samples drawn, and the filled-in `review/queue.csv` beside it."""
    queue = clipaudit.review(noisy_index, budget=80)
    queue.index.write(tmp_path / "clean.parquet")
    queue.write(tmp_path / "review")
    fill_in(tmp_path / "review" / "queue.csv", noisy_digits[1])
    return tmp_path / "clean.parquet"


@pytest.fixture
def reviewed(drawn: Path) -> CleanIndex:
    return clipaudit.apply_marks(clipaudit.read_index(drawn), drawn.with_name("review") / "queue.csv")[0]


def n_wrong(truth: dict[str, str]) -> int:
    return sum(name.split("/")[0] != label for name, label in truth.items())


def test_the_five_lines_of_the_readme(
    noisy_index: CleanIndex, noisy_digits: Digits, run_cli: Cli, tmp_path: Path
) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    said = run_cli("review", "clean.parquet", "--budget", "80", "--out", "review").stdout
    assert "80 samples to review, drawn from 600" in said
    assert "clean.parquet now holds the chance of each sample" in said
    assert sorted(file.name for file in (tmp_path / "review").iterdir()) == ["queue.csv", "review.html"]
    header = (tmp_path / "review" / "queue.csv").read_text().splitlines()[0]
    assert header == "id,mark,label"
    fill_in(tmp_path / "review" / "queue.csv", noisy_digits[1])
    said = run_cli("apply", "clean.parquet", "review/queue.csv", "--out", "reviewed.parquet").stdout
    assert "80 of 600 samples reviewed" in said
    said = run_cli("estimate", "reviewed.parquet").stdout
    found = json.loads(run_cli("estimate", "reviewed.parquet", "--json").stdout)
    wrong = found["wrong_labels"]
    assert wrong["low"] <= n_wrong(noisy_digits[1]) <= wrong["high"]
    assert f"{wrong['estimate']:,.0f} of 600 labels are wrong (95 %: {wrong['low']:,.0f} to" in said
    assert "100 more marks would narrow it" in said
    assert f"Best threshold for F1: {found['threshold']:.4f}" in said
    parts = found["in_doubt"]["estimate"] + found["not_in_doubt"]["estimate"]
    assert parts == pytest.approx(wrong["estimate"])
    said = run_cli("select", "--from", "reviewed.parquet", "--threshold", "reviewed", "--out", "better.parquet").stdout
    assert f"Threshold: {found['threshold']:.4f}, from the review" in said
    assert "by the review" in said
    better = clipaudit.read_index(tmp_path / "better.parquet")
    assert better.config.threshold == pytest.approx(found["threshold"])
    assert "of 600 labels are wrong" in _report(better, tmp_path)
    assert "is not calibrated: review 100 labels" in _report(noisy_index, tmp_path)


def _report(index: CleanIndex, folder: Path) -> str:
    clipaudit.write_report(index, folder / "r.html", top=5)
    return " ".join((folder / "r.html").read_text().replace('<span class="accent">', "").replace("</span>", "").split())


def test_a_draw_is_repeatable_and_another_seed_draws_others(noisy_index: CleanIndex, tmp_path: Path) -> None:
    one, same, other = (clipaudit.review(noisy_index, budget=50, seed=seed) for seed in (3, 3, 4))
    assert one.ids == same.ids
    assert set(one.ids) != set(other.ids)
    assert one.index.table.equals(same.index.table)
    chance = one.index.table["review_chance"]
    assert len(chance) - chance.null_count == 50 == len(one)
    assert 0 < min(chance.drop_null().to_pylist()) <= max(chance.drop_null().to_pylist()) <= 1
    for name, queue in (("a", one), ("b", same)):
        queue.write(tmp_path / name)
    for name in ("review.html", "queue.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_unreadable_samples_are_not_drawn_and_the_budget_may_be_more_than_there_is(noisy_index: CleanIndex) -> None:
    queue = clipaudit.review(noisy_index, budget=10_000)
    assert sorted(queue.rows.tolist()) == np.flatnonzero(noisy_index.readable).tolist()
    assert queue.rows.tolist() != sorted(queue.rows.tolist()), "in random order"


def test_p_wrong_is_the_models_own_before_a_review_and_calibrated_after_it(
    noisy_index: CleanIndex, reviewed: CleanIndex
) -> None:
    loss = noisy_index.table["logistic_loss"].to_numpy()
    np.testing.assert_allclose(noisy_index.table["p_wrong"].to_numpy(), 1 - np.exp(-loss), atol=1e-5)
    assert not noisy_index.metadata.calibrated
    assert reviewed.metadata.calibrated
    p_wrong, ranking = reviewed.table["p_wrong"].to_numpy(), reviewed.ranking()
    assert (np.diff(p_wrong[np.argsort(ranking, kind="stable")]) <= 1e-7).all(), "it never rises along the ranking"
    total = clipaudit.estimate(reviewed).wrong_labels
    assert total.low <= p_wrong.sum() <= total.high


def test_other_selectors_rank_otherwise_and_p_wrong_follows(reviewed: CleanIndex) -> None:
    other = clipaudit.reselect(reviewed, reviewed.config.with_changes(selectors=("zero_shot_consistency",)))
    order = np.argsort(other.ranking(), kind="stable")
    assert (np.diff(other.table["p_wrong"].to_numpy()[order]) <= 1e-7).all()
    assert not np.array_equal(other.table["p_wrong"].to_numpy(), reviewed.table["p_wrong"].to_numpy())


def test_marks_from_elsewhere_speak_for_themselves_only(
    noisy_index: CleanIndex, reviewed: CleanIndex, noisy_digits: Digits, tmp_path: Path
) -> None:
    truth = noisy_digits[1]
    before = clipaudit.estimate(reviewed)
    table = reviewed.table
    ids, free = table["id"].to_pylist(), ~reviewed.drawn
    wrong = [row for row in np.flatnonzero(free) if ids[row].split("/")[0] != truth[ids[row]]]
    picked = tmp_path / "picked.csv"
    picked.write_text("id,mark,label\n" + "".join(f"{ids[row]},drop,\n" for row in wrong))
    after = clipaudit.estimate(clipaudit.apply_marks(reviewed, picked)[0])
    assert after.marks.elsewhere == len(wrong)
    assert after.marks.drawn == before.marks.drawn == 80
    drawn_wrong = before.marks.drawn_wrong
    assert drawn_wrong + len(wrong) == n_wrong(truth)
    # All wrong labels are known now, and nothing is added to the rest for it but what the curve expects there anyway.
    assert after.wrong_labels.low >= drawn_wrong + len(wrong) - 1
    alone = clipaudit.apply_marks(noisy_index, picked)[0]
    assert not alone.metadata.calibrated
    with pytest.raises(UsageError, match=r"at least 20 marks .* the index has 0\. \d+ other mark"):
        clipaudit.estimate(alone)


def test_cannot_tell_is_neither_right_nor_wrong(drawn: Path, noisy_digits: Digits) -> None:
    queue = drawn.with_name("review") / "queue.csv"
    lines = queue.read_text().splitlines()
    unsure = [lines[0], *lines[1:61], *(f"{line.split(',')[0]},?," for line in lines[61:])]
    queue.write_text("\n".join(unsure))
    marked, summary = clipaudit.apply_marks(clipaudit.read_index(drawn), queue)
    assert (summary.unsure, summary.right + summary.relabel) == (20, 60)
    found = clipaudit.estimate(marked)
    assert (found.marks.drawn, found.marks.unsure, found.marks.waiting) == (60, 20, 0)
    again = set(clipaudit.review(marked, budget=600).ids)
    assert again.isdisjoint(line.split(",")[0] for line in lines[1:]), "what has a mark is not drawn again"


def test_a_second_round_draws_others_and_narrows_the_interval(
    reviewed: CleanIndex, noisy_digits: Digits, tmp_path: Path
) -> None:
    first = clipaudit.estimate(reviewed)
    queue = clipaudit.review(reviewed, budget=100)
    assert not reviewed.reviewed[queue.rows].any()
    queue.write(tmp_path / "second")
    marks = fill_in(tmp_path / "second" / "queue.csv", noisy_digits[1])
    second = clipaudit.estimate(clipaudit.apply_marks(queue.index, marks)[0])
    assert second.marks.drawn == 180
    assert second.half_width < first.half_width
    assert second.wrong_labels.low <= n_wrong(noisy_digits[1]) <= second.wrong_labels.high
    assert first.marks_for(first.half_width / 2) == pytest.approx(3 * 80, abs=1)


def test_estimate_says_stop_at_the_goal(reviewed: CleanIndex, run_cli: Cli, tmp_path: Path) -> None:
    reviewed.write(tmp_path / "reviewed.parquet")
    assert "you can stop" in run_cli("estimate", "reviewed.parquet", "--within", "0.3").stdout
    assert "you can stop" not in run_cli("estimate", "reviewed.parquet", "--within", "0.001").stdout


def test_targets(reviewed: CleanIndex, drawn: Path, run_cli: Cli, tmp_path: Path) -> None:
    reviewed.write(tmp_path / "reviewed.parquet")
    found = clipaudit.target_threshold(reviewed, recall=0.5)
    assert found.recall.low >= 0.5
    words = ("select", "--from", "reviewed.parquet", "--out", "t.parquet", "--target")
    said = run_cli(*words, "recall=0.5").stdout
    assert f"Threshold: {found.threshold:.4f}, expected to reach precision" in said
    assert clipaudit.read_index(tmp_path / "t.parquet").config.threshold == pytest.approx(found.threshold)
    (tmp_path / "t.parquet").unlink()
    for target, code, message in (
        ("accuracy=0.9", 2, "--target must be precision=NUMBER or recall=NUMBER"),
        ("precision=high", 2, "--target must be precision=NUMBER or recall=NUMBER"),
        ("recall=1.5", 2, "recall must be a number from 0.01 to 0.999"),
    ):
        refused = run_cli(*words, target)
        assert refused.returncode == code, target
        assert message in refused.stderr
    assert not (tmp_path / "t.parquet").exists()
    both = run_cli(*words, "recall=0.5", "--threshold", "0.4")
    assert (both.returncode, "leave out --threshold" in both.stderr) == (2, True)
    queue = drawn.with_name("review") / "queue.csv"
    queue.write_text("\n".join(queue.read_text().splitlines()[:26]))
    few, _ = clipaudit.apply_marks(clipaudit.read_index(drawn), queue)
    with pytest.raises(UsageError, match=r"precision of 0\.99.*(more marks would show it|review more labels)"):
        clipaudit.target_threshold(few, precision=0.99)
    with pytest.raises(UsageError, match="name one target"):
        clipaudit.target_threshold(reviewed)


def test_a_filled_in_queue_is_not_replaced(drawn: Path, run_cli: Cli) -> None:
    queue = drawn.with_name("review") / "queue.csv"
    before = queue.read_bytes()
    refused = run_cli("review", "clean.parquet", "--out", "review")
    assert (refused.returncode, "filled in already" in refused.stderr) == (2, True)
    assert queue.read_bytes() == before


def test_marks_without_the_design_are_refused_with_what_to_do(
    noisy_index: CleanIndex, drawn: Path, run_cli: Cli, tmp_path: Path
) -> None:
    noisy_index.write(tmp_path / "undrawn.parquet")
    run_cli("apply", "undrawn.parquet", "review/queue.csv", "--out", "reviewed.parquet")
    refused = run_cli("estimate", "reviewed.parquet")
    assert refused.returncode == 2
    assert "the index has 0. 80 other mark(s) speak for themselves only" in refused.stderr
    said = run_cli("select", "--from", "reviewed.parquet", "--threshold", "reviewed", "--out", "t.parquet").stdout
    assert "were not drawn by chance" in said


@pytest.mark.parametrize("budget", [0, -1, 1.5, "many", True])
def test_a_budget_without_meaning_is_refused(noisy_index: CleanIndex, budget: Any) -> None:
    with pytest.raises(UsageError, match="budget must be a whole number"):
        clipaudit.review(noisy_index, budget=budget)


def test_a_chance_outside_its_range_is_damage(noisy_index: CleanIndex, tmp_path: Path) -> None:
    queue = clipaudit.review(noisy_index, budget=30)
    values = queue.index.table["review_chance"].to_pylist()
    values[int(queue.rows[0])] = 1.5
    table = with_column(queue.index.table, "review_chance", pa.array(values))
    CleanIndex(table, queue.index.metadata).write(tmp_path / "bad.parquet")
    with pytest.raises(IndexFileError, match=r"column 'review_chance' has 1\.5 in row"):
        clipaudit.read_index(tmp_path / "bad.parquet")


def test_an_index_of_before_has_neither_column(noisy_index: CleanIndex, noisy_digits: Digits, tmp_path: Path) -> None:
    old = CleanIndex(noisy_index.table.drop_columns(["p_wrong"]), noisy_index.metadata)
    old.write(tmp_path / "old.parquet")
    assert "p_wrong" not in pq.read_schema(tmp_path / "old.parquet").names
    queue = clipaudit.review(clipaudit.read_index(tmp_path / "old.parquet"), budget=40)
    queue.write(tmp_path / "review")
    marks = fill_in(tmp_path / "review" / "queue.csv", noisy_digits[1])
    marked, _ = clipaudit.apply_marks(queue.index, marks)
    assert marked.table["p_wrong"].null_count == 0
    assert clipaudit.estimate(marked).marks.drawn == 40


def test_a_queue_filled_in_from_the_top_counts_what_is_there(drawn: Path, run_cli: Cli, noisy_digits: Digits) -> None:
    queue = drawn.with_name("review") / "queue.csv"
    lines = queue.read_text().splitlines()
    part = [lines[0], *lines[1:31], *(f"{line.split(',')[0]},," for line in lines[31:])]
    queue.write_text("\n".join(part))
    said = run_cli("apply", "clean.parquet", "review/queue.csv", "--out", "r.parquet").stdout
    assert "50 of 80 rows have no mark yet" in said
    assert "50 more marks are missing on drawn samples" in run_cli("estimate", "r.parquet").stdout
