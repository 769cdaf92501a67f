"""`select --data-parallel`: processes that share a fit find what one process finds, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import process_helpers
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from test_logistic import clip_like

import clipaudit
from clipaudit import PRESETS, AuditConfig, CleanIndex
from clipaudit.clip.devices import choose_devices
from clipaudit.errors import UsageError
from clipaudit.estimates import InMemory
from clipaudit.estimates.logistic import fit_logistic_regression
from clipaudit.processes.group import shared

CPU = torch.device("cpu")


def assert_equal(one: CleanIndex, several: CleanIndex) -> None:
    """The same flags, suggestions and metadata, and the same probabilities but for rounding."""
    for field in one.table.schema:
        here, there = one.table[field.name], several.table[field.name]
        if not pa.types.is_floating(field.type):
            assert here.equals(there), field.name
        elif "_p_" in field.name or field.name == "suggested_probability":
            np.testing.assert_allclose(there.to_numpy(), here.to_numpy(), atol=1e-5, err_msg=field.name)
    said = [{**index.metadata.to_dict(), "mixtures": None} for index in (one, several)]
    assert said[0] == said[1]


@pytest.mark.parametrize("preset", ["paper", "recommended"])
def test_two_processes_audit_as_one(noisy_cache: Path, preset: str) -> None:
    config = AuditConfig(**PRESETS[preset])
    threads = torch.get_num_threads()
    assert_equal(*(clipaudit.select(noisy_cache, config=config, device="cpu", data_parallel=n) for n in (1, 2)))
    assert not dist.is_initialized()
    assert torch.get_num_threads() == threads


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_audit_as_one(noisy_cache: Path) -> None:
    assert_equal(*(clipaudit.select(noisy_cache, device="cuda", data_parallel=n) for n in (1, 2)))


def test_three_processes_and_a_fit_on_a_sample_first() -> None:
    x, y = clip_like(3000, 48, 6, 3)
    config = AuditConfig(zero_shot=False, fit_samples=1000, folds=2)
    given: dict[str, Any] = {"names": list("abcdef"), "config": config, "device": "cpu"}
    one, three, again = (clipaudit.select(x.numpy(), y.tolist(), data_parallel=n, **given) for n in (1, 3, 3))
    assert_equal(one, three)
    assert three.table.equals(again.table)


def test_the_command_line_with_two_processes(noisy_cache: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    words = ["select", noisy_cache, "--folds", 3, "--rounds", 2, "--device", "cpu"]
    one, two = (run_cli(*words, "--out", f"{n}.parquet", "--data-parallel", n) for n in (1, 2))
    assert (two.returncode, two.stderr) == (0, "")
    assert two.stdout == one.stdout.replace("1.parquet", "2.parquet")
    assert_equal(*(clipaudit.read_index(tmp_path / f"{n}.parquet") for n in (1, 2)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_any_share_of_the_rows_gives_the_same_model(dtype: torch.dtype) -> None:
    """Rows that nobody could read, subsets of subsets, and processes to which nothing falls."""
    x, y = clip_like(900, 32, 4, 5)
    source = x.to(dtype)
    readable = torch.arange(900)[torch.arange(900) % 7 != 0]
    chosen = torch.arange(400, 600)
    vectors, labels = InMemory(source, readable), y[readable]
    expected = [
        fit_logistic_regression(vectors, labels, 4),
        fit_logistic_regression(vectors.subset(chosen).subset(chosen[:150] - 400), labels[400:550], 4),
    ]
    with shared(vectors, source.numpy(), readable.numpy(), [CPU] * 4) as together:
        assert (len(together), together.dimension) == (len(readable), 32)
        found = [
            fit_logistic_regression(together, labels, 4),
            fit_logistic_regression(together.subset(chosen).subset(chosen[:150] - 400), labels[400:550], 4),
        ]
    for here, there in zip(expected, found, strict=True):
        torch.testing.assert_close(there.log_proba(x).exp(), here.log_proba(x).exp(), atol=1e-5, rtol=0)
    with shared(InMemory(source[:3]), source[:3].numpy(), None, [CPU] * 4) as together:
        assert fit_logistic_regression(together, torch.arange(3), 3).converged


def run_with(name: str, cache: Path, folder: Path) -> subprocess.Popen[str]:
    """The command line with three processes and a pass of `process_helpers`."""
    words = ["select", cache, "--data-parallel", 3, "--device", "cpu", "--out", folder / "clean.parquet"]
    return subprocess.Popen(
        [sys.executable, process_helpers.__file__, name, *map(str, words)],
        env={**os.environ, process_helpers.IDS: str(folder / "ids")},
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in a shell's background, SIGINT is ignored, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("refused", 2, "clipaudit: these 200 rows are not welcome.\n"),
        ("killed", 1, "clipaudit: process 2 of 3 ended without a word (SIGKILL), for want of memory perhaps. Lower"),
        ("at_fault", 1, "KeyError: 'rows'\nclipaudit: this is a fault of clipaudit."),
    ],
)
def test_what_ends_a_process_ends_the_command(
    name: str, code: int, message: str, noisy_cache: Path, tmp_path: Path
) -> None:
    command = run_with(name, noisy_cache, tmp_path)
    _, said = command.communicate(timeout=120)
    assert command.returncode == code
    assert message in said
    assert ("Traceback" in said) == (name == "at_fault")
    assert not (tmp_path / "clean.parquet").exists()


@contextmanager
def asleep(cache: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """The command in the midst of a pass, and the ids of its processes."""
    command, file = run_with("asleep", cache, folder), folder / "ids"
    deadline = time.monotonic() + 120
    while not file.exists() or file.read_text().count("\n") < 3:
        assert time.monotonic() < deadline
        assert command.poll() is None
        time.sleep(0.1)
    yield command, [int(line) for line in file.read_text().split()]
    assert command.stderr is not None
    command.stderr.close()


def runs(process: int) -> bool:
    """Whether a process is there, and no zombie that waits for its parent."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 1), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_outlives_the_command(sent: signal.Signals, code: int, noisy_cache: Path, tmp_path: Path) -> None:
    with asleep(noisy_cache, tmp_path) as (command, ids):
        command.send_signal(sent)
        assert command.wait(60) == code
        deadline = time.monotonic() + 30
        while any(map(runs, ids)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        if sent == signal.SIGINT:
            assert command.stderr is not None
            assert command.stderr.read().startswith("clipaudit: interrupted.")


def test_what_cannot_be_shared_is_refused(noisy_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="data_parallel must be a whole number from 1 to 64, not 0"):
        clipaudit.select(noisy_cache, data_parallel=0)
    with pytest.raises(UsageError, match="'neighbours' fits no logistic regression"):
        clipaudit.select(noisy_cache, config=AuditConfig(induced="neighbours"), data_parallel=2)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    with pytest.raises(UsageError, match="belongs to a process group"):
        clipaudit.select(noisy_cache, device="cpu", data_parallel=2)


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipaudit.clip.devices.choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert choose_devices("cuda", 3) == [torch.device("cuda", number) for number in range(3)]
    assert choose_devices("cuda:1", 1) == [torch.device("cuda:1")]
    assert choose_devices("cpu", 2) == [CPU, CPU]
    with pytest.raises(UsageError, match=r"--data-parallel 4 takes 4 GPUs, and there are 3. Lower it to at most 3\."):
        choose_devices("cuda", 4)
    with pytest.raises(UsageError, match="leave out the number of --device cuda:1"):
        choose_devices("cuda:1", 2)
    with pytest.raises(UsageError, match="not mps"):
        choose_devices("mps", 2)


def test_from_scores_that_are_there_nothing_is_shared(run_cli: Callable[..., Any]) -> None:
    result = run_cli("select", "--from", "clean.parquet", "--out", "again.parquet", "--data-parallel", 2)
    assert result.returncode == 2
    assert "--data-parallel would have no effect" in result.stderr
