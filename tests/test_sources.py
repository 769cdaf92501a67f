"""What a path is as a source: guesses are checked and said aloud, and what cannot be right is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, write_class_folders
from source_helpers import ids, images, labels, touch, write_parquet

import clipaudit
from clipaudit.errors import SourceError
from clipaudit.samples import open_source

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


# --- Folders that are no classes -------------------------------------------------------------------------------------

SPLITS = {
    "train and test": ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png"],
    "three, with capitals": ["Train/cat/1.png", "VAL/cat/2.png", "Test/dog/3.png"],
    "prefixes": ["split_train/cat/1.png", "split_dev/cat/1.png"],
    "years": ["train2017/cat/1.png", "val2017/cat/1.png"],
    "words": ["train_images/cat/1.png", "validation-images/cat/1.png"],
    "letters": ["trainA/cat/1.png", "testA/cat/1.png"],
    "one name": ["train/cat/1.png", "train/dog/1.png"],
    "the data set's name": ["birds_train/wren/1.png", "birds_eval/wren/2.png"],
    "class numbers": ["training/0/1.png", "testing/1/2.png"],
    "another folder beside": ["train/cat/1.png", "val/cat/2.png", "extra/cat/2.png", "docs/"],
    "no classes in the test split": ["train/cat/1.png", "train/dog/1.png", "test/1.png"],
    "folds": ["fold1/cat/1.png", "fold1/dog/1.png", "fold2/cat/1.png", "fold2/dog/1.png"],
    "cameras": ["camera_a/cat/1.png", "camera_b/cat/1.png"],
    "sites, one without dogs": ["site-1/cat/1.png", "site-1/dog/2.png", "site-2/cat/1.png"],
    "batches of class numbers": ["batch 1/0/1.png", "batch 1/1/1.png", "batch 2/0/1.png", "batch 2/1/1.png"],
    "wrapped": ["images/cat/1.png", "images/dog/1.png"],
    "wrapped, with tables beside": ["JPEGImages/cat/1.png", "JPEGImages/dog/1.png", "Annotations/"],
    "wrapped twice": ["archive/pets/cat/1.png", "archive/pets/dog/1.png"],
    "a split's images": ["train/images/cat/1.png", "train/images/dog/1.png", "val/images/cat/1.png"],
    "a copy beside": ["cat/1.png", "dog/1.png", "backup/cat/1.png", "backup/dog/1.png"],
    "a split beside": ["cat/1.png", "dog/1.png", "test/cat/1.png"],
}


@pytest.mark.parametrize("name", SPLITS)
def test_folders_that_cannot_be_classes_are_refused(tmp_path: Path, name: str) -> None:
    root = touch(tmp_path / "photos", *SPLITS[name])
    with pytest.raises(SourceError) as caught:
        open_source(root)
    # The message names a folder that is a source.
    folder = str(caught.value).rsplit(str(root), 1)[1].strip(". ").split(". ")[0].lstrip("/")
    assert folder
    assert (root / folder).is_dir()
    assert set(labels(open_source(root / folder))) <= {"cat", "dog", "wren", "0", "1"}


def test_splits_without_class_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a folder named after it"):
        open_source(touch(tmp_path, "train/1.png", "test/2.png"))
    with pytest.raises(SourceError, match="a folder named after it"):
        open_source(touch(tmp_path / "yolo", "train/images/1.png", "val/images/2.png"))


CLASSES = {
    "a train among cars": (["train/1.png", "car/2.png", "bus/2.png"], {"train", "car", "bus"}),
    "tests that are classes": (["positive_test/1.png", "negative_test/2.png"], {"positive_test", "negative_test"}),
    "images inside each class": (["n01/images/1.png", "n02/images/2.png"], {"n01", "n02"}),
    "splits inside each class": (["bottle/train/1.png", "bottle/test/1.png", "cable/train/2.png"], {"bottle", "cable"}),
    "numbered shelves": (["cat/001/1.png", "cat/002/1.png", "dog/001/1.png", "dog/002/1.png"], {"cat", "dog"}),
    "numbered people": (["A/user_1/1.png", "A/user_2/1.png", "B/user_1/1.png", "B/user_2/1.png"], {"A", "B"}),
    "shelves of one class": (["cat/white/1.png", "cat/black/1.png", "dog/1.png"], {"cat", "dog"}),
    "Chinese names": (["猫/1.png", "狗/2.png"], {"猫", "狗"}),
    "digits": (["0/1.png", "1/2.png"], {"0", "1"}),
    "one class": (["cat/a/1.png"], {"cat"}),
}


@pytest.mark.parametrize("name", CLASSES)
def test_folders_that_can_be_classes_are_read_without_a_doubt(tmp_path: Path, name: str) -> None:
    paths, classes = CLASSES[name]
    source = open_source(touch(tmp_path, *paths))
    assert set(labels(source)) == classes
    assert source.notes() == []


def test_where_either_level_may_be_the_classes_it_is_said(tmp_path: Path) -> None:
    paths = [f"{town}/{kind}/1.png" for town in ("london", "paris") for kind in ("cat", "dog")]
    source = open_source(touch(tmp_path, *paths))
    assert labels(source) == ["london", "london", "paris", "paris"]
    assert "all have the same folders (cat, dog)" in " ".join(source.notes())
    assert "name one folder" in " ".join(source.notes())


# --- Our own outputs --------------------------------------------------------------------------------------------------


def test_what_clipaudit_wrote_is_never_a_source_by_accident(tmp_path: Path, run_cli: Cli) -> None:
    write_class_folders(tmp_path, 40)
    model = ("--model", DIGITS.model, "--device", "cpu")
    first = run_cli("embed", ".", *model, "--cache", "cache")
    assert first.returncode == 0, first.stderr
    selected = run_cli("select", "cache", "--out", "clean.parquet", "--device", "cpu", "--export", "clean.csv")
    assert selected.returncode == 0, selected.stderr
    again = run_cli("embed", ".", *model, "--cache", "cache")
    assert again.returncode == 0, again.stderr
    assert "40 images" in again.stdout
    assert "embedded now   0" in again.stdout
    for words in ("class folders in", "10: ", "clean.parquet (a clean index) passed over", "'cache' (an embeddings"):
        assert words in again.stdout
    with pytest.raises(SourceError, match="an embeddings cache, not a source"):
        open_source(tmp_path / "cache")


def test_an_index_beside_parquet_shards_is_passed_over(tmp_path: Path, noisy_index: clipaudit.CleanIndex) -> None:
    for number in range(2):
        write_parquet(tmp_path / f"shard-{number}.parquet", {"image": images(3), "label": ["cat", "dog", "cat"]})
    noisy_index.write(tmp_path / "clean.parquet")
    # What pandas leaves of it.
    pq.write_table(noisy_index.table, tmp_path / "again.parquet")
    predictions = {"id": ["a"], "label": ["cat"], "predicted_label": ["cat"], "probability": [0.5], "status": ["ok"]}
    write_parquet(tmp_path / "predictions.parquet", predictions)
    run = {"id": ["a"], "label": ["cat"], "final_label": ["cat"], "action": ["kept"], "p_m": [0.5]}
    write_parquet(tmp_path / "labels.parquet", run)
    source = open_source(tmp_path)
    assert len(ids(source)) == 6
    assert [note.split(" (")[0] for note in source.notes()] == [
        "again.parquet",
        "clean.parquet",
        "labels.parquet",
        "predictions.parquet",
    ]


def test_class_folders_win_over_parquet_without_images(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png", "run/curve.svg", "run/sample.png")
    (tmp_path / "run" / "run.json").write_text("{}")
    write_parquet(tmp_path / "notes.parquet", {"path": ["cat/1.png"], "label": ["dog"]})
    (tmp_path / "labels.csv").write_text("path,label\ncat/1.png,dog\n")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    source = open_source(tmp_path)
    assert labels(source) == ["cat", "dog"]
    notes = " ".join(source.notes())
    for words in ("notes.parquet passed over", "labels.csv passed over", "broken.parquet", "'run' (a run of clipaudit"):
        assert words in notes


def test_images_in_folders_and_in_parquet_at_once_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    write_parquet(tmp_path / "shard.parquet", {"image": images(1), "label": ["cat"]})
    with pytest.raises(SourceError, match=r"class folders with images \(cat, dog\) and Parquet files with images"):
        open_source(tmp_path)
    assert ids(open_source(tmp_path / "*.parquet")) == ["shard.parquet#0"]
    assert open_source(tmp_path / "*.parquet").location == tmp_path / "*.parquet"
