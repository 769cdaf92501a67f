"""Rows of tables matched to samples and classes: the same way for labels, truth and marks."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clipaudit
from clipaudit import CleanIndex
from clipaudit.calls.apply import apply_marks
from clipaudit.errors import SourceError
from clipaudit.index.truth import TrueLabels, match_truth
from clipaudit.samples import read_column
from clipaudit.training.data import training_set

Rows = list[dict[str, object]]
N = 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images in folders of two classes; their true classes are `t0`, `t1`, ..."""
    for name in names():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    return tmp_path / "images"


def names() -> list[str]:
    return [f"{('cat', 'dog')[number % 2]}/{number:03}.jpg" for number in range(N)]


EXPECTED = [f"t{number}" for number in range(N)]


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def shuffled(key: Callable[[int, str], dict[str, object]]) -> Rows:
    rows = [{**key(number, name), "label": f"t{number}"} for number, name in enumerate(names())]
    random.Random(0).shuffle(rows)
    return rows


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("where", ["beside", "elsewhere"])
@pytest.mark.parametrize(
    ("key", "matched_by"),
    [
        (lambda number, name: {"id": number, "filename": name}, "path"),  # FAULTS 5
        (lambda number, name: {"id": name}, "id"),
        (lambda number, name: {"id": name, "path": f"/nowhere/{name[4:]}"}, "id"),
        (lambda number, name: {"File": f"./{name}"}, "path"),
        (lambda number, name: {"file_name": name[4:]}, "path"),
        (lambda number, name: {"image": name.replace("/", "\\")}, "path"),
        (lambda number, name: {"path": f"C:\\data\\photos\\{name}".replace("/", "\\")}, "path"),
        (lambda number, name: {"path": f"/data/upload/{name}"}, "path"),
        (lambda number, name: {"path": f"file:///data/{name}"}, "path"),
        (lambda number, name: {"path": f"{name} "}, "path"),
        (lambda number, name: {"id": name.removesuffix(".jpg")}, "id"),
        (lambda number, name: {"id": f"{number:03}"}, "id"),  # Numbers that name every file.
        (lambda number, name: {"note": "x", "picture": name}, "path"),  # No usual name for the column.
        (lambda number, name: {"image": f"images/{name}"}, "path"),
    ],
)
def test_shuffled_rows_find_their_samples(
    root: Path, ending: str, where: str, key: Callable[[int, str], dict[str, object]], matched_by: str
) -> None:
    folder = root.parent if where == "beside" else root.parent / "far" / "away"
    folder.mkdir(parents=True, exist_ok=True)
    column = read_column(write(folder / f"t.{ending}", shuffled(key)), names(), root)
    assert (column.values, column.matched_by) == (EXPECTED, matched_by)


def test_tolerance_is_said(root: Path) -> None:
    table = write(root.parent / "t.csv", shuffled(lambda number, name: {"path": f"D:\\x\\{name}"}))
    column = read_column(table, names(), root)
    assert column.said == "column 'label' of t.csv, separated by commas, matched by path in column 'path'"
    assert "t.csv: rows matched by the ends of the paths: 'D:\\\\x\\\\" in column.notes[0]
    table = write(root.parent / "t.csv", shuffled(lambda number, name: {"path": name}))
    assert read_column(table, names(), root).notes == ()


