"""What a path is as a source: guesses are checked and said aloud, and what cannot be right is refused."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, without_rights, write_class_folders
from PIL import Image

import clipaudit
from clipaudit.calls.embed import EmbedProgress
from clipaudit.errors import CacheError, ImageError, SourceError
from clipaudit.samples import FaultySample, Sample, Source, SourceOptions, open_source
from clipaudit.samples.labels import read_column

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def digit(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((28, 28), 10 * number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def touch(root: Path, *paths: str) -> Path:
    """Small images below `root`; a path that ends in `/` makes an empty folder."""
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(digit())
    return root


def write_parquet(path: Path, columns: dict[str, object], names: Sequence[str] = (), label: str = "label") -> Path:
    table = pa.table(columns)
    if names:
        feature = {"info": {"features": {label: {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(feature)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def images(n: int) -> pa.Array:
    return pa.array([digit(number) for number in range(n)])


def labels(source: Source) -> list[str]:
    return [sample.label for sample in source.samples()]


def ids(source: Source) -> list[str]:
    return [sample.id for sample in source.samples()]


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


# --- Parquet ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"],
        ["train", "test"],
        ["birds_train_0", "birds_train_1", "birds_val_0"],
        ["gen3-00000-of-00001", "gen4-00000-of-00001"],
        ["train-00000-of-00001-a1b2c3d4e5", "validation-00000-of-00001-0f0f0f0f0f"],
    ],
)
def test_splits_of_parquet_are_never_merged_unasked(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write_parquet(tmp_path / f"{name}.parquet", {"image": images(1), "label": ["cat"]})
    with pytest.raises(SourceError, match="holds several splits") as caught:
        open_source(tmp_path)
    one, every = str(caught.value).split("'")[1::2]
    read = {name.split("-0")[0].split("#")[0] for name in ids(open_source(one))}
    assert len({name.rstrip("01").removesuffix(".parquet").strip("_01") for name in read}) == 1
    assert len(ids(open_source(every))) == len(names)


def test_shards_of_one_split_are_one_source(tmp_path: Path, run_cli: Cli) -> None:
    for number in range(3):
        write_parquet(tmp_path / "d" / f"train-{number:05}-of-00003.parquet", {"img": images(4), "label": [0, 1, 2, 1]})
    assert len(ids(open_source(tmp_path / "d"))) == 12
    result = run_cli("embed", "d/train-*.parquet", "--model", DIGITS.model, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    for words in ("12 images", "3 Parquet file(s) with images", "column 'img'", "column 'label'", "names are numbers"):
        assert words in result.stdout
    assert [path.name.startswith("train-model-") for path in (tmp_path / ".clipaudit").iterdir()] == [True]
    assert run_cli("select", "--device", "cpu", "--prompts", "digits", "--names", "no.txt").returncode == 1
    missing = run_cli("embed", "d/val-*.parquet", "--model", DIGITS.model)
    assert (missing.returncode, "no Parquet file" in missing.stderr) == (1, True)


def test_class_names_are_read_from_each_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "s-0.parquet", {"image": images(2), "label": [0, 1]}, ["cat", "ship"])
    write_parquet(tmp_path / "s-1.parquet", {"image": images(3), "label": [0, 1, 2]}, ["ship", "cat", "frog"])
    source = open_source(tmp_path)
    assert labels(source) == ["cat", "ship", "ship", "cat", "frog"]
    assert source.class_names == ["cat", "ship", "frog"]
    with pytest.raises(SourceError, match="number their classes differently"):
        open_source(tmp_path, SourceOptions(names=["cat", "ship", "frog"]))
    write_parquet(tmp_path / "s-2.parquet", {"image": images(1), "label": ["bird"]})
    assert open_source(tmp_path).class_names is None
    assert labels(open_source(tmp_path))[-1] == "bird"
    write_parquet(tmp_path / "s-2.parquet", {"image": images(1), "label": [1]})
    with pytest.raises(SourceError, match=r"s-2\.parquet does not say what the numbers"):
        open_source(tmp_path)


UNEQUAL = {
    "another label column": {"image": images(1), "labels": ["cat"]},
    "another image column": {"picture": images(1), "label": ["cat"]},
    "paths for images": {"image": ["a.png"], "label": ["cat"]},
    "no images": {"path": ["a.png"], "split": ["train"]},
}


@pytest.mark.parametrize("name", UNEQUAL)
def test_a_shard_with_other_columns_is_named_with_its_columns(tmp_path: Path, run_cli: Cli, name: str) -> None:
    write_parquet(tmp_path / "d" / "a.parquet", {"image": images(1), "label": ["cat"]})
    write_parquet(tmp_path / "d" / "b.parquet", UNEQUAL[name])
    result = run_cli("embed", "d", "--model", DIGITS.model)
    assert result.returncode == 1
    assert "b.parquet" in result.stderr
    assert ", ".join(UNEQUAL[name]) in result.stderr
    assert "Traceback" not in result.stderr


TYPES = {
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
    "fixed_size_binary": pa.binary(len(digit())),
}


@pytest.mark.parametrize("kind", TYPES)
def test_image_bytes_of_every_type_are_read(tmp_path: Path, kind: str) -> None:
    image = pa.array([digit(), digit()], TYPES[kind])
    source = open_source(write_parquet(tmp_path / "t.parquet", {"image": image, "label": ["cat", "dog"]}))
    assert source.read("t.parquet#1") == digit()


def test_shards_may_store_images_differently(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": images(1), "label": ["cat"]})
    struct = pa.array([{"bytes": digit(3), "path": "x.png"}])
    write_parquet(tmp_path / "b.parquet", {"image": struct, "label": ["dog"]})
    source = open_source(tmp_path)
    assert [source.read(name) for name in ids(source)] == [digit(), digit(3)]


def test_the_image_column_is_recognised_by_name_or_by_its_values(tmp_path: Path) -> None:
    def column(**columns: object) -> str | None:
        n = len(next(iter(columns.values())))  # type: ignore[arg-type]
        path = write_parquet(tmp_path / "t.parquet", {**columns, "label": ["cat"] * n})
        return open_source(path).decided()["images"]

    hashes = pa.array([bytes(range(16))] * 3)
    assert column(md5=hashes, image=images(3)) == "column 'image'"
    assert column(embedding=hashes, scan=images(3)) == "column 'scan'"
    assert column(embedding=hashes, scan=pa.array([None, None, digit()])) == "column 'scan'"
    assert column(thumbnail=images(3), image=images(3)) == "column 'image'"
    assert column(image=hashes, blob=images(3)) == "column 'blob'"
    assert column(md5=hashes, jpg=pa.array([b"damaged"] * 3)) == "column 'jpg'"
    with pytest.raises(SourceError, match=r"several columns .* front, back\. Say which one: --image-column"):
        column(front=images(3), back=images(3))
    with pytest.raises(SourceError, match="no column of images and none of paths"):
        column(md5=hashes)
    options = SourceOptions(image_column="md5")
    assert open_source(tmp_path / "t.parquet", options).decided()["images"] == "column 'md5'"


def test_images_named_by_path_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "pictures/1.png", "pictures/folder/")
    os.mkfifo(tmp_path / "pipe.png")
    paths = [str(tmp_path / "pictures/1.png"), "pictures/1.png", "none.png", "pictures/folder", "pipe.png", None]
    rows = [{"bytes": None, "path": path} for path in paths]
    for kind in (pa.binary(), pa.null()):
        image = pa.array(rows, pa.struct([("bytes", kind), ("path", pa.string())]))
        source = open_source(write_parquet(tmp_path / "t.parquet", {"image": image, "label": ["cat"] * 6}))
        assert source.read("t.parquet#0") == source.read("t.parquet#1") == digit()
        for row, reason in ((2, "none.png: cannot be opened"), (3, "a folder"), (4, "a named pipe"), (5, "no image")):
            with pytest.raises(ImageError, match=reason):
                source.read(f"t.parquet#{row}")


def test_a_damaged_row_group_costs_its_rows_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rng = np.random.default_rng(0)
    noise = [digit() + rng.bytes(2000) for _ in range(40)]
    pq.write_table(pa.table({"image": noise, "label": ["cat", "dog"] * 20}), path, row_group_size=20)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + 400] = b"\xff" * 400
    path.write_bytes(content)
    summary = clipaudit.embed(path, cache=tmp_path / "c", encoder=DIGITS)
    assert (summary.n_samples, summary.n_unreadable) == (40, 20)
    assert all(len(reason) < 300 and "\\xff" not in reason for _, reason in summary.unreadable)


BAD_LABELS = {
    "lists": pa.array([["cat"], ["dog"]]),
    "dicts": pa.array([{"name": "cat"}, {"name": "dog"}]),
    "missing": pa.array(["cat", None]),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_labels_of_parquet_that_are_none_are_refused_with_their_row(tmp_path: Path, name: str) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": images(2), "label": BAD_LABELS[name]})
    with pytest.raises(SourceError, match=r"t\.parquet, row [01]"):
        labels(open_source(path))


def test_labels_of_bytes_are_text(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": images(2), "label": [b"cat", b"dog"]})
    assert labels(open_source(path)) == ["cat", "dog"]


def test_hub_metadata_that_is_none_is_ignored_or_explained(tmp_path: Path) -> None:
    def named(names: object) -> Path:
        content = json.dumps({"info": {"features": {"label": {"names": names}}}})
        table = pa.table({"image": images(1), "label": [0]}).replace_schema_metadata({"huggingface": content})
        pq.write_table(table, tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    assert labels(open_source(named("cat"))) == ["0"]
    assert labels(open_source(named([1, 2]))) == ["0"]
    assert labels(open_source(named([" cat ", "dog"]))) == ["cat"]
    with pytest.raises(SourceError, match="not valid UTF-8"):
        open_source(named(["\ud800"]))
    table = pa.table({"image": images(1), "label": [0]}).replace_schema_metadata({"huggingface": "[" * 100_000})
    pq.write_table(table, tmp_path / "deep.parquet")
    assert labels(open_source(tmp_path / "deep.parquet")) == ["0"]


# --- The walk through folders -----------------------------------------------------------------------------------------


def test_what_systems_leave_between_the_files_is_passed_over_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "dog/2.png", "dog/.AppleDouble/2.png")
    touch(tmp_path, "@eaDir/x.jpg", "__MACOSX/cat/._1.png", "$RECYCLE.BIN/1.png", "lost+found/#1.png", "#recycle/1.png")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "desktop.ini").write_bytes(b"x")
    source = open_source(tmp_path)
    assert ids(source) == ["cat/1.png", "dog/2.png"]
    notes = source.notes()
    assert any(note.startswith("2 ") and "'@eaDir'" in note and "passed over" in note for note in notes)
    assert len(notes) == 7


def test_links_are_followed_once(tmp_path: Path) -> None:
    names = [f"class{letter}" for letter in "abcdefghi"]
    touch(tmp_path, *(f"photos/{name}/1.png" for name in names), "store/deep/1.png")
    photos = tmp_path / "photos"
    for name in names:
        for other in names:
            (photos / name / f"to_{other}").symlink_to(photos / other)
    (photos / "alias").symlink_to(photos / "classa")
    (photos / "classa" / "up").symlink_to(tmp_path)
    (photos / "classb" / "store").symlink_to(tmp_path / "store")
    (photos / "classc" / "store").symlink_to(tmp_path / "store" / "deep")
    (photos / "self").symlink_to("self")
    (photos / "classd" / "self.png").symlink_to("self.png")
    (tmp_path / "store" / "back").symlink_to(photos / "classb")
    source = open_source(photos)
    found = list(source.samples())
    expected = [f"{name}/1.png" for name in names]
    expected[2:2] = ["classb/store/deep/1.png"]
    expected[5:5] = ["classd/self.png"]
    assert [sample.id for sample in found] == expected
    (faulty,) = (sample for sample in found if isinstance(sample, FaultySample))
    assert "symbolic links" in faulty.reason
    notes = " ".join(source.notes())
    assert re.search(r"\b84 link.* read in its own place", notes)
    assert re.search(r"\b1 link\S* to a folder that another link", notes)


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "store/x/1.png", "photos/.hidden/2.png", "photos/dog/3.png")
    (tmp_path / "photos" / "cat").symlink_to(tmp_path / "store" / "x")
    (tmp_path / "photos" / "bird").symlink_to(".hidden")
    (tmp_path / "shortcut").symlink_to("photos")
    assert ids(open_source(tmp_path / "shortcut")) == ["bird/2.png", "cat/1.png", "dog/3.png"]


def test_a_thousand_nested_folders_end(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png")
    folder = tmp_path / "cat"
    for _ in range(1000):
        folder /= "d"
        folder.mkdir()
    try:
        (folder / "deep.png").write_bytes(digit())
        assert [len(name.split("/")) for name in ids(open_source(tmp_path))] == [2, 1002, 2]
    finally:
        # Python's own way to remove a tree gives up at this depth.
        subprocess.run(["rm", "-rf", tmp_path / "cat"], check=True)


@pytest.fixture
def odd_files(tmp_path: Path) -> Path:
    """Class folders with a named pipe, a socket's place, a device and links to them among the images."""
    root = touch(tmp_path / "odd", "cat/1.png", "dog/2.png")
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "cat" / "link.png").symlink_to("pipe.png")
    (root / "dog" / "folder.png").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "x.parquet")
    return root


