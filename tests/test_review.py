"""`apply`: a person's marks on a clean index, and everything that reads the index after it."""

from __future__ import annotations

import csv
import hashlib
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from conftest import DIGITS, write_class_folders

import clipaudit
from clipaudit import AuditConfig, CleanIndex
from clipaudit.calls.apply import apply_marks
from clipaudit.errors import ClipAuditError, SourceError, UsageError
from clipaudit.index.fingerprints import subset_fingerprint
from clipaudit.training.data import training_set

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Digits = tuple[Path, dict[str, str]]


def write_marks(path: Path, rows: Sequence[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "mark", "label"), *rows])
    return path


def other_class(index: CleanIndex, row: int) -> str:
    return next(name for name in index.class_names if name != index.table["label"][row].as_py())


@pytest.fixture
def rows(noisy_index: CleanIndex) -> dict[str, int]:
    """A row for each mark, on the side where the mark changes the verdict; one that nobody marks."""
    noisy, clean = np.flatnonzero(~noisy_index.is_clean), np.flatnonzero(noisy_index.is_clean)
    return {"right": int(noisy[0]), "relabel": int(noisy[1]), "drop": int(clean[0]), "unmarked": int(noisy[2])}


@pytest.fixture
def marks(noisy_index: CleanIndex, rows: dict[str, int], tmp_path: Path) -> Path:
    ids = noisy_index.table["id"].to_pylist()
    return write_marks(
        tmp_path / "marks.csv",
        [
            (ids[rows["right"]], "right", ""),
            (ids[rows["relabel"]], "relabel", other_class(noisy_index, rows["relabel"])),
            (ids[rows["drop"]], "drop", ""),
        ],
    )


def test_a_human_word_beats_every_selector(noisy_index: CleanIndex, rows: dict[str, int], marks: Path) -> None:
    reviewed, summary = apply_marks(noisy_index, marks)
    counts = {"right": 1, "relabel": 1, "drop": 1, "unsure": 0, "overruled": 3, "again": 0, "unreadable": 0}
    assert asdict(summary) == counts | {"notes": (), "agreements": (), "disagreements": ()}
    table, before = reviewed.table, noisy_index.table
    assert table["label_given"].to_pylist() == before["label"].to_pylist()
    changed = {row for row in range(600) if table["label"][row].as_py() != before["label"][row].as_py()}
    assert changed == {rows["relabel"]}
    assert table["label"][rows["relabel"]].as_py() == other_class(noisy_index, rows["relabel"])
    flags = noisy_index.is_clean
    flags[[rows["right"], rows["relabel"]]] = True
    flags[rows["drop"]] = False
    np.testing.assert_array_equal(reviewed.is_clean, flags)
    said = {row: word for row, word in enumerate(table["reviewed"].to_pylist()) if word}
    assert said == {rows[word]: word for word in ("right", "relabel", "drop")}
    untouched = [name for name in before.column_names if name not in ("label", "is_clean")]
    assert table.select(untouched).equals(before.select(untouched))
    digest = hashlib.sha256(marks.read_bytes()).hexdigest()
    assert reviewed.metadata["reviews"] == [
        {"file": "marks.csv", "sha256": digest, "right": 1, "relabel": 1, "drop": 1, "unsure": 0}
    ]
    assert not noisy_index.has_reviews


def test_a_reviewed_index_is_written_and_read_and_always_the_same(
    noisy_index: CleanIndex, marks: Path, tmp_path: Path
) -> None:
    reviewed, _ = apply_marks(noisy_index, marks)
    reviewed.write(tmp_path / "a.parquet")
    held = clipaudit.read_index(tmp_path / "a.parquet")
    assert held.table.equals(reviewed.table)
    assert held.metadata["reviews"] == reviewed.metadata["reviews"]
    apply_marks(noisy_index, marks)[0].write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_the_later_word_wins_and_the_first_label_is_kept(
    noisy_index: CleanIndex, rows: dict[str, int], marks: Path, tmp_path: Path
) -> None:
    first, _ = apply_marks(noisy_index, marks)
    first.write(tmp_path / "first.parquet")
    ids, given = first.table["id"].to_pylist(), noisy_index.table["label"].to_pylist()
    once = first.table["label"][rows["relabel"]].as_py()
    target = next(name for name in first.class_names if name not in (once, given[rows["relabel"]]))
    later = write_marks(
        tmp_path / "later.csv",
        [(ids[rows["relabel"]], "relabel", target), (ids[rows["right"]], "drop", ""), (ids[rows["drop"]], "right", "")],
    )
    second, summary = apply_marks(clipaudit.read_index(tmp_path / "first.parquet"), later)
    assert (summary.again, summary.overruled) == (3, 2)
    assert second.table["label"][rows["relabel"]].as_py() == target
    assert second.table["label_given"].to_pylist() == given
    assert [bool(second.is_clean[rows[name]]) for name in ("relabel", "right", "drop")] == [True, False, True]
    assert [review["file"] for review in second.metadata["reviews"]] == ["marks.csv", "later.csv"]
    # "right" says that the label which the reviewer saw is right: the one of the review before.
    last = write_marks(tmp_path / "last.csv", [(ids[rows["relabel"]], "right", "")])
    assert apply_marks(second, last)[0].table["label"][rows["relabel"]].as_py() == target


