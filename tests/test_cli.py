"""The real command line, in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS

import clipaudit
from clipaudit.demo import MODEL
from clipaudit.text import printable

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
REPOSITORY = Path(__file__).parents[1]


def test_the_demo_finds_what_it_hid(tmp_path: Path, run_cli: Cli) -> None:
    result = run_cli("demo", "d")
    assert result.returncode == 0, result.stderr
    for words in ("$ clipaudit audit", "In doubt: ", "How sure: ", "$ clipaudit evaluate", "AUROC", "Go on"):
        assert words in result.stdout
    index = clipaudit.read_index(tmp_path / "d" / "clean.parquet")
    overall = clipaudit.evaluate(index, tmp_path / "d" / "truth.csv").overall
    assert overall.noise_rate == pytest.approx(0.2, abs=0.001)
    assert overall.noisy_precision is not None
    assert overall.noisy_recall is not None
    assert overall.noisy_precision > 0.7
    assert overall.noisy_recall > 0.9
    assert f"{overall.noisy_recall:.1%}" in result.stdout
    predicted, truth = (
        index.table["zero_shot_label"].to_pylist(),
        (tmp_path / "d" / "truth.csv").read_text().splitlines(),
    )
    by_id = {line.split(",")[0].removeprefix("images/"): line.split(",")[1] for line in truth[1:]}
    right = [by_id[name] == label for name, label in zip(index.table["id"].to_pylist(), predicted, strict=True)]
    assert np.mean(right) > 0.95
    assert run_cli("demo", "d").returncode == 1


def test_three_commands_from_images_to_numbers(small_images: Path, tmp_path: Path, run_cli: Cli) -> None:
    assert run_cli("embed", small_images, "--model", MODEL).returncode == 0
    result = run_cli("select", "--out", "clean.parquet", "--export", "clean.txt", "--preset", "cifar")
    assert result.returncode == 0, result.stderr
    assert "Cache: .clipaudit/images-model-" in result.stdout
    assert "24 labels audited" in result.stdout
    assert result.stdout.count(str(small_images)) == 1
    assert clipaudit.read_index(tmp_path / "clean.parquet").config.theta_consistency == 0.8
    again = run_cli("select", "--from", "clean.parquet", "--theta-loss", "0.7", "--out", "strict.parquet")
    assert again.returncode == 0, again.stderr
    held = clipaudit.read_index(tmp_path / "strict.parquet").config
    assert (held.theta_loss, held.theta_consistency) == (0.7, 0.8)
    truth = "clean.parquet:label"
    result = run_cli("evaluate", "strict.parquet", "--truth", truth, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["overall"]["noise_rate"] == 0


def test_output_in_a_pipe_is_plain(small_images: Path, run_cli: Cli) -> None:
    result = run_cli("embed", small_images, "--model", MODEL)
    assert "\x1b" not in result.stdout + result.stderr
    assert result.stderr == ""
    assert "24 images" in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("embed", "nowhere"), 1, "does not exist"),
        (("embed", "images", "--shard", "two"), 2, "not of the form i/n"),
        (("embed", "images", "--model", MODEL, "--device", "abacus"), 2, "cannot be used"),
        (("embed", "images", "--model", MODEL, "--batch-size", "0"), 2, "batch_size must"),
        (("select",), 1, "no embeddings cache"),
        (("select", "--preset", "mnist"), 2, "unknown preset"),
        (("select", "--temperature", "warm"), 2, "'model' or a number"),
        (("select", "--from", "none.parquet"), 1, "does not exist"),
        (("select", "--from", "none.parquet", "--labels", "x"), 2, "--labels would have no effect"),
        (("evaluate", "none.parquet", "--truth", "x"), 1, "does not exist"),
        (("demo", "--rate", "2"), 2, "above 0 and below 1"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_mistakes_are_explained(
    small_images: Path, run_cli: Cli, words: tuple[str, ...], code: int, message: str
) -> None:
    result = run_cli(*words)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_hostile_names_do_not_reach_the_terminal(small_images: Path, tmp_path: Path, run_cli: Cli) -> None:
    (small_images / "zero").rename(small_images / "[red]\x1b[2Jzero")
    next(small_images.rglob("*.png")).write_text("no image")
    result = run_cli("embed", small_images, "--model", MODEL, "--cache", "c")
    assert result.returncode == 0, result.stderr
    shown = run_cli("select", "c")
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in result.stdout + shown.stdout
    assert printable("a\x1b[2Jb\nc\u202ed\u2028\udcff") == "a\\x1b[2Jb\\nc\\u202ed\\u2028\\udcff"


def test_the_help_pages_are_up_to_date() -> None:
    subprocess.run([sys.executable, REPOSITORY / "docs" / "commands.py", "--check"], check=True)


def test_help_needs_no_heavy_import() -> None:
    code = "import clipaudit.cli.app, sys; print({'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_cifar_with_human_noise(data_folder: Path, tmp_path: Path) -> None:
    """50 images a class of the real thing: how good the shipped digit model is at it does not matter here."""
    table = pq.read_table(data_folder / "cifar10" / "train.parquet").slice(0, 500)
    pq.write_table(table, tmp_path / "cifar.parquet")
    noise = pq.read_table(data_folder / "cifar10" / "noise.parquet").slice(0, 500)
    pq.write_table(noise, tmp_path / "noise.parquet")
    cache = clipaudit.embed(tmp_path / "cifar.parquet", cache=tmp_path / "c", encoder=DIGITS).cache
    index = clipaudit.select(cache, labels=f"{tmp_path}/noise.parquet:label_human_random1", device="cpu")
    assert index.metadata.prompts.source == "CIFAR-10"
    evaluation = clipaudit.evaluate(index, f"{tmp_path}/noise.parquet")
    wrong = np.array(noise["label_true"].to_pylist()) != np.array(noise["label_human_random1"].to_pylist())
    assert evaluation.overall.noise_rate == pytest.approx(wrong.mean())
    assert evaluation.matched_by == "row order"