def test_only_regular_files_are_opened(odd_files: Path, run_cli: Cli) -> None:
    result = run_cli("embed", odd_files, "--model", DIGITS.model, "--device", "cpu", timeout=100)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("the path leads to a named pipe, not to a file") == 2
    assert re.search("dog/folder.png: .*a device, not", result.stdout)
    for path in ("pipe", "x.parquet", "cat/pipe.png"):
        named = run_cli("embed", odd_files / path, "--model", DIGITS.model, timeout=100)
        assert (named.returncode, "a named pipe, not a file" in named.stderr) == (1, True), named.stderr
    assert run_cli("embed", "/dev/zero", "--model", DIGITS.model, timeout=100).returncode == 1


def test_a_size_that_lies_does_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "cat" / "status.png").symlink_to("/proc/self/status")
    source = open_source(tmp_path)
    assert b"VmPeak" in source.read("cat/status.png")
    os.truncate(tmp_path / "cat" / "1.png", (1 << 30) + 1)
    with pytest.raises(ImageError, match="over 1,073,741,824 bytes"):
        source.read("cat/1.png")


@pytest.mark.parametrize("time", [10**19, -(10**18), 2**63])
def test_times_beyond_64_bits_are_kept_within(tmp_path: Path, time: int) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png")
    try:
        os.utime(tmp_path / "cat" / "1.png", ns=(time, time))
    except OSError:
        pytest.skip("this file system has no such times")
    summary = clipaudit.embed(tmp_path, cache=tmp_path / ".c", encoder=DIGITS)
    assert (summary.n_samples, summary.n_unreadable) == (2, 0)
    assert clipaudit.embed(tmp_path, cache=tmp_path / ".c", encoder=DIGITS).n_embedded == 0