@pytest.mark.parametrize(
    "config",
    [
        AuditConfig(),
        AuditConfig(theta_loss=0.9, theta_consistency=0.8, combine="3-of-4"),
        AuditConfig(combine="union"),
    ],
)
def test_select_from_keeps_a_review(noisy_index: CleanIndex, marks: Path, config: AuditConfig) -> None:
    after = clipaudit.reselect(apply_marks(noisy_index, marks)[0], config)
    before = apply_marks(clipaudit.reselect(noisy_index, config), marks)[0]
    assert after.table.equals(before.table)
    assert after.metadata == before.metadata


def test_rescued_samples_are_found_by_the_labels_that_the_scores_are_about(
    noisy_index: CleanIndex, tmp_path: Path
) -> None:
    config = AuditConfig(selectors=("zero_shot_loss",), theta_loss=1.0)
    strict = clipaudit.reselect(noisy_index, config)
    row = strict.table["fallback"].to_pylist().index(True)
    said = (strict.table["id"][row].as_py(), "relabel", other_class(strict, row))
    marks = write_marks(tmp_path / "m.csv", [said])
    after = clipaudit.reselect(apply_marks(noisy_index, marks)[0], config)
    assert after.table.equals(apply_marks(strict, marks)[0].table)


def test_evaluate_judges_the_review_and_the_audit_apart(
    noisy_index: CleanIndex, noisy_digits: Digits, tmp_path: Path
) -> None:
    truth = list(noisy_digits[1].values())
    ids, given = (noisy_index.table[name].to_pylist() for name in ("id", "label"))
    wrong = [row for row in range(600) if given[row] != truth[row]]
    corrected = write_marks(tmp_path / "m.csv", [(ids[row], "relabel", truth[row]) for row in wrong[:-1]])
    before = clipaudit.evaluate(noisy_index, truth)
    after = clipaudit.evaluate(apply_marks(noisy_index, corrected)[0], truth)
    assert after.overall.noise_rate == pytest.approx(1 / 600)
    assert after.overall.auroc == before.overall.auroc
    assert after.selectors == before.selectors
    assert after.suggestion_accuracy == before.suggestion_accuracy
    assert sum(metrics.n * (metrics.noise_rate or 0) for metrics in after.classes.values()) == pytest.approx(1)


def test_exports_and_training_take_what_the_review_says(
    noisy_index: CleanIndex, noisy_digits: Digits, rows: dict[str, int], marks: Path, tmp_path: Path
) -> None:
    reviewed, _ = apply_marks(noisy_index, marks)
    for name in ("e.txt", "e.npy", "e.csv", "links"):
        clipaudit.export(reviewed, tmp_path / name)
    assert set(np.load(tmp_path / "e.npy")) == set(np.flatnonzero(reviewed.is_clean))
    relabelled = reviewed.table.slice(rows["relabel"], 1).to_pylist()[0]
    assert relabelled["path"] in (tmp_path / "e.txt").read_text().splitlines()
    with (tmp_path / "e.csv").open(newline="") as file:
        exported = list(csv.DictReader(file))[rows["relabel"]]
    assert (exported["label"], exported["label_given"]) == (relabelled["label"], relabelled["label_given"])
    links = (tmp_path / "links" / relabelled["label"]).iterdir()
    assert Path(relabelled["path"]) in [path.readlink() for path in links]
    config = clipaudit.recipe("cifar", val_share=0.0)
    data = training_set(reviewed, config, images=None, truth=noisy_digits[0].parent / "truth.csv", has_test=True)
    assert data.class_names[data.samples.labels[rows["relabel"]]] == relabelled["label"]
    assert [bool(data.clean[rows[name]]) for name in ("right", "relabel", "drop")] == [True, True, False]
    assert subset_fingerprint(reviewed) != subset_fingerprint(noisy_index)


def test_new_labels_can_be_audited(noisy_cache: Path, noisy_index: CleanIndex, marks: Path, tmp_path: Path) -> None:
    reviewed, _ = apply_marks(noisy_index, marks)
    reviewed.write(tmp_path / "r.parquet")
    again = clipaudit.select(noisy_cache, labels=f"{tmp_path / 'r.parquet'}:label", device="cpu")
    assert again.table["label"].to_pylist() == reviewed.table["label"].to_pylist()


