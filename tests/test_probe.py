"""`train --model probe` and `predict` with it, on real digits and the model that comes with clipaudit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import DIGITS, MODEL
from training_digits import content, write_digits

import clipaudit
from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.demo.digits import load_split
from clipaudit.errors import CacheError, ClipAuditError, SourceError, UsageError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.training.checkpoints import load_weights
from clipaudit.training.models import build
from clipaudit.training.run_folder import RunFolder

SHORT = clipaudit.recipe("probe", epochs=4, batch_size=32)


@pytest.fixture(scope="module")
def test_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean digits of other writers."""
    root, split = tmp_path_factory.mktemp("digits") / "test", load_split()
    write_digits(root, split.train_images[:200], split.train_labels[:200])
    return root


def train(index: CleanIndex, cache: Path, out: Path, config=SHORT, **options) -> clipaudit.TrainSummary:
    return clipaudit.train(index, out=out, config=config, embeddings=cache, device="cpu", **options)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "ce"},
        {"method": "ce-all"},
        {"method": "mixfix"},
        {"method": "mixfix", "co_training": True},
        {"method": "dividemix", "warm_up": 1, "ramp_up": 1},
        {"method": "mixfix", "probe_hidden": 16},
    ],
)
def test_each_method_trains_and_resumes_as_if_it_had_not_been_interrupted(
    noisy_index: CleanIndex, noisy_cache: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    config = clipaudit.recipe(model="probe", epochs=6, batch_size=32, **changes)

    def interrupt(progress: clipaudit.TrainProgress) -> None:
        if progress.epoch == 2 and progress.done and progress.row is None:
            raise KeyboardInterrupt

    whole = train(noisy_index, noisy_cache, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        train(noisy_index, noisy_cache, tmp_path / "parts", config, progress=interrupt)
    parts = train(noisy_index, noisy_cache, tmp_path / "parts", config)
    assert (whole.n_done, parts.n_done) == (6, 4)
    assert content(parts.folder) == content(whole.folder)
    assert whole.history[-1]["val_accuracy"] > 0.8


def test_predict_agrees_with_the_head_and_with_the_test_set(
    noisy_index: CleanIndex, noisy_cache: Path, test_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = train(noisy_index, noisy_cache, tmp_path / "run", test=test_digits)
    table = clipaudit.predict(tmp_path / "run", test_digits, weights="last", device="cpu")
    predicted = np.array(table["predicted_label"].to_pylist())
    assert (predicted == np.array(table["label"].to_pylist())).mean() == summary.history[-1]["test_accuracy"]
    cache = clipaudit.embed(test_digits, cache=tmp_path / "other", encoder=DIGITS).cache
    vectors = EmbeddingsCache.open(cache).read().vectors
    folder = RunFolder.open(tmp_path / "run")
    head = build(folder.architecture)
    load_weights(folder.last, folder, [head])
    with torch.no_grad():
        p = head.eval()(torch.from_numpy(vectors).float()).softmax(dim=1).numpy()
    names = np.array(noisy_index.class_names)
    assert (predicted == names[p.argmax(axis=1)]).all()
    np.testing.assert_allclose(table["probability"].to_numpy(), p.max(axis=1), atol=1e-3)


def test_on_the_command_line_without_kornia_and_killed(
    noisy_index: CleanIndex, noisy_cache: Path, test_digits: Path, tmp_path: Path
) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    (tmp_path / "kornia.py").write_text("raise ModuleNotFoundError('kornia')")
    home = tmp_path / ".clipaudit"
    home.mkdir()
    (home / "digits").symlink_to(noisy_cache, target_is_directory=True)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "clipaudit", *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    words = ("train", "--index", "clean.parquet", "--model", "probe", "--epochs", 3, "--device", "cpu")
    result = run(*words)
    assert result.returncode == 0, result.stderr
    assert "3 epochs" in result.stdout
    result = run("predict", "run", test_digits, "--device", "cpu", "--out", "seen.parquet")
    assert result.returncode == 0, result.stderr
    assert pq.read_table(tmp_path / "seen.parquet").num_rows == 200
    for idle, fault in (
        (("--policy", "svhn"), "policy belongs to models of images, not to probe"),
        (("--no-pretrained",), "pretrained belongs to models of images"),
        (("--pixels", "disk"), "pixels has no effect with the model probe"),
        (("--images", tmp_path), "images has no effect with the model probe"),
    ):
        result = run(*words, *idle)
        assert result.returncode == 2
        assert fault in " ".join(result.stderr.split())


def test_a_cache_that_does_not_fit_is_refused_before_anything_is_made(
    noisy_index: CleanIndex, noisy_cache: Path, test_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CacheError, match=r"there is no embeddings cache of .* with --embeddings"):
        clipaudit.train(noisy_index, out=out, config=SHORT)
    other = clipaudit.embed(test_digits, cache=tmp_path / "other", encoder=DIGITS).cache
    with pytest.raises(CacheError, match=r"holds 200 samples, and the index .*different states of the source"):
        train(noisy_index, other, out)
    exact = clipaudit.embed(test_digits, cache=tmp_path / "exact", encoder=replace(DIGITS, exact=True)).cache
    with pytest.raises(CacheError, match=r"holds embeddings of another model than the index's: .*preprocessing"):
        train(noisy_index, exact, out)
    for name in ("one", "two"):
        (tmp_path / ".clipaudit").mkdir(exist_ok=True)
        (tmp_path / ".clipaudit" / name).symlink_to(noisy_cache, target_is_directory=True)
    with pytest.raises(UsageError, match="several embeddings caches"):
        clipaudit.train(noisy_index, out=out, config=SHORT)
    with pytest.raises(UsageError, match="embeddings has no effect with the model preact-resnet18"):
        train(noisy_index, noisy_cache, out, clipaudit.recipe())
    with pytest.raises(UsageError, match="probe_hidden belongs to the model probe, not to preact-resnet18"):
        clipaudit.recipe("cifar", probe_hidden=3)
    assert not out.exists()


def test_a_sample_that_the_cache_does_not_hold_is_refused(
    noisy_index: CleanIndex, noisy_cache: Path, tmp_path: Path
) -> None:
    ids = noisy_index.table["id"].to_pylist()
    place = noisy_index.table.column_names.index("id")
    table = noisy_index.table.set_column(place, "id", [[f"gone-{ids[0]}", *ids[1:]]])
    with pytest.raises(SourceError, match=r"1 of .* samples are not in the cache of .* The first is gone-"):
        train(CleanIndex(table, noisy_index.metadata), noisy_cache, tmp_path / "run")


def test_an_index_in_another_order_finds_its_own_embeddings(
    noisy_index: CleanIndex, noisy_cache: Path, tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(len(noisy_index))
    shuffled = CleanIndex(noisy_index.table.take(order), noisy_index.metadata)
    tables = []
    for name, index in (("straight", noisy_index), ("shuffled", shuffled)):
        train(index, noisy_cache, tmp_path / name, clipaudit.recipe("probe", epochs=10, method="ce"))
        tables.append(pq.read_table(tmp_path / name / "labels.parquet").sort_by("id"))
    assert tables[0]["id"].equals(tables[1]["id"])
    assert np.corrcoef(*(table["p_m"].to_numpy() for table in tables))[0, 1] > 0.8


def test_other_weights_of_the_encoder_are_refused(
    noisy_index: CleanIndex, noisy_cache: Path, test_digits: Path, tmp_path: Path
) -> None:
    from test_train_faults import write_facts

    train(noisy_index, noisy_cache, tmp_path / "run")
    encoder = RunFolder.open(tmp_path / "run").architecture.to_dict()["encoder"]
    write_facts(tmp_path / "run", "architecture", {"encoder": {**encoder, "weights": "0" * 32}})
    (tmp_path / "run" / "last.safetensors").unlink()
    with pytest.raises(ClipAuditError):
        clipaudit.predict(tmp_path / "run", test_digits, device="cpu")
    from clipaudit.cache.info import Fingerprint
    from clipaudit.calls.probe import load_same_encoder

    with pytest.raises(ClipAuditError, match="is another model now than the one whose embeddings the probe reads"):
        load_same_encoder(Fingerprint(**{**encoder, "weights": "0" * 32}), "cpu")
    assert encoder["model"] == str(MODEL)