@pytest.mark.parametrize("place", ["cat\udcff/1.png", "photos\udcff/cat/1.png"])
def test_a_folder_that_is_no_utf8_is_named(tmp_path: Path, run_cli: Cli, place: str) -> None:
    touch(tmp_path / "p", place, "dog/1.png", "bird/2.png")
    source = Path(place).parts[0] if place.startswith("photos") else "."
    result = run_cli("embed", tmp_path / "p" / source, "--model", DIGITS.model)
    assert result.returncode == 1
    assert "not valid UTF-8" in result.stderr
    assert f"{source[:6] if source != '.' else 'cat'}\\" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_closed_folders_are_named(open_folder: Path) -> None:
    touch(open_folder, "photos/cat/1.png", "photos/dog/2.png", "photos/dog/closed/3.png")
    (open_folder / "photos" / "dog" / "closed").chmod(0)
    with without_rights(), pytest.raises(SourceError, match=r"dog/closed cannot be listed: Permission denied"):
        ids(open_source(open_folder / "photos"))
    (open_folder / "photos" / "cat").chmod(0)
    with without_rights(), pytest.raises(SourceError, match=r"photos/cat cannot be listed: Permission denied"):
        open_source(open_folder / "photos")
    (open_folder / "photos").chmod(0)
    for source in ("photos", "photos/cat", "photos/m.csv", "photos/*.parquet"):
        with without_rights(), pytest.raises(SourceError, match="Permission denied"):
            open_source(open_folder / source)


