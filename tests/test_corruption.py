"""Noise on purpose: exact, reproducible, and readable by the other commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS
from hypothesis import given
from hypothesis import strategies as st

import clipaudit
from clipaudit.calls.corrupt import (
    CIFAR10_MAP,
    CIFAR100_MAP,
    asymmetric,
    corrupt,
    instance_dependent,
    read_map,
    symmetric,
)
from clipaudit.errors import UsageError
from clipaudit.prompts.sets import load_prompts, shipped_prompt_sets
from clipaudit.samples import open_source

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@given(st.integers(1, 300), st.integers(2, 12), st.floats(0, 1), st.integers(0, 9), st.booleans())
def test_symmetric_noise_has_the_exact_rate(n: int, k: int, rate: float, seed: int, others: bool) -> None:
    true = np.arange(n) % k
    noisy, selected = symmetric(true, k, rate, np.random.default_rng(seed), others_only=others)
    assert selected.sum() == round(rate * n)
    assert (noisy[~selected] == true[~selected]).all()
    assert set(noisy) <= set(range(k))
    if others:
        assert (noisy[selected] != true[selected]).all()
    again, _ = symmetric(true, k, rate, np.random.default_rng(seed), others_only=others)
    assert (noisy == again).all()


def test_symmetric_noise_over_all_classes_keeps_one_in_k() -> None:
    true = np.arange(50_000) % 10
    noisy, _ = symmetric(true, 10, 0.5, np.random.default_rng(0), others_only=False)
    assert np.mean(noisy != true) == pytest.approx(0.45, abs=0.01)
    counts = np.bincount(noisy[noisy != true], minlength=10)
    assert counts.min() > 0.9 * counts.max()


def test_asymmetric_noise_follows_its_map() -> None:
    true, mapping = np.repeat([0, 1, 2], [100, 50, 7]), np.array([1, 1, 0])
    noisy, selected = asymmetric(true, mapping, 0.4, np.random.default_rng(0))
    assert [int(selected[true == k].sum()) for k in range(3)] == [40, 0, 3]
    assert (noisy[selected] == mapping[true[selected]]).all()
    assert (noisy[~selected] == true[~selected]).all()


def test_instance_noise_confuses_the_nearest_first() -> None:
    angles = np.concatenate([np.linspace(0.0, 0.7, 50), np.linspace(0.9, 1.6, 50)])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    true = np.repeat([0, 1], 50)
    noisy, selected = instance_dependent(vectors, true, 2, 0.1)
    assert np.flatnonzero(selected).tolist() == list(range(45, 55))
    assert (noisy[selected] == 1 - true[selected]).all()


def test_instance_noise_leaves_unreadable_images_to_the_last() -> None:
    vectors = np.array([[1, 0], [1, 0], [0.9, 0.43], [0, 1], [0, 1], [0, 0]], np.float16)
    _, selected = instance_dependent(vectors, np.array([0, 0, 0, 1, 1, 1]), 2, 1 / 6)
    assert np.flatnonzero(selected).tolist() == [2]


def test_instance_noise_never_gives_a_class_that_has_no_samples() -> None:
    vectors = np.array([[1, 0], [1, 0], [-1, 0], [-1, 0]], np.float16)
    noisy, _ = instance_dependent(vectors, np.array([0, 0, 1, 1]), 3, 1.0)
    assert noisy.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_noisy_manifest_is_a_source(small_images: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / "deep" / f"noisy.{ending}"
    result = corrupt(small_images, out, kind="symmetric-others", rate=0.5, seed=3)
    assert (result.n_samples, result.n_wrong, result.rate) == (24, 12, 0.5)
    source, original = open_source(out), open_source(small_images)
    noisy, true = list(source.samples()), list(original.samples())
    assert [source.read(sample.id) for sample in noisy] == [original.read(sample.id) for sample in true]
    assert sum(a.label != b.label for a, b in zip(noisy, true, strict=True)) == 12
    assert sum(count for _, _, count in result.confusions) == 12


def test_corrupt_embed_select_evaluate(noisy_digits: tuple[Path, dict[str, str]], tmp_path: Path, run_cli: Cli) -> None:
    clean = tmp_path / "clean.csv"
    root = noisy_digits[0]
    clean.write_text("path,label\n" + "".join(f"{root / name},{label}\n" for name, label in noisy_digits[1].items()))
    cache = clipaudit.embed(clean, cache=tmp_path / "c", encoder=DIGITS).cache
    made = run_cli("corrupt", clean, "--kind", "instance", "--rate", "0.1", "--cache", cache, "--out", "noisy.csv")
    assert made.returncode == 0, made.stderr
    assert "60 of 600 labels are wrong" in made.stdout
    index = clipaudit.select(cache, labels=f"{tmp_path / 'noisy.csv'}:label", device="cpu")
    overall = clipaudit.evaluate(index, f"{tmp_path / 'noisy.csv'}:label_true").overall
    assert overall.noise_rate == 0.1
    assert (overall.auroc or 0) > 0.7


def test_rows_of_a_parquet_file_are_matched_by_id(small_images: Path, tmp_path: Path) -> None:
    samples = list(open_source(small_images).samples())
    images = [(small_images / sample.id).read_bytes() for sample in samples]
    pq.write_table(pa.table({"image": images, "label": [s.label for s in samples]}), tmp_path / "t.parquet")
    corrupt(tmp_path / "t.parquet", tmp_path / "noisy.csv", kind="symmetric", rate=0.2)
    cache = clipaudit.embed(tmp_path / "t.parquet", cache=tmp_path / "c", encoder=DIGITS).cache
    index = clipaudit.select(cache, labels=f"{tmp_path / 'noisy.csv'}:label", device="cpu")
    evaluation = clipaudit.evaluate(index, f"{tmp_path / 'noisy.csv'}:label_true")
    assert evaluation.matched_by == "id"


def test_mistakes_are_explained(small_images: Path, tmp_path: Path, noisy_cache: Path, run_cli: Cli) -> None:
    out = tmp_path / "n.csv"
    for arguments, message in (
        ({"kind": "odd", "rate": 0.1}, "unknown kind"),
        ({"kind": "symmetric", "rate": 1.1}, "rate must be a number from 0 to 1, not 1.1"),
        ({"kind": "asymmetric", "rate": 0.1}, "no built-in map"),
        ({"kind": "asymmetric", "rate": 0.1, "mapping": {"zero": "lynx"}}, "'lynx', which is no class"),
        ({"kind": "instance", "rate": 0.1, "cache": noisy_cache}, "other samples than the source"),
    ):
        with pytest.raises(UsageError, match=message):
            corrupt(small_images, out, **arguments)
    with pytest.raises(UsageError, match="a manifest ends in"):
        corrupt(small_images, tmp_path / "n.xlsx", kind="symmetric", rate=0.1)
    assert not out.exists()
    (tmp_path / "map.json").write_text(json.dumps(["zero"]))
    result = run_cli("corrupt", small_images, "--kind", "asymmetric", "--map", "map.json")
    assert (result.returncode, "no map of classes" in result.stderr) == (2, True)


@pytest.mark.parametrize(("name", "content"), [("m.json", '{"zero": "six"}'), ("m.toml", 'zero = "six"')])
def test_maps_by_file(small_images: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    result = corrupt(small_images, tmp_path / "n.csv", kind="asymmetric", rate=1, mapping=read_map(tmp_path / name))
    zeros = sum(sample.label == "zero" for sample in open_source(small_images).samples())
    assert result.confusions == (("zero", "six", zeros),)
    (tmp_path / name).write_text("=")
    with pytest.raises(UsageError, match="no map of classes"):
        read_map(tmp_path / name)


def test_the_built_in_map_fits_cifar100(tmp_path: Path) -> None:
    names = [entry.name for entry in load_prompts(shipped_prompt_sets()["cifar100"]).classes]
    table = tmp_path / "c.csv"
    table.write_text("path,label\n" + "".join(f"{k}{i}.png,{name}\n" for k, name in enumerate(names) for i in "ab"))
    result = corrupt(table, tmp_path / "n.csv", kind="asymmetric", rate=0.5)
    assert {(true, given) for true, given, _ in result.confusions} == set(CIFAR100_MAP.items())
    assert (CIFAR100_MAP["beaver"], CIFAR100_MAP["whale"]) == ("dolphin", "beaver")


def test_the_built_in_map_fits_cifar10(data_folder: Path, tmp_path: Path) -> None:
    result = corrupt(data_folder / "cifar10" / "train.parquet", tmp_path / "n.parquet", kind="asymmetric", rate=0.4)
    assert {(true, given) for true, given, _ in result.confusions} == set(CIFAR10_MAP.items())
    assert {count for _, _, count in result.confusions} == {2000}


def test_maps_are_read_like_every_file_of_a_user(small_images: Path, tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "folder.json").mkdir()
    for name, message in (("deep.json", "no map of classes"), ("folder.json", "a folder"), ("none.json", "not exist")):
        with pytest.raises(UsageError, match=message):
            read_map(tmp_path / name)
    out = tmp_path / "n.csv"
    corrupt(small_images, out, kind="asymmetric", rate=1.0, mapping={"Zero": "ONE "})
    with pytest.raises(UsageError, match="the map names 'ten'"):
        corrupt(small_images, out, kind="asymmetric", rate=1.0, mapping={"zero": "ten"})
    with pytest.raises(UsageError, match="seed"):
        corrupt(small_images, out, kind="symmetric", rate=0.5, seed=-1)
