"""P(y|x) of every class, for other tools: as the audit had it, in files of any size, with a row a sample."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DIGITS, write_class_folders

import clipaudit
from clipaudit import AuditConfig, CleanIndex
from clipaudit.errors import CacheError, UsageError


@pytest.fixture(scope="module")
def folded(noisy_cache: Path) -> CleanIndex:
    return clipaudit.select(noisy_cache, config=AuditConfig(folds=5), device="cpu")


@pytest.mark.parametrize(
    "changes", [{}, {"folds": 5, "rounds": 2}, {"induced": "joint,neighbours"}, {"transition": True, "folds": 3}]
)
def test_it_is_what_the_audit_estimated(noisy_cache: Path, changes: dict[str, object]) -> None:
    index = clipaudit.select(noisy_cache, config=AuditConfig(**changes), device="cpu")  # type: ignore[arg-type]
    rows, labels = np.arange(len(index)), index.labels()
    names = [term.name for term in index.config.estimates]
    each = {name: clipaudit.pred_probs(index, estimate=name, device="cpu") for name in names}
    for name, probabilities in each.items():
        assert probabilities.shape == (600, 10)
        assert probabilities.dtype == np.float32
        assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
        assert np.allclose(probabilities[rows, labels], index.table[f"{name}_p_label"].to_numpy(), atol=1e-5)
        assert np.allclose(probabilities.max(1), index.table[f"{name}_p_max"].to_numpy(), atol=1e-5)
    assert np.allclose(clipaudit.pred_probs(index, device="cpu"), np.mean(list(each.values()), axis=0), atol=1e-6)
    induced = clipaudit.pred_probs(index, estimate="induced", device="cpu")
    assert np.allclose(induced, np.mean([each[name] for name in names[1:]], axis=0), atol=1e-6)


def test_a_file_holds_the_same_written_in_chunks(
    noisy_index: CleanIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = clipaudit.pred_probs(noisy_index, device="cpu")
    monkeypatch.setattr("clipaudit.estimates.base.CHUNK_BYTES", 5_000)
    seen: list[tuple[int, int]] = []
    read = clipaudit.pred_probs(
        noisy_index, tmp_path / "p.npy", device="cpu", progress=lambda done, total: seen.append((done, total))
    )
    assert isinstance(read, np.memmap)
    assert len(seen) > 20
    assert seen[-1] == (600, 600)
    assert np.allclose(read, whole, atol=1e-5)
    assert np.array_equal(np.load(tmp_path / "p.npy"), read)


def test_unreadable_samples_have_rows_of_nan(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "images", 80, rate=0.1)
    first, *_, last = sorted((tmp_path / "images").rglob("*.png"))
    for file in (first, last):
        file.write_bytes(b"no image")
    cache = clipaudit.embed(tmp_path / "images", cache=tmp_path / "cache", encoder=DIGITS).cache
    index = clipaudit.select(cache, device="cpu")
    probabilities = clipaudit.pred_probs(index, tmp_path / "p.npy", estimate="logistic", device="cpu")
    assert np.isnan(probabilities).all(axis=1).tolist() == (~index.readable).tolist()
    assert (~index.readable).sum() == 2
    mine = probabilities[np.arange(80), index.labels()][index.readable]
    assert np.allclose(mine, index.estimates()["logistic"]["p_label"], atol=1e-5)


def test_cleanlab_takes_it_and_finds_the_wrong_labels(
    folded: CleanIndex, noisy_digits: tuple[Path, dict[str, str]]
) -> None:
    cleanlab = pytest.importorskip("cleanlab.filter")
    probabilities = clipaudit.pred_probs(folded, estimate="induced", device="cpu")
    issues = cleanlab.find_label_issues(folded.labels(), probabilities)
    wrong = np.array(folded.table["label"].to_pylist()) != np.array(list(noisy_digits[1].values()))
    assert issues.shape == (600,)
    assert issues[wrong].mean() > 0.7
    assert issues[~wrong].mean() < 0.1


def test_what_does_not_fit_is_refused(
    noisy_index: CleanIndex, noisy_cache: Path, tmp_path: Path, small_images: Path
) -> None:
    with pytest.raises(UsageError, match=r"no estimate 'magic'\. Choose one of: mean, induced, zero_shot, logistic"):
        clipaudit.pred_probs(noisy_index, estimate="magic")
    with pytest.raises(UsageError, match=r"p\.npz: probabilities are a NumPy array, whose file ends in \.npy"):
        clipaudit.pred_probs(noisy_index, tmp_path / "p.npz")
    with pytest.raises(CacheError, match="does not hold the samples of the index"):
        clipaudit.pred_probs(noisy_index.filter(noisy_index.is_clean))
    other = clipaudit.embed(small_images, cache=tmp_path / "other", encoder=DIGITS).cache
    with pytest.raises(CacheError, match="does not hold the samples of the index"):
        clipaudit.pred_probs(noisy_index, cache=other)
    elsewhere = replace(noisy_index, metadata=replace(noisy_index.metadata, decided={}))
    with pytest.raises(UsageError, match="does not say which embeddings cache"):
        clipaudit.pred_probs(elsewhere)
    shutil.copytree(noisy_cache, tmp_path / "moved")
    assert clipaudit.pred_probs(elsewhere, cache=str(tmp_path / "moved"), device="cpu").shape == (600, 10)
    assert not list(tmp_path.glob("*.npy"))


def test_the_command_writes_the_mean(run_cli: Callable[..., Any], noisy_cache: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "clean.parquet", tmp_path / "p.npy"
    done = run_cli("select", noisy_cache, "--out", out, "--pred-probs", file, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    index = clipaudit.read_index(out)
    assert np.array_equal(np.load(file), clipaudit.pred_probs(index, device="cpu"))
    refused = run_cli("select", noisy_cache, "--out", out, "--pred-probs", tmp_path / "p.csv")
    assert refused.returncode == 2
    assert "whose file ends in .npy" in refused.stderr