def test_an_image_that_may_be_read_again_is_tried_again(open_folder: Path) -> None:
    touch(open_folder, "photos/cat/1.png", "photos/dog/2.png")
    (open_folder / "photos" / "cat" / "1.png").chmod(0)
    with without_rights():
        summary = clipaudit.embed(open_folder / "photos", cache=open_folder / "c", encoder=DIGITS)
    assert (summary.n_embedded, summary.unreadable) == (1, (("cat/1.png", "cannot be opened: Permission denied"),))
    (open_folder / "photos" / "cat" / "1.png").chmod(0o644)
    with without_rights():
        summary = clipaudit.embed(open_folder / "photos", cache=open_folder / "c", encoder=DIGITS)
    assert (summary.n_embedded, summary.n_reused, summary.n_unreadable) == (1, 1, 0)
    assert len(list((open_folder / "c" / "parts").iterdir())) == 1


# --- What embed says and when it fails --------------------------------------------------------------------------------


def test_spellings_that_look_the_same_are_one_class(tmp_path: Path, run_cli: Cli) -> None:
    touch(tmp_path / "p", "cat/1.png", "cat /2.png", "cafe\u0301/3.png", "caf\u00e9/4.png", "Dog/5.png", "dog/6.png")
    source = open_source(tmp_path / "p")
    assert sorted(set(labels(source))) == ["Dog", "caf\u00e9", "cat", "dog"]
    assert "the folders 'cat' and 'cat ' are one class" in source.notes()
    result = run_cli("embed", "p", "--model", DIGITS.model, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert "4: Dog, caf\u00e9, cat, dog" in result.stdout
    assert "'cat' and 'cat ' are one class" in result.stdout
    assert "Dog" in result.stdout.split("warning", 1)[1]


SPELLED = ["deer", "deer ", "cafe\u0301", "caf\u00e9", "None", "NA", "NA"]


def labels_and_notes(kind: str, folder: Path, given: list[str]) -> tuple[list[str], list[str]]:
    """What a table with these labels is read as, and what is said about it."""
    ids = [f"{number}.png" for number in range(len(given))]
    touch(folder, *ids)
    table = folder / "t.csv" if kind.endswith("csv") else folder / "t.parquet"
    if kind == "images":
        write_parquet(table, {"image": images(len(given)), "label": given})
    elif kind == "manifest.parquet":
        write_parquet(table, {"path": ids, "label": given})
    else:
        table.write_text("\n".join(["path,label", *map(",".join, zip(ids, given, strict=True))]))
    if kind == "labels.csv":
        column = read_column(table, ids, folder)
        return column.values, list(column.notes)
    source = open_source(table)
    return labels(source), source.notes()


@pytest.mark.parametrize(
    ("kind", "first_rows"),
    [
        ("manifest.csv", ("line 6", "line 7")),
        ("labels.csv", ("line 6", "line 7")),
        ("manifest.parquet", ("row 4", "row 5")),
        ("images", ("row 4", "row 5")),
    ],
)
def test_every_table_says_which_labels_it_united_and_which_look_missing(
    kind: str, first_rows: tuple[str, str], tmp_path: Path
) -> None:
    found, notes = labels_and_notes(kind, tmp_path, SPELLED)
    assert found == ["deer", "deer", "caf\u00e9", "caf\u00e9", "None", "NA", "NA"]
    *united, none, na = notes
    assert united == [
        "the labels 'deer' and 'deer ' are one class",
        "the labels 'cafe\\u0301' and 'caf\\xe9' are one class",
    ]
    assert none.endswith(f"{first_rows[0]}: the label 'None' looks like a missing one")
    assert na.endswith(f"{first_rows[1]}: the label 'NA' looks like a missing one")


def test_notes_about_labels_are_few_however_many_labels_are_odd(tmp_path: Path) -> None:
    """Hundreds of spellings of one class, of labels that look missing, and of files that have the same ones."""
    given = ["deer" + " " * number for number in range(300)] + ["-" * number for number in range(1, 301)]
    found, notes = labels_and_notes("manifest.csv", tmp_path / "csv", given)
    assert found[299:301] == ["deer", "-"]
    assert (len(notes), max(map(len, notes)) < 300) == (7, True)
    assert "and 295 more are one class" in notes[0]
    assert notes[-1] == "295 more labels look missing"
    for number in range(10):
        write_parquet(tmp_path / f"p/{number}.parquet", {"image": images(2), "label": ["NA", "dog"]})
    source = open_source(tmp_path / "p")
    labels(source)
    assert [note for note in source.notes() if "'NA'" in note] == source.notes()[-1:]
    assert "0.parquet" in source.notes()[-1]


def test_names_go_with_numbered_folders_or_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "0/1.png", "1/2.png")
    names = SourceOptions(names=["cat", "dog"])
    assert labels(open_source(tmp_path, names)) == ["cat", "dog"]
    touch(tmp_path, "bird/3.png")
    with pytest.raises(SourceError, match="'bird' is not one of the 2 class names"):
        labels(open_source(tmp_path, names))


