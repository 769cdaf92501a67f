"""`audit`: embed, select and report in one call, which goes on after a kill and never replaces a review."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import DIGITS, write_class_folders
from test_show import in_a_terminal, without_colours

import clipaudit
from clipaudit.demo import MODEL
from clipaudit.errors import UsageError

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_it_is_embed_select_and_report(noisy_digits: tuple[Path, object], tmp_path: Path) -> None:
    stages: list[str] = []
    found = clipaudit.audit(
        noisy_digits[0],
        out=tmp_path / "one.parquet",
        cache=tmp_path / "c",
        encoder=DIGITS,
        config=clipaudit.preset("cifar"),
        progress=lambda at: stages.append(at.stage),
    )
    index = clipaudit.select(tmp_path / "c", config=clipaudit.preset("cifar"), device="cpu")
    index.write(tmp_path / "three.parquet")
    clipaudit.write_report(index, tmp_path / "three.html")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "three.parquet").read_bytes()
    assert found.report.path == tmp_path / "report.html"
    assert found.report.path.read_bytes() == (tmp_path / "three.html").read_bytes()
    assert found.embedding.n_embedded == 600
    assert {stage.split(":")[0] for stage in stages} == {"embed", "select", "report"}
    table = index.table.to_pandas()
    estimates = [table[f"{term.name}_label"].astype(str) for term in index.config.estimates]
    opposed = np.logical_and.reduce([seen != table["label"].astype(str) for seen in estimates])
    assert found.n_opposed == int((opposed & index.in_doubt).sum())


def test_it_ends_with_three_sentences_and_the_report(small_images: Path, tmp_path: Path, run_cli: Cli) -> None:
    done = run_cli("audit", small_images, "--model", MODEL, "--out", "a/clean.parquet", "--report", "r.html")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    index = clipaudit.read_index(tmp_path / "a" / "clean.parquet")
    in_doubt, sure, then, page = done.stdout.splitlines()[-4:]
    assert in_doubt == f"In doubt: {index.in_doubt.sum()} of 24 labels ({index.noise_rate:.1%})."
    assert sure.startswith("How sure: ")
    assert then.endswith("clipaudit review a/clean.parquet --budget 100")
    assert page == "Report: r.html"
    assert (tmp_path / "r.html").is_file()


def test_killed_it_goes_on(tmp_path: Path, run_cli: Cli) -> None:
    write_class_folders(tmp_path / "images", 3000)
    words = ("audit", "images", "--model", MODEL, "--device", "cpu", "--cache", "c", "--workers", "1")
    command = [sys.executable, "-m", "clipaudit", *map(str, words)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((tmp_path / "c" / "parts").glob("*.parquet")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "clean.parquet").exists()
    kept = len(list((tmp_path / "c" / "parts").glob("*.parquet")))
    assert kept
    done = run_cli(*words)
    assert done.returncode == 0, done.stderr
    assert "from before" in done.stdout
    whole = clipaudit.audit(tmp_path / "images", out=tmp_path / "w.parquet", cache=tmp_path / "w", encoder=DIGITS)
    assert clipaudit.read_index(tmp_path / "clean.parquet").table.equals(whole.index.table)
    again = clipaudit.audit(tmp_path / "images", out=tmp_path / "w.parquet", cache=tmp_path / "w", encoder=DIGITS)
    assert again.embedding.n_embedded == 0


def test_a_review_is_not_replaced(small_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.parquet"

    def audit() -> None:
        clipaudit.audit(small_images, out=out, cache=tmp_path / "c", encoder=DIGITS)

    audit()
    audit()
    clipaudit.review(clipaudit.read_index(out), budget=5).index.write(out)
    before = out.read_bytes()
    with pytest.raises(UsageError, match=r"clean\.parquet holds a review.*--out FILE"):
        audit()
    assert out.read_bytes() == before


def test_mistakes_are_told_before_the_work(small_images: Path, tmp_path: Path) -> None:
    for wrong, message in (
        ({"prompts": "nowhere.toml"}, "no prompt set"),
        ({"out": small_images}, "folder"),
        ({"report": tmp_path / "c.parquet", "out": tmp_path / "c.parquet"}, "the same file"),
    ):
        with pytest.raises(UsageError, match=message):
            clipaudit.audit(small_images, cache=tmp_path / "c", encoder=DIGITS, **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "c").exists()


def test_a_data_set_in_memory(small_images: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    held = datasets.load_dataset("imagefolder", data_dir=str(small_images), split="train")
    found = clipaudit.audit(held, out=tmp_path / "i.parquet", cache=tmp_path / "c", encoder=DIGITS)
    assert len(found.index) == 24
    assert found.report.n_without_image == 0


def test_a_terminal_gets_one_display(small_images: Path, tmp_path: Path) -> None:
    places = ("--cache", tmp_path / "c", "--out", tmp_path / "i.parquet")
    said = without_colours(in_a_terminal("audit", small_images, "--model", MODEL, *places))
    assert "embed: " in said
    assert f"Report: {tmp_path / 'report.html'}" in said
