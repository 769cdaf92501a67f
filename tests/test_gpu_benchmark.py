"""`python -m benchmarks.gpu` on small sizes: every step is a row, kept, and not run again; a failure is a row, too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

ROOT = Path(__file__).parents[1]


def rows_of(page: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line[:2] == "| "]


def test_a_dry_run_writes_a_row_for_every_step_and_keeps_it(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--dry-run"]
    words += ["--json", str(tmp_path / "gpu.json"), "--table", str(tmp_path / "gpu.md")]
    said = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    page = (tmp_path / "gpu.md").read_text()
    assert said.endswith(page)
    assert "no GPU (a dry run" in page.splitlines()[0]
    head, *rows = rows_of(page)
    assert head == ["what", "on", "result", "seconds in all"]
    assert [row[0] for row in rows] == [step.title for step in gpu.STEPS.values()]
    results = dict(zip(gpu.STEPS, (row[2] for row in rows), strict=True))
    assert " skipped" in results["tests"]
    for name in ("vit-b-32", "vit-l-14-336"):
        assert "of the bare model's" in results[name]
    for name in ("logistic", "mixtures"):
        assert "scikit-learn on the processor" in results[name]
    assert "DataLoader" in results["training"]
    steps = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert all(step["numbers"] for step in steps.values())
    assert steps["logistic"]["numbers"]["difference"] < 1e-3
    again = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert again == page


def test_all_limits_together_are_below_ten_minutes() -> None:
    assert sum(step.limit for step in gpu.STEPS.values()) <= 590


def test_a_step_that_fails_is_a_row_and_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = {"size": "1 x 1", "result": "2 s", "numbers": {"seconds": 2.0}, "seconds": 3.0}
    outcomes = {"select": {"failed": "exit code 1: RuntimeError: no room", "seconds": 1.0}, "mixtures": ended}
    ran: list[str] = []

    def run_step(name: str, *, dry: bool) -> dict[str, object]:
        ran.append(name)
        return outcomes[name]

    monkeypatch.setattr(gpu, "run_step", run_step)
    places = ["--json", str(tmp_path / "gpu.json"), "--table", str(tmp_path / "gpu.md")]
    monkeypatch.setattr(sys, "argv", ["gpu", "--dry-run", "--steps", *outcomes, *places])
    assert gpu.main() == 1
    _, failed, done = rows_of((tmp_path / "gpu.md").read_text())
    assert failed == ["`select`", "", "failed: exit code 1: RuntimeError: no room", "1"]
    assert done == ["mixtures", "1 x 1", "2 s", "3"]
    outcomes["select"] = ended
    assert gpu.main() == 0
    assert ran == ["select", "mixtures", "select"]
    (tmp_path / "gpu.json").write_text(json.dumps({"card": "another", "steps": {}}))
    with pytest.raises(SystemExit):
        gpu.main()
    assert "holds results of another" in capsys.readouterr().err


def test_a_step_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    step = gpu.STEPS["training"]
    monkeypatch.setitem(gpu.STEPS, "training", gpu.Step(step.title, step.measure, 0, step.sizes, step.dry))
    assert gpu.run_step("training", dry=True)["failed"] == "it took more than 0 s"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_a_step_says_why_it_failed_and_the_command_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.run_step("mixtures", dry=False)["failed"].startswith("exit code 1: ")
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="There is no CUDA device here"):
        gpu.main()