def test_embed_says_what_it_decided(small_images: Path, tmp_path: Path) -> None:
    summary = clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    assert list(summary.decided) == ["source", "classes"]
    assert summary.decided["classes"].startswith(f"{len(list(small_images.iterdir()))}: ")
    info = clipaudit.EmbeddingsCache.open(tmp_path / "c").info
    assert (info.decided, tuple(info.notes)) == (summary.decided, summary.notes)
    touch(tmp_path / "numbers", "0/1.png", "1/2.png")
    numbers = clipaudit.embed(tmp_path / "numbers", cache=tmp_path / "d", encoder=DIGITS)
    assert "class names are numbers" in numbers.warnings[0]
    touch(tmp_path / "single", "cat/1.png")
    single = clipaudit.embed(tmp_path / "single", cache=tmp_path / "e", encoder=DIGITS)
    assert "all images have the label 'cat'" in single.warnings[0]


FAILED = {
    "paths of another machine": (
        "path,label\n" + "".join(f"C:\\x\\{i}.png,cat\n" for i in range(20)),
        "on another machine?",
    ),
    "folders": ("path,label\ncat,cat\ndog,dog\n", "a folder, not to a file"),
    "nearly all": ("path,label\ncat/1.png,cat\n" + "".join(f"{i}.png,dog\n" for i in range(19)), "No such file"),
    "no images": ("path,label\ntext.png,cat\nempty.png,dog\n", "text.png"),
    "a folder too few": ("path,label\nwhole/1.png,cat\nwhole/2.png,dog\n", "may mean"),
}