def test_paths_through_links_are_resolved(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    (root.parent / "single").mkdir()
    for number, name in enumerate(names()):
        (root.parent / "single" / f"{number}").symlink_to(root / name)
    for key in (
        lambda number, name: {"path": str(root.parent / "link" / name)},
        lambda number, name: {"path": str(root.parent / "single" / f"{number}")},
        lambda number, name: {"path": f"single/{number}"},
    ):
        assert read_column(write(root.parent / "t.csv", shuffled(key)), names(), root).values == EXPECTED


def test_unicode_forms_are_one_path(tmp_path: Path) -> None:
    ids = ["cafe\u0301/1.jpg", "caf\u00e9/2.jpg"]
    table = write(
        tmp_path / "t.csv", [{"id": "cafe\u0301/2.jpg", "label": "b"}, {"id": "caf\u00e9/1.jpg", "label": "a"}]
    )
    assert read_column(table, ids, tmp_path).values == ["a", "b"]


def in_order(key: Callable[[int, str], dict[str, object]]) -> Rows:
    return [{**key(number, name), "label": f"t{number}"} for number, name in enumerate(names())]


@pytest.mark.parametrize(
    "key",
    [
        lambda number, name: {},
        lambda number, name: {"note": f"seen by {number % 3}", "score": 0.5},
        lambda number, name: {"id": number},
        lambda number, name: {"id": 100 + 2 * number},
    ],
)
def test_rows_are_matched_by_order_where_nothing_could_be_a_path(
    root: Path, key: Callable[[int, str], dict[str, object]]
) -> None:
    column = read_column(write(root.parent / "t.jsonl", in_order(key)), names(), root)
    assert (column.values, column.matched_by) == (EXPECTED, "row order")
    assert column.said.endswith("matched by row order")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (shuffled(lambda number, name: {"id": number}), "column 'id' holds numbers in no order"),
        (shuffled(lambda number, name: {"key": f"s3/{number}.jpg"}), "'key' could name the images, but none"),
        (
            in_order(lambda number, name: {"path": f"C:\\upload\\{number}.png"}),
            r"'path' could name .* 'C:.*0\.png' there, 'cat/000\.jpg' in the audit \(all 12 paths start with 'C:",
        ),
        (in_order(lambda number, name: {"filename": f"x{number}"}), "remove the column to match row by row"),
        (in_order(lambda number, name: {})[:-1], "11 rows for 12 images and no path column"),
        (in_order(lambda number, name: {"path": name})[1:], r"no row for cat/000\.jpg \(1 of 12 .* 'path'"),
        (
            [*in_order(lambda number, name: {"path": name}), {"path": "./cat/000.jpg", "label": "other"}],
            r"line 14: cat/000\.jpg has the label 'other' here, but 't0' in .*line 2\. Keep one",
        ),
        ([{"path": "cat/000.jpg", "label": ""}], "line 2: the label is missing"),
        ([{"path": "cat/000.jpg", "other": "x"}], "Its columns: path, other. Name it behind a colon: .*:COLUMN"),
    ],
)
def test_what_cannot_be_matched_is_explained(root: Path, rows: Rows, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_column(write(root.parent / "t.csv", rows), names(), root)


def test_the_same_file_name_in_two_folders_is_not_guessed(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", [{"file": "1.jpg", "label": "a"}, {"file": "1.jpg", "label": "a"}])
    with pytest.raises(SourceError, match="none of its values is one"):
        read_column(table, ["cat/1.jpg", "dog/1.jpg"], tmp_path / "images")
    table = write(tmp_path / "u.csv", [{"file": "test/1.jpg", "label": "a"}])
    with pytest.raises(SourceError, match="none of its values is one"):
        read_column(table, ["1.jpg"], tmp_path / "train")


def test_repeated_rows_with_one_label_are_one(root: Path) -> None:
    rows = in_order(lambda number, name: {"path": name})
    assert read_column(write(root.parent / "t.csv", rows + rows[:3]), names(), root).values == EXPECTED


def test_files_and_columns_with_colons(tmp_path: Path) -> None:
    table = write(tmp_path / "a:b.csv", [{"id": "x", "c:d": "t"}])
    assert read_column(f"{table}:c:d", ["x"], tmp_path).values == ["t"]
    for spec in (f"{tmp_path}/none.csv:c", "\0", "x" * 5000):
        with pytest.raises(SourceError, match="does not exist"):
            read_column(spec, ["x"], tmp_path)


# ---- true labels


def spelled(index: CleanIndex, tmp_path: Path, change: Callable[[str], str]) -> Path:
    rows = zip(index.table["id"].to_pylist(), index.table["label"].to_pylist(), strict=True)
    return write(tmp_path / "truth.csv", [{"id": sample_id, "label": change(label)} for sample_id, label in rows])


@pytest.mark.parametrize("change", [str.upper, str.title, lambda name: f" {name} "])
def test_truth_in_another_spelling_is_the_same_truth(
    noisy_index: CleanIndex, tmp_path: Path, change: Callable[[str], str]
) -> None:
    truth = spelled(noisy_index, tmp_path, change)
    assert match_truth(noisy_index, truth).values.tolist() == noisy_index.table["label"].to_pylist()
    evaluation = clipaudit.evaluate(noisy_index, str(truth))
    assert evaluation.overall.noise_rate == 0
    assert evaluation.matched_by == "id"
    if change is str.upper:
        assert evaluation.notes[0].startswith("10 true class(es) read in the audit's spelling: 'EIGHT' as 'eight'")


def test_classes_that_the_audit_does_not_know_are_allowed_and_said_everywhere(
    noisy_index: CleanIndex, tmp_path: Path
) -> None:
    truth = spelled(noisy_index, tmp_path, lambda name: {"nine": "zebra", "one": "?"}.get(name, name))
    matched = match_truth(noisy_index, truth)
    labels = noisy_index.table["label"].to_pylist()
    assert (matched.values == "zebra").sum() == labels.count("nine")
    missing, unknown = matched.notes
    assert missing == f"{truth}, line {labels.index('one') + 2}: the label '?' looks like a missing one"
    assert unknown.startswith("2 true class(es) that the audit does not know")
    assert f"'zebra' ({labels.count('nine')})" in unknown
    (warning,) = matched.warnings
    assert warning.startswith(f"the true class '?' ({labels.count('one')} samples) looks like a missing label")
    evaluation = clipaudit.evaluate(noisy_index, str(truth))
    assert (evaluation.notes, evaluation.warnings[-1:]) == (matched.notes, list(matched.warnings))
    config = clipaudit.recipe("cifar", val_share=0.0)
    data = training_set(noisy_index, config, images=None, truth=truth, has_test=True)
    assert data.truth is not None
    np.testing.assert_array_equal(data.truth == -1, [label in ("nine", "one") for label in labels])
    assert data.notes()[:3] == [missing, unknown, warning]


def test_a_true_class_that_may_be_two_is_neither(noisy_index: CleanIndex) -> None:
    names = ["Dog", "dog", *noisy_index.class_names[2:]]
    index = CleanIndex(noisy_index.table, replace(noisy_index.metadata, class_names=names))
    truth = ["DOG"] * 5 + [names[3]] * (len(index) - 5)
    matched: TrueLabels = match_truth(index, truth)
    assert matched.warnings == ("the true class 'DOG' (5 samples) may be 'Dog' or 'dog': it counts as neither",)
    assert matched.values[0] == "DOG"


def test_true_class_indices_need_names_or_declared_classes(noisy_index: CleanIndex, tmp_path: Path) -> None:
    number = {name: str(number) for number, name in enumerate(noisy_index.class_names)}
    truth = spelled(noisy_index, tmp_path, number.__getitem__)
    labels = noisy_index.table["label"].to_pylist()
    with pytest.raises(SourceError, match=r"no class in common.*--names"):
        match_truth(noisy_index, truth)
    assert match_truth(noisy_index, truth, names=noisy_index.class_names).values.tolist() == labels
    declared = CleanIndex(noisy_index.table, replace(noisy_index.metadata, declared_classes=True))
    assert match_truth(declared, truth).values.tolist() == labels
    assert match_truth(declared, [int(number[label]) for label in labels]).values.tolist() == labels
    with pytest.raises(SourceError, match=r"true class index 10 is out of range"):
        match_truth(declared, ["10"] * len(labels))


# ---- marks


def test_marks_find_samples_like_every_table(noisy_index: CleanIndex, tmp_path: Path) -> None:
    ids = noisy_index.table["id"].to_pylist()
    root = Path(noisy_index.metadata.root)
    (tmp_path / "link").symlink_to(root)
    for spelling in (ids[0], str(root / ids[0]), str(tmp_path / "link" / ids[0]), f"C:\\x\\{ids[0]}"):
        path = write(tmp_path / "m.csv", [{"id": spelling, "mark": "drop", "label": ""}])
        reviewed, summary = apply_marks(noisy_index, path)
        assert reviewed.table["reviewed"][0].as_py() == "drop"
        assert bool(summary.notes) == spelling.startswith("C:")
    path.write_text(f"id;mark;label\n{ids[0]};drop;\n", encoding="utf-16")
    assert apply_marks(noisy_index, path)[1].drop == 1


def test_apostrophes_before_formulas_are_undone(noisy_index: CleanIndex, tmp_path: Path) -> None:
    names = ["=1+1", *noisy_index.class_names[1:]]
    ids = pa.array(["-a.png", *noisy_index.table["id"].to_pylist()[1:]])
    table = noisy_index.table.set_column(0, "id", ids)
    table = table.set_column(2, "label", pa.array(names[1:2] * len(ids)).dictionary_encode())
    index = CleanIndex(table, replace(noisy_index.metadata, class_names=names))
    for guard in ("'", ""):
        row = {"id": f"{guard}-a.png", "mark": "relabel", "label": f"{guard}=1+1"}
        reviewed, _ = apply_marks(index, write(tmp_path / "m.csv", [row]))
        assert reviewed.table["label"][0].as_py() == "=1+1"
        truth = match_truth(index, [f"{guard}=1+1"] * len(index))
        assert set(truth.values) == {"=1+1"}
