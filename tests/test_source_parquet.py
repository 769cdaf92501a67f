"""Parquet files as a source: splits, shards, columns of images and labels."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS
from source_helpers import digit, ids, images, labels, touch, write_parquet

import clipaudit
from clipaudit.errors import ImageError, SourceError
from clipaudit.samples import SourceOptions, open_source

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


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