@pytest.mark.parametrize("name", FAILED)
def test_a_run_that_can_read_nearly_nothing_has_failed(tmp_path: Path, name: str) -> None:
    table, reason = FAILED[name]
    touch(tmp_path, "cat/1.png", "dog/1.png", "moved/whole/1.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_text("")
    (tmp_path / "m.csv").write_text(table)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"images of .* cannot be read") as failure:
            clipaudit.embed(tmp_path / "m.csv", cache=tmp_path / "c", encoder=DIGITS)
        assert reason in str(failure.value)
    embeddings = clipaudit.EmbeddingsCache.open(tmp_path / "c").read()
    assert embeddings.table.num_rows == table.count("\n") - 1
    assert all(embeddings.table.filter(~pa.array(embeddings.readable).to_numpy(False))["reason"].to_pylist())


def test_a_run_that_has_failed_offers_no_next_step(tmp_path: Path, run_cli: Cli) -> None:
    (tmp_path / "m.csv").write_text(FAILED["paths of another machine"][0])
    result = run_cli("embed", "m.csv", "--model", DIGITS.model, "--device", "cpu", "--cache", "c")
    assert result.returncode == 1
    assert "on another machine?" in result.stderr
    assert "Next:" not in result.stdout
    assert "Traceback" not in result.stderr