def test_no_mark_makes_an_image_readable(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_class_folders(root, 80)
    bad = sorted(root.rglob("*.png"))[5]
    bad.write_text("no image")
    index = clipaudit.select(clipaudit.embed(root, cache=tmp_path / "c", encoder=DIGITS).cache, device="cpu")
    sample_id = bad.relative_to(root).as_posix()
    for number, mark in enumerate((("right", ""), ("relabel", "ZERO"), ("drop", ""))):
        reviewed, summary = apply_marks(index, write_marks(tmp_path / f"{number}.csv", [(sample_id, *mark)]))
        row = reviewed.table.filter(pc.equal(reviewed.table["id"], sample_id)).to_pylist()[0]
        assert (row["is_clean"], row["reviewed"]) == (False, mark[0])
        assert summary.unreadable == (mark[0] != "drop")
        assert row["label"] == ("zero" if mark[1] else row["label_given"])


def test_spellings_that_mean_the_same(noisy_index: CleanIndex, tmp_path: Path) -> None:
    first, second = noisy_index.table["id"].to_pylist()[:2]
    label = noisy_index.table["label"][1].as_py()
    path = tmp_path / "m.csv"
    path.write_text(f"ID,Mark,label,note\n{first}, Relabel,NINE,x\n{second},right,{label},\n{second},right,{label},y\n")
    reviewed, summary = apply_marks(noisy_index, path)
    assert (summary.right, summary.relabel) == (1, 1)
    assert reviewed.table["label"].to_pylist()[:2] == ["nine", label]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"m\.csv is empty"),
        ("id,mark,label\n", r"m\.csv holds no marks"),
        ("id mark label\nA drop \n", r"m\.csv has no column 'id'.*the file has: id mark label"),
        ("id,mark\nA,drop\n", r"m\.csv has no column 'label'"),
        (
            "id,mark,label\nA,drop,\nnowhere.png,drop,\n",
            r"m\.csv, line 3: the index has no sample 'nowhere\.png' \(1 of 2",
        ),
        ("id,mark,label\n,drop,\n", r"m\.csv, line 2: the id is missing"),
        ("id,mark,label\nA,wrong,\n", r"m\.csv, line 2: unknown mark 'wrong'.*right, relabel, drop"),
        ("id,mark,label\nA,relabel,eleven\n", r"m\.csv, line 2: the index has no class 'eleven'.*eight, five"),
        ("id,mark,label\nA,relabel, \n", r"m\.csv, line 2: relabel needs a class"),
        ("id,mark,label\nA,drop,\nB,drop,\nA,right,\n", r"m\.csv, line 4: .* another mark in .*m\.csv, line 2"),
        ("id,mark,label\nA,relabel,one\nA,relabel,two\n", r"m\.csv, line 3: .* another mark in .*line 2"),
        (
            "id,mark,label\nA,right,zero\n",
            r"m\.csv, line 2: 'right' keeps the label of .*'eight' in the index, not 'zero'",
        ),
        ("id,mark,label\nA,drop\n", r"m\.csv, line 2: 2 fields where the header has 3"),
    ],
)
def test_marks_that_cannot_be_applied_are_explained(
    noisy_index: CleanIndex, tmp_path: Path, content: str, message: str
) -> None:
    first, second = noisy_index.table["id"].to_pylist()[:2]
    assert noisy_index.table["label"][0].as_py() == "eight"
    path = tmp_path / "m.csv"
    path.write_text(content.replace("A,", f"{first},").replace("B,", f"{second},"))
    with pytest.raises(SourceError, match=message):
        apply_marks(noisy_index, path)


def test_files_that_hold_no_marks_are_refused(noisy_index: CleanIndex, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with pytest.raises(SourceError, match=r"m\.csv does not exist"):
        apply_marks(noisy_index, path)
    path.write_bytes("id,mark,label\na,relabel,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"m\.csv, line \d: not UTF-8 text"):
        apply_marks(noisy_index, path)
    with pytest.raises(UsageError, match="not a table that clipaudit reads"):
        apply_marks(noisy_index, path.rename(tmp_path / "m.xlsx"))
    lone = tmp_path / "m.jsonl"
    lone.write_text('{"id": "\\ud800", "mark": "drop", "label": null}\n')
    with pytest.raises(ClipAuditError, match=r"line 1: the id is not valid Unicode: '\\ud800'"):
        apply_marks(noisy_index, lone)


def test_apply_on_the_command_line(
    noisy_index: CleanIndex, rows: dict[str, int], marks: Path, tmp_path: Path, run_cli: Cli
) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    result = run_cli("apply", "clean.parquet", marks, "--out", "reviewed.parquet")
    assert result.returncode == 0, result.stderr
    assert "3 of 600 samples reviewed" in result.stdout
    reviewed = clipaudit.read_index(tmp_path / "reviewed.parquet")
    assert reviewed.table.equals(apply_marks(noisy_index, marks)[0].table)
    again = run_cli("select", "--from", "reviewed.parquet", "--combine", "union", "--out", "union.parquet")
    assert again.returncode == 0, again.stderr
    assert "reviewed       3 by a person" in again.stdout
    assert not clipaudit.read_index(tmp_path / "union.parquet").is_clean[rows["drop"]]
    marks.write_text("id,mark,label\n\x1b[2Jx,drop,\n")
    fault = run_cli("apply", "clean.parquet", marks, "--out", "none.parquet")
    assert fault.returncode == 1
    assert "marks.csv, line 2: the index has no sample" in fault.stderr
    assert "\x1b" not in fault.stderr
    assert not (tmp_path / "none.parquet").exists()
