"""Files of marks: words that they may use, several reviewers, and who is believed where they disagree."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from clipaudit import CleanIndex
from clipaudit.calls.apply import apply_marks
from clipaudit.errors import SourceError, UsageError
from clipaudit.reviews.agreement import cohens_kappa

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_kappa_is_scikit_learns(pairs: list[tuple[bool, bool]]) -> None:
    one, other = zip(*pairs, strict=True)
    found = cohens_kappa(pairs)
    if len({*one, *other}) == 1:
        assert found is None
    else:
        assert found == pytest.approx(cohen_kappa_score(one, other))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["id,mark,label", *lines]) + "\n")
    return path


@pytest.fixture
def ids(noisy_index: CleanIndex) -> list[str]:
    names: list[str] = noisy_index.table["id"].to_pylist()
    return names


@pytest.fixture
def two(ids: list[str], tmp_path: Path) -> tuple[Path, Path]:
    """Two reviewers: they agree on two samples, disagree on two, and each marks one that the other does not."""
    anna = write(tmp_path / "anna.csv", *(f"{ids[row]},{mark}," for row, mark in enumerate(("right", "drop") * 2)))
    ben = ["right", "drop", "drop", "unsure"]
    lines = [f"{ids[row]},{mark}," for row, mark in enumerate(ben)]
    return anna, write(tmp_path / "ben.csv", *lines, f"{ids[9]},right,")


def test_files_that_disagree_are_refused_and_the_message_names_both_rows(
    noisy_index: CleanIndex, ids: list[str], two: tuple[Path, Path], run_cli: Cli, tmp_path: Path
) -> None:
    with pytest.raises(SourceError) as refused:
        apply_marks(noisy_index, two)
    message = str(refused.value)
    assert message.startswith("the files disagree on 2 sample(s)")
    for part in (ids[2], "anna.csv", "ben.csv", "line 4", "--on-conflict"):
        assert part in message
    noisy_index.write(tmp_path / "clean.parquet")
    failed = run_cli("apply", "clean.parquet", "anna.csv", "ben.csv", "--out", "r.parquet")
    assert failed.returncode == 1
    assert not (tmp_path / "r.parquet").exists()


@pytest.mark.parametrize(
    ("on_conflict", "decided"),
    [("first", ["right", "drop"]), ("last", ["drop", "unsure"]), ("unsure", ["unsure", "unsure"])],
)
def test_on_conflict_decides(
    noisy_index: CleanIndex, ids: list[str], two: tuple[Path, Path], on_conflict: str, decided: list[str]
) -> None:
    marked, summary = apply_marks(noisy_index, two, on_conflict=on_conflict)
    said = marked.table["reviewed"].to_pylist()
    assert said[:4] == ["right", "drop", *decided]
    assert said[9] == "right"
    (agreement,) = summary.agreements
    assert (agreement.n_both, agreement.n_same, agreement.n_judged) == (4, 2, 3)
    assert agreement.kappa == pytest.approx(cohen_kappa_score([1, 0, 1], [1, 0, 0]))
    assert [(one.id, one.decided) for one in summary.disagreements] == list(zip(ids[2:4], decided, strict=True))
    assert [review["file"] for review in marked.metadata.reviews] == ["anna.csv", "ben.csv"]
    with pytest.raises(UsageError, match="unknown on_conflict"):
        apply_marks(noisy_index, two, on_conflict="loudest")


def test_the_command_reports_the_agreement(
    noisy_index: CleanIndex, ids: list[str], two: tuple[Path, Path], run_cli: Cli, tmp_path: Path
) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    said = run_cli(
        "apply", "clean.parquet", "anna.csv", "ben.csv", "--out", "r.parquet", "--on-conflict", "unsure"
    ).stdout
    assert "anna.csv and ben.csv agree on 2 of 4 samples; Cohen's kappa of right or wrong is 0.400 (3 judged" in said
    assert f"{ids[2]} (anna.csv: right; ben.csv: drop): unsure" in said
    write(tmp_path / "carl.csv", f"{ids[100]},right,")
    said = run_cli("apply", "clean.parquet", "anna.csv", "carl.csv", "--out", "r.parquet").stdout
    assert "agree on 0 of 0 samples; Cohen's kappa of right or wrong is not defined" in said


def test_words_and_keys_that_a_queue_may_use(noisy_index: CleanIndex, ids: list[str], tmp_path: Path) -> None:
    table, names = noisy_index.table, noisy_index.class_names
    own, suggested = (table[name].to_pylist() for name in ("label", "suggested_label"))
    other = next(row for row in range(20, 600) if own[row] != suggested[row])
    same = next(row for row in range(20, 600) if own[row] == suggested[row])
    free = next(name for name in names if name not in (own[5], suggested[5]))
    marks = write(
        tmp_path / "m.csv",
        f"{ids[0]},1,",
        f"{ids[1]},3,",
        f"{ids[2]},?,",
        f"{ids[3]},Cannot Tell,",
        f"{ids[5]},R,{free}",
        f"{ids[other]},suggested,",
        f"{ids[same]},2,",
        f"{ids[599]},,",
    )
    marked, summary = apply_marks(noisy_index, marks)
    said = marked.table["reviewed"].to_pylist()
    assert [said[row] for row in (0, 1, 2, 3, 5, other, same)] == [
        "right", "drop", "unsure", "unsure", "relabel", "relabel", "right",
    ]  # fmt: skip
    labels = marked.table["label"].to_pylist()
    assert (labels[5], labels[other], said[599]) == (free, suggested[other], None)
    assert any("1 of 8 rows have no mark yet" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{0},,", "{1},,"], "holds no marks: no row has one yet"),
        (["{0},right,", "{1},,zero"], "line 3: there is a label, but no mark"),
        (["{0},maybe,"], "line 2: unknown mark 'maybe'"),
        (["{0},relabel,"], "line 2: relabel needs a class"),
        (["{0},right,", "{0},unsure,"], "line 3: .* has another mark in"),
        (["nowhere.png,?,"], "line 2: the index has no sample"),
    ],
)
def test_bad_rows_are_named(
    noisy_index: CleanIndex, ids: list[str], tmp_path: Path, lines: list[str], message: str
) -> None:
    marks = write(tmp_path / "m.csv", *(line.format(*ids[:2]) for line in lines))
    with pytest.raises(SourceError, match=message):
        apply_marks(noisy_index, marks)


def test_unsure_takes_back_what_an_earlier_review_has_said(
    noisy_index: CleanIndex, ids: list[str], tmp_path: Path
) -> None:
    clean, noisy = (int(np.flatnonzero(flags)[0]) for flags in (noisy_index.is_clean, ~noisy_index.is_clean))
    other = next(name for name in noisy_index.class_names if name != noisy_index.table["label"][noisy].as_py())
    first = write(tmp_path / "first.csv", f"{ids[clean]},drop,", f"{ids[noisy]},relabel,{other}")
    once, _ = apply_marks(noisy_index, first)
    assert once.is_clean[[clean, noisy]].tolist() == [False, True]
    second = write(tmp_path / "second.csv", f"{ids[clean]},unsure,", f"{ids[noisy]},unsure,")
    twice, summary = apply_marks(once, second)
    assert (summary.unsure, summary.again, summary.overruled) == (2, 2, 2)
    np.testing.assert_array_equal(twice.is_clean, noisy_index.is_clean)
    assert twice.table["label"].to_pylist() == noisy_index.table["label"].to_pylist()
    assert not twice.settled.any()
    assert twice.in_doubt.sum() == noisy_index.in_doubt.sum()
    third, _ = apply_marks(twice, write(tmp_path / "third.csv", f"{ids[noisy]},right,"))
    assert third.is_clean[noisy]
    assert third.settled.sum() == 1