def after_scanning(change: Callable[[], object]) -> Callable[[EmbedProgress], None]:
    """Calls `change` after every plan, as if somebody wrote into the source."""
    return lambda progress: change() if progress.stage == "scanning" else None


def test_a_source_that_changes_meanwhile_is_planned_again(tmp_path: Path) -> None:
    root = touch(tmp_path / "p", "cat/1.png", "dog/2.png")
    times = iter([10**18])
    once = after_scanning(lambda: [os.utime(root / "cat/1.png", ns=(t, t)) for t in times])
    summary = clipaudit.embed(root, cache=tmp_path / "c", encoder=DIGITS, progress=once)
    assert (summary.complete, summary.n_samples) == (True, 2)
    rows = clipaudit.EmbeddingsCache.open(tmp_path / "c").read()
    assert rows.readable.all()
    endless = iter(range(10**18, 2 * 10**18, 10**15))
    always = after_scanning(lambda: os.utime(root / "dog/2.png", ns=(0, next(endless))))
    with pytest.raises(CacheError, match="changes while it is embedded"):
        clipaudit.embed(root, cache=tmp_path / "d", encoder=DIGITS, progress=always)
    assert next(endless) > 10**18, "the source was never changed"


def test_a_manifest_with_the_folder_of_the_cache_is_no_endless_change(tmp_path: Path, run_cli: Cli) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "m.csv").write_text("path,label\ncat/1.png,cat\ndog/1.png,dog\n.,dog\n.clipaudit,cat\n")
    for _ in range(2):
        result = run_cli("embed", "m.csv", "--model", DIGITS.model, "--device", "cpu")
        assert result.returncode == 0, result.stderr
        assert "unreadable     2" in result.stdout
        assert "Other shards" not in result.stdout


def test_samples_of_a_source_hold_no_surprises(tmp_path: Path) -> None:
    """Every source says what it decided, and its ids lead back to the images."""
    touch(tmp_path / "f", "cat/1.png", "dog/2.png")
    (tmp_path / "f" / "m.csv").write_text("path,label\ncat/1.png,cat\ndog/2.png,dog\n")
    write_parquet(tmp_path / "t.parquet", {"image": images(2), "label": ["cat", "dog"]})
    for path in (tmp_path / "f", tmp_path / "f" / "m.csv", tmp_path / "t.parquet"):
        source = open_source(path)
        found: list[Sample] = list(source.samples())
        assert [sample.label for sample in found] == ["cat", "dog"]
        assert source.decided()["source"]
        assert source.read(found[0].id) == digit()
