"""`train` and `predict`, on real digits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import DIGITS
from safetensors import safe_open
from safetensors.numpy import load_file
from training_digits import TINY, Digits, content, make_index, train, write_digits

import clipaudit
from clipaudit.demo.digits import CLASS_NAMES, as_picture, load_split
from clipaudit.errors import ClipAuditError, RunError, SourceError, UsageError
from clipaudit.training.config import TrainConfig
from clipaudit.training.models import build, describe


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits(tmp_path_factory.mktemp("digits"), n=160, rate=0.3)


@pytest.fixture(scope="module")
def finished(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> clipaudit.TrainSummary:
    """An uninterrupted run of four epochs."""
    return train(digits, tmp_path_factory.mktemp("runs") / "run")


def test_mixfix_beats_training_on_everything(tmp_path: Path) -> None:
    """40 % symmetric noise, audited by the shipped model; judged on clean digits of other writers."""
    split, generator = load_split(), np.random.default_rng(0)
    n, labels = len(split.audit_labels), split.audit_labels.copy()
    wrong = generator.choice(n, round(0.4 * n), replace=False)
    labels[wrong] = (labels[wrong] + generator.integers(1, 10, len(wrong))) % 10
    write_digits(tmp_path / "train", split.audit_images, labels)
    write_digits(tmp_path / "test", split.train_images, split.train_labels)
    cache = clipaudit.embed(tmp_path / "train", cache=tmp_path / "cache", encoder=DIGITS).cache
    index = clipaudit.select(cache, device="cpu")
    config = replace(TINY, width=8, epochs=20, milestones=(13, 17), batch_size=32, policy="none")
    accuracy = {}
    for method in ("mixfix", "ce-all"):
        run = {"out": tmp_path / method, "config": replace(config, method=method), "test": tmp_path / "test"}
        accuracy[method] = clipaudit.train(index, device="cpu", **run).history[-1]["test_accuracy"]
    assert accuracy["mixfix"] > 0.9
    assert accuracy["mixfix"] > accuracy["ce-all"] + 0.03


def test_the_run_folder_holds_what_a_run_came_to(digits: Digits, finished: clipaudit.TrainSummary) -> None:
    files = content(finished.folder)
    assert set(files) == {
        *("run.json", "metrics.jsonl", "curve.svg", "labels.parquet", "README.md"),
        *("state.safetensors", "best.safetensors", "last.safetensors"),
    }
    rows = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    assert rows == finished.history
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["learning_rate"] > rows[-1]["learning_rate"]
    assert rows[0]["n_samples"] == digits.clean.sum()
    assert rows[1]["n_samples"] == digits.clean.sum() + rows[0]["absorbed"] + rows[0]["relabelled"]
    for row in rows:
        assert row["absorbed"] + row["relabelled"] + row["dropped"] == (~digits.clean).sum()
        assert all(row[f"{name}_right"] <= row[name] for name in ("absorbed", "relabelled", "dropped"))
    assert TrainConfig.from_dict(json.loads(files["run.json"])["config"]) == TINY
    assert files["curve.svg"].count(b"<polyline") == 5
    assert b"preact-resnet18, trained with mixfix" in files["README.md"]
    with safe_open(finished.folder / "best.safetensors", "pt") as best:
        assert json.loads(best.metadata()["clipaudit"])["epoch"] == 4


def test_labels_are_those_of_eq_7(digits: Digits, finished: clipaudit.TrainSummary) -> None:
    table = pq.read_table(finished.folder / "labels.parquet")
    assert table.column_names == ["id", "label", "final_label", "action", "p_m"]
    assert table["id"].to_pylist() == digits.ids
    counted = dict.fromkeys(("absorbed", "relabelled", "dropped"), 0)
    right = dict(counted)
    rows = zip(table.to_pylist(), digits.clean, digits.truth, strict=True)
    for row, clean, truth in rows:
        assert 0.1 <= row["p_m"] <= 1
        assert (row["action"] == "selected") == clean
        assert (row["final_label"] == row["label"]) == (row["action"] in ("selected", "absorbed"))
        assert (row["final_label"] is None) == (row["action"] == "dropped")
        assert (row["p_m"] > 0.8) == (row["action"] in ("absorbed", "relabelled")) or clean
        if not clean:
            counted[row["action"]] += 1
            is_right = (row["final_label"] or row["label"]) == CLASS_NAMES[truth]
            right[row["action"]] += is_right != (row["action"] == "dropped")
    last = finished.history[-1]
    assert counted == {name: last[name] for name in counted}
    assert right == {name: last[f"{name}_right"] for name in counted}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"co_training": True},
        {"method": "dividemix", "warm_up": 1, "ramp_up": 1},
        {"model": "airbench", "optimizer": "muon", "schedule": "one-cycle", "averaging": 0.9, "look_every": 2},
    ],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(digits: Digits, tmp_path: Path, changes) -> None:
    config = replace(TINY, epochs=3, milestones=(2,), **changes)
    whole = train(digits, tmp_path / "whole", config)

    def interrupt(progress: clipaudit.TrainProgress) -> None:
        # In the middle of an epoch: after a step of the third one.
        if progress.epoch == 2 and progress.done and progress.row is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(digits, tmp_path / "parts", config, progress=interrupt)
    assert len((tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()) == 2
    parts = train(digits, tmp_path / "parts", config)
    assert (whole.n_done, parts.n_done) == (3, 1)
    assert content(parts.folder) == content(whole.folder)
    assert train(digits, tmp_path / "parts", config).n_done == 0
    assert content(parts.folder) == content(whole.folder)


@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
def test_a_killed_process_goes_on(digits: Digits, tmp_path: Path) -> None:
    digits.index.write(tmp_path / "clean.parquet")
    words = ["--index", tmp_path / "clean.parquet", "--out", tmp_path / "run", "--test", digits.test, "--device", "cpu"]
    words += ["--recipe", "cifar", "--width", 4, "--image-size", 16, "--epochs", 8, "--batch-size", 16, "--no-flip"]
    command = [sys.executable, "-m", "clipaudit", "train", *map(str, words)]
    metrics = tmp_path / "run" / "metrics.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = metrics.read_text()
    assert 2 <= before.count("\n") < 8
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "of them before" in again.stdout
    # Plain lines in a pipe: a heading and one line an epoch.
    assert again.stderr.splitlines()[0].split()[:3] == ["epoch", "rate", "loss"]
    assert len(again.stderr.splitlines()) == 9
    assert "\x1b" not in again.stdout + again.stderr
    assert metrics.read_text().startswith(before)
    command[command.index(str(tmp_path / "run"))] = str(tmp_path / "whole")
    subprocess.run(command, capture_output=True, check=True)
    assert content(tmp_path / "whole") == content(tmp_path / "run")
    predict = [
        sys.executable,
        "-m",
        "clipaudit",
        "predict",
        tmp_path / "run",
        digits.test,
        "--out",
        tmp_path / "p.parquet",
    ]
    shown = subprocess.run([*map(str, predict)], capture_output=True, text=True, check=True).stdout
    assert "100 images" in shown
    accuracy = json.loads(metrics.read_text().splitlines()[-1])["test_accuracy"]
    assert f"{accuracy:.2%}" in shown


def test_predict_sees_what_the_run_saw(digits: Digits, finished: clipaudit.TrainSummary, tmp_path: Path) -> None:
    images = tmp_path / "images"
    ids = write_digits(images, load_split().train_images[:100], load_split().train_labels[:100])
    (images / "zero" / "99999.png").write_text("no image")
    table = clipaudit.predict(finished.folder, images, device="cpu")
    assert table.num_rows == 101
    rows = {row["id"]: row for row in table.to_pylist()}
    assert rows["zero/99999.png"]["predicted_label"] is None
    assert "not an image" in rows["zero/99999.png"]["reason"]
    same = [rows[name]["predicted_label"] == rows[name]["label"] for name in ids]
    assert np.mean(same) == pytest.approx(finished.history[-1]["test_accuracy"])
    last = clipaudit.predict(finished.folder, images, device="cpu", weights="last")
    assert last["probability"].to_pylist() == table["probability"].to_pylist()
    with pytest.raises(UsageError, match="unknown weights"):
        clipaudit.predict(finished.folder, images, weights="worst")
    with pytest.raises(RunError, match="no run folder"):
        clipaudit.predict(tmp_path, images)


def test_without_a_test_set_a_share_of_the_clean_subset_judges(digits: Digits, tmp_path: Path) -> None:
    config = replace(TINY, epochs=2, val_share=0.3)
    summary = train(digits, tmp_path / "run", config, test=None)
    assert any("no test set" in note for note in summary.notes)
    actions = pq.read_table(summary.folder / "labels.parquet")["action"].to_pylist()
    held_out = np.array([action == "held out" for action in actions])
    assert held_out.sum() / digits.clean.sum() == pytest.approx(0.3, abs=0.1)
    assert digits.clean[held_out].all()
    accuracies = [row["val_accuracy"] for row in summary.history]
    assert summary.best_epoch == 1 + int(np.argmax(accuracies))
    assert summary.history[0]["n_samples"] == digits.clean.sum() - held_out.sum()


def test_the_test_set_chooses_nothing(digits: Digits, tmp_path: Path) -> None:
    """The best weights are the same whatever the test labels say."""
    other = tmp_path / "other"
    write_digits(other, load_split().train_images[:60], (load_split().train_labels[:60] + 1) % 10)
    config = replace(TINY, val_share=0.3)
    runs = [train(digits, tmp_path / name, config, test=test) for name, test in (("a", digits.test), ("b", other))]
    assert runs[0].best_epoch == runs[1].best_epoch
    # The file names its run, and with it the test set.
    weights = [load_file(run.folder / "best.safetensors") for run in runs]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(value, weights[1][name]) for name, value in weights[0].items())


def test_streamed_images_train_as_those_on_the_device(digits: Digits, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("clipaudit.training.trainer.VALUES_A_BLOCK", 30_000)
    config = replace(TINY, epochs=2)
    runs = [train(digits, tmp_path / place, config, pixels=place, workers=2) for place in ("device", "disk")]
    assert content(runs[0].folder) == content(runs[1].folder)


def test_images_in_parquet_are_found_through_the_index(digits: Digits, tmp_path: Path) -> None:
    pictures = [(digits.root / name).read_bytes() for name in digits.ids]
    rows = [{"bytes": picture, "path": None} for picture in pictures]
    table = pa.table({"picture": rows, "kind": [CLASS_NAMES[label] for label in digits.labels]})
    pq.write_table(table, tmp_path / "images.parquet", row_group_size=50)
    ids = [f"images.parquet#{number}" for number in range(len(rows))]
    index = make_index(ids, digits.labels, digits.clean, tmp_path, column="picture")
    config = replace(TINY, epochs=1)
    options = {"config": config, "test": digits.test, "device": "cpu"}
    from_parquet = clipaudit.train(index, out=tmp_path / "a", **options)
    from_files = clipaudit.train(digits.index, out=tmp_path / "b", **options)
    assert from_parquet.history == from_files.history


def test_any_classifier_of_transformers(digits: Digits, tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    settings = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    ResNetConfig(**settings).save_pretrained(tmp_path / "scratch")
    ResNetForImageClassification(ResNetConfig(**settings, num_labels=3)).save_pretrained(tmp_path / "weights")
    for name in ("scratch", "weights"):
        config = replace(TINY, epochs=1, model=str(tmp_path / name), image_size=32)
        run = train(digits, tmp_path / f"run-{name}", config)
        predicted = clipaudit.predict(run.folder, digits.test, device="cpu")
        same = np.mean([row["predicted_label"] == row["label"] for row in predicted.to_pylist()])
        assert same == pytest.approx(run.history[-1]["test_accuracy"])
    architecture = describe(config, 10)
    kept, fresh = (build(architecture, pretrained=flag).state_dict() for flag in (True, False))
    stem = next(iter(kept))
    original = ResNetForImageClassification.from_pretrained(tmp_path / "weights").state_dict()
    assert torch.equal(kept[stem], original[stem.removeprefix("model.")])
    assert not torch.equal(kept[stem], fresh[stem])
    assert describe(replace(config, image_size=None), 10).image_size == 224
    with pytest.raises(clipaudit.ClipAuditError, match="cannot be loaded"):
        describe(replace(config, model=str(tmp_path)), 10)


def test_a_loss_that_is_not_finite_stops_the_run(digits: Digits, tmp_path: Path, monkeypatch) -> None:
    def rate(config: TrainConfig, epoch: float) -> float:
        return 0.02 if epoch < 1 else 1e30

    monkeypatch.setattr(TrainConfig, "learning_rate_in", rate)
    with pytest.raises(RunError, match=r"the loss became nan at step \d+ of epoch 2.*weights of epoch 1") as raised:
        train(digits, tmp_path / "run")
    assert "learning-rate" in str(raised.value)
    table = clipaudit.predict(tmp_path / "run", digits.test, weights="last", device="cpu")
    assert np.isfinite(table["probability"].to_numpy()).all()


def test_bad_input_is_explained(digits: Digits, finished: clipaudit.TrainSummary, tmp_path: Path) -> None:
    nothing = make_index(digits.ids, digits.labels, np.zeros(len(digits.ids), bool), digits.root)
    with pytest.raises(SourceError, match="the clean subset is empty"):
        clipaudit.train(nothing, out=tmp_path / "a", config=TINY)
    moved = make_index(digits.ids, digits.labels, digits.clean, tmp_path / "gone")
    with pytest.raises(ClipAuditError, match=r"not one of 160 images can be read.*--images"):
        clipaudit.train(moved, out=tmp_path / "b", config=TINY, device="cpu")
    found = clipaudit.train(moved, out=tmp_path / "c", config=replace(TINY, epochs=1), images=digits.root, device="cpu")
    assert found.n_done == 1
    with pytest.raises(RunError, match=r"another configuration: beta was 1\.0 and is 0\.5"):
        train(digits, finished.folder, replace(TINY, beta=0.5))
    other = make_index(digits.ids, digits.labels, ~digits.clean, digits.root)
    with pytest.raises(RunError, match="the index has changed"):
        clipaudit.train(other, out=finished.folder, config=TINY, test=digits.test, device="cpu")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="is no run of clipaudit"):
        train(digits, tmp_path / "full")
    (finished.folder.parent / "broken").mkdir()
    for name in ("run.json", "state.safetensors"):
        (finished.folder.parent / "broken" / name).write_bytes((finished.folder / name).read_bytes()[:-100])
    with pytest.raises(RunError, match="damaged"):
        train(digits, finished.folder.parent / "broken")
    (tmp_path / "cats" / "cat").mkdir(parents=True)
    as_picture(load_split().train_images[0]).save(tmp_path / "cats" / "cat" / "0.png")
    with pytest.raises(UsageError, match="has the class 'cat'"):
        train(digits, tmp_path / "d", test=tmp_path / "cats")


def test_a_class_with_one_clean_sample_is_trained_on_and_named(digits: Digits, tmp_path: Path) -> None:
    clean = digits.clean.copy()
    clean[np.flatnonzero(clean & (digits.labels == 3))[1:]] = False
    clean[digits.labels == 7] = False
    index = make_index(digits.ids, digits.labels, clean, digits.root)
    summary = clipaudit.train(index, out=tmp_path / "run", config=replace(TINY, epochs=1), device="cpu")
    assert any("one clean sample: three" in note for note in summary.notes)
    assert any("no clean sample" in note and "seven" in note for note in summary.notes)
    assert "one clean sample" in (summary.folder / "README.md").read_text()


def test_an_unreadable_image_takes_no_part_and_is_not_lost(tmp_path: Path) -> None:
    small = Digits(tmp_path, n=60, rate=0.3)
    (small.root / small.ids[5]).write_text("no image")
    summary = train(small, tmp_path / "run", replace(TINY, epochs=1))
    row = pq.read_table(summary.folder / "labels.parquet").to_pylist()[5]
    assert (row["action"], row["final_label"], row["p_m"]) == ("unreadable", None, None)
    assert any("1 image(s)" in note for note in summary.notes)
