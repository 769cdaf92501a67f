"""What programs read: one JSON document, nothing in a quiet run, exit codes, plain tables in a pipe."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from conftest import DIGITS, write_class_folders
from test_show import in_a_terminal, without_colours

import clipaudit
from clipaudit.cli.app import COMMANDS, app
from clipaudit.cli.output import plain
from clipaudit.demo import MODEL
from clipaudit.errors import UsageError
from clipaudit.options.shared import FAIL_OVER

REPOSITORY = Path(__file__).parents[1]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]
# Each command with --json, and what its document has beside the version, the command and the warnings.
DOCUMENTS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "audit": (
        ("images", "--model", str(MODEL), "--out", "audited.parquet"),
        {"index", "counts", "share_in_doubt", "n_opposed", "embedding", "report", "classes", "decided", "fail_over"},
    ),
    "embed": (("images", "--model", str(MODEL)), {"cache", "n_samples", "n_embedded", "unreadable", "decided"}),
    "select": (
        ("cache", "--out", "again.parquet"),
        {"index", "counts", "share_in_doubt", "wrong_labels", "copies", "confusions", "written", "threshold", "leaks"},
    ),
    "evaluate": (("clean.parquet", "--truth", "truth.csv"), {"overall", "selectors", "classes", "matched_by"}),
    "show": (("reviewed.parquet", "--top", "3"), {"counts", "samples", "wrong_labels", "classes", "class"}),
    "estimate": (("reviewed.parquet",), {"wrong_labels", "precision", "recall", "f1", "threshold", "marks", "n"}),
    "train": (
        ("--index", "clean.parquet", "--epochs", "1", "--width", "4", "--device", "cpu"),
        {"folder", "history", "best_epoch", "labels", "notes"},
    ),
    "predict": (("run", "images"), {"predictions", "n_samples", "n_unreadable", "share_as_labelled", "predicted"}),
    "prompts check": (("digits",), {"sets", "errors"}),
    "doctor": ((), {"versions", "devices", "threads", "memory", "stores", "environment"}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a cache, an audit, a review with its marks applied, and a trained classifier."""
    root = tmp_path_factory.mktemp("machine")
    truth = write_class_folders(root / "images", 120, rate=0.3)
    with (root / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((f"images/{name}", label) for name, label in truth.items())])
    index = clipaudit.select(clipaudit.embed(root / "images", cache=root / "cache", encoder=DIGITS).cache, device="cpu")
    queue = clipaudit.review(index, budget=60)
    queue.index.write(root / "clean.parquet")
    ids = queue.index.table["id"].take(queue.rows).to_pylist()
    rows = [(name, "right" if name.split("/")[0] == truth[name] else "relabel", truth[name]) for name in ids]
    with (root / "marks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "mark", "label"), *rows])
    clipaudit.apply_marks(queue.index, root / "marks.csv")[0].write(root / "reviewed.parquet")
    clipaudit.train(index, out=root / "run", config=clipaudit.recipe("cifar", epochs=1, width=4), device="cpu")
    return root


@pytest.fixture
def sandbox(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def run(command: str, run_cli: Cli, *more: str) -> subprocess.CompletedProcess[str]:
    words = DOCUMENTS[command][0]
    if command == "train":
        words = (*words, "--out", "fresh")
    return run_cli(*command.split(), *words, *more)


def commands_with(option: str) -> set[str]:
    """The commands that have an option."""
    found = set()
    for name in COMMANDS:
        command: Any = typer.main.get_command(app)
        for word in name.split():
            command = command.commands[word]
        if any(option in parameter.opts for parameter in command.params):
            found.add(name)
    return found


def test_these_commands_have_documents() -> None:
    assert commands_with("--json") == commands_with("--quiet") == set(DOCUMENTS)
    assert commands_with("--fail-over") == {"audit", "select"}


@pytest.mark.parametrize("command", DOCUMENTS)
def test_one_document_and_nothing_else(command: str, sandbox: Path, run_cli: Cli) -> None:
    done = run(command, run_cli, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    document = json.loads(done.stdout)
    assert document["clipaudit"] == clipaudit.__version__
    assert document["command"] == command
    assert all(isinstance(warning, str) for warning in document["warnings"])
    assert DOCUMENTS[command][1] <= set(document)
    page = (REPOSITORY / "docs" / "automation.md").read_text(encoding="utf-8")
    assert [key for key in document if f"`{key}`" not in page] == []


@pytest.mark.parametrize("command", DOCUMENTS)
def test_quiet_prints_warnings_only(command: str, sandbox: Path, run_cli: Cli) -> None:
    done = run(command, run_cli, "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert all(line.startswith("warning ") for line in done.stderr.splitlines())


def test_documents_say_what_the_library_says(sandbox: Path, run_cli: Cli) -> None:
    index = clipaudit.read_index(sandbox / "reviewed.parquet")
    shown = json.loads(run("show", run_cli, "--json").stdout)
    doubts = clipaudit.find_doubts(index, top=3)
    assert shown["counts"] == plain(doubts.counts)
    assert [sample["id"] for sample in shown["samples"]] == [sample.id for sample in doubts.samples]
    wrong = clipaudit.estimate(index).wrong_labels
    assert shown["wrong_labels"] == {"estimate": wrong.estimate, "low": wrong.low, "high": wrong.high}
    estimated = json.loads(run("estimate", run_cli, "--json").stdout)
    assert estimated["wrong_labels"] == shown["wrong_labels"]
    done = run_cli("select", "--from", "reviewed.parquet", "--target", "recall=0.5", "--out", "t.parquet", "--json")
    assert done.returncode == 0, done.stderr
    target = clipaudit.target_threshold(index, recall=0.5)
    assert json.loads(done.stdout)["threshold"] == {**plain(target), "note": ""}
    evaluated = json.loads(run("evaluate", run_cli, "--json").stdout)
    found = clipaudit.evaluate(clipaudit.read_index(sandbox / "clean.parquet"), sandbox / "truth.csv")
    assert evaluated["overall"] == plain(found.to_dict())["overall"]


def test_errors_stay_on_standard_error(sandbox: Path, run_cli: Cli) -> None:
    for words, code in (
        (("show", "none.parquet"), 1),
        (("select", "cache", "--preset", "mnist"), 2),
        (("embed", "nowhere"), 1),
    ):
        for option in ("--json", "--quiet"):
            done = run_cli(*words, option)
            assert (done.returncode, done.stdout) == (code, "")
            assert done.stderr.startswith("clipaudit: ")


def test_fail_over_decides_the_exit_code(sandbox: Path, run_cli: Cli) -> None:
    share = clipaudit.read_index(sandbox / "clean.parquet").noise_rate
    assert 0.1 < share < 0.9
    words = ("select", "cache", "--out", "again.parquet")
    for command in (words, ("audit", "images", "--model", MODEL, "--out", "audited.parquet")):
        for limit, code in (("90%", 0), ("0.1", 1)):
            done = run_cli(*command, "--fail-over", limit)
            assert done.returncode == code, done.stderr
            assert ("labels are in doubt" in done.stderr) == bool(code)
            assert "in doubt" in done.stdout
    done = run_cli(*words, "--fail-over", "10%", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["fail_over"] == 0.1
    assert document["share_in_doubt"] == pytest.approx(share)
    done = run_cli(*words, "--fail-over", "10%", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{share:.2%}" in done.stderr
    done = run_cli(*words, "--fail-over", "5")
    assert (done.returncode, done.stdout) == (2, "")
    assert "fail_over must be" in done.stderr


def test_a_share_is_written_in_two_ways() -> None:
    for text, share in (("5%", 0.05), ("0.05", 0.05), ("12.5%", 0.125), ("0", 0.0), ("100%", 1.0), ("1", 1.0)):
        assert FAIL_OVER.take(FAIL_OVER.kind.parse(text)) == pytest.approx(share)
    for text in ("5", "-1%", "101%", "5 percent", "%", "nan", ""):
        with pytest.raises(UsageError, match="fail_over must be a number from 0 to 1"):
            FAIL_OVER.take(FAIL_OVER.kind.parse(text))


def test_errors_of_a_prompt_set_are_told_in_every_form(tmp_path: Path, run_cli: Cli) -> None:
    (tmp_path / "bad.toml").write_text("name = 3")
    for option in ((), ("--quiet",), ("--json",)):
        done = run_cli("prompts", "check", "bad.toml", *option)
        assert done.returncode == 1
        assert "correct the errors of bad.toml" in done.stderr
    assert len(json.loads(done.stdout)["errors"]) == 1
    assert "error bad.toml: " in run_cli("prompts", "check", "bad.toml", "--quiet").stderr


def test_tables_have_frames_for_people_only(sandbox: Path, run_cli: Cli) -> None:
    frames = set("│┃┏╭─━")
    for words in (
        ("show", "clean.parquet"),
        ("evaluate", "clean.parquet", "--truth", "truth.csv"),
        ("select", "cache", "--out", "again.parquet"),
        ("estimate", "reviewed.parquet"),
    ):
        piped = run_cli(*words)
        assert piped.returncode == 0, piped.stderr
        assert not frames & set(piped.stdout), words
        files = [sandbox / word if (sandbox / word).exists() else word for word in words]
        files = [sandbox / "again.parquet" if word == "again.parquet" else word for word in files]
        assert frames & set(without_colours(in_a_terminal(*files))), words


def test_values_of_every_kind_become_json(tmp_path: Path) -> None:
    held = {"a": np.float64("nan"), "b": (Path("x"), "\udcff"), 3: float("inf"), "c": None, "d": [True, 7, 0.5]}
    assert plain(held) == {"a": None, "b": ["x", "\\udcff"], "3": None, "c": None, "d": [True, 7, 0.5]}
    json.dumps(plain(held), allow_nan=False).encode()


def test_without_arguments_it_helps(run_cli: Cli) -> None:
    done = run_cli()
    assert (done.returncode, done.stderr) == (0, "")
    assert "clipaudit audit photos/" in done.stdout
    assert "Commands" in done.stdout


def test_doctor_says_nothing_secret(run_cli: Cli, tmp_path: Path, small_images: Path) -> None:
    clipaudit.embed(small_images, cache=tmp_path / ".clipaudit" / "mine", encoder=DIGITS)
    settings = {**os.environ, "HF_TOKEN": "hf_secret", "HF_ENDPOINT": "https://me:secret@mirror.example"}
    text, document = (run_cli("doctor", *option, env=settings) for option in ((), ("--json",)))
    assert text.returncode == document.returncode == 0
    assert "secret" not in text.stdout + document.stdout
    assert "mirror.example" in text.stdout
    found = json.loads(document.stdout)
    assert found["versions"]["clipaudit"] == clipaudit.__version__
    assert found["devices"][-1]["name"] == "cpu"
    assert found["threads"]["torch"] >= 1
    (store,) = (store for store in found["stores"] if store["kind"] == "embeddings")
    whole = sum(file.stat().st_size for file in (tmp_path / ".clipaudit" / "mine").rglob("*") if file.is_file())
    assert store == {"kind": "embeddings", "path": ".clipaudit/mine", "n_bytes": whole}
