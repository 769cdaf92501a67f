"""`embed --engine ray` on a real cluster of two nodes: the same cache as one process makes, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, write_class_folders

import clipaudit
from clipaudit import EncoderOptions
from clipaudit.engines.crew import Shares, shares
from clipaudit.errors import UsageError

ray = pytest.importorskip("ray", reason="no Ray: pip install 'clipaudit[ray]'")

REFERENCE = Path(__file__).parents[1] / "benchmarks" / "reference_clip"
MODEL = EncoderOptions(str(REFERENCE), device="cpu", precision="float32")
# The ids of these rows make three short parts.
NAME, N = "train-36.parquet", 3_320
# The death of a machine is noticed within seconds, not within a minute.
QUICK = {"health_check_period_ms": 500, "health_check_failure_threshold": 10, "health_check_initial_delay_ms": 500}


def raising(error: Exception) -> Callable[..., None]:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


@pytest.fixture(scope="module")
def photographs(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 training images in a Parquet file."""
    folder = tmp_path_factory.mktemp("photographs")
    pq.write_table(pq.read_table(data_folder / "cifar10" / "train.parquet").slice(0, N), folder / NAME)
    return folder / NAME


@pytest.fixture(scope="module")
def alone(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their cache, made by a single process."""
    return clipaudit.embed(photographs, cache=tmp_path_factory.mktemp("alone") / "c", encoder=MODEL).cache


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes with a core each, on this machine; this process belongs to the first."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": QUICK})
    started.add_node(num_cpus=1)
    ray.init(address=started.address, log_to_driver=False)
    yield started
    ray.shutdown()
    started.shutdown()


def parts(cache: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (cache / "parts").iterdir()}


def kill_a_worker() -> None:
    """End the process of one of the actors that are alive."""
    from ray._private.state import actors

    pids = [actor["Pid"] for actor in actors().values() if actor["State"] == "ALIVE" and actor["Pid"] > 1]
    os.kill(pids[0], signal.SIGKILL)


def embed_and(
    kill: Callable[[], None], photographs: Path, cache: Path, progress: Callable[[clipaudit.EmbedProgress], None]
) -> clipaudit.EmbedSummary:
    """Embed on the cluster, and kill somebody once a part is there and the two others are under way."""
    failed: list[BaseException] = []

    def wait_and_kill() -> None:
        try:
            while not list(cache.glob("parts/*.parquet")):
                time.sleep(0.01)
            kill()
        except BaseException as error:
            failed.append(error)

    killer = Thread(target=wait_and_kill, daemon=True)
    killer.start()
    summary = clipaudit.embed(photographs, cache=cache, encoder=MODEL, engine="ray", progress=progress)
    killer.join(60)
    assert not failed, failed
    assert not killer.is_alive(), "nobody was killed"
    return summary


@pytest.mark.parametrize("victim", ["worker", "node"])
def test_two_nodes_write_what_one_process_writes_whoever_is_killed(
    victim: str, cluster: Any, photographs: Path, alone: Path, tmp_path: Path
) -> None:
    def kill_a_node() -> None:
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    cache, seen = tmp_path / "c", list[clipaudit.EmbedProgress]()
    summary = embed_and({"worker": kill_a_worker, "node": kill_a_node}[victim], photographs, cache, seen.append)
    assert parts(cache) == parts(alone)
    assert (cache / "cache.json").read_bytes() == (alone / "cache.json").read_bytes()
    assert (summary.n_samples, summary.n_embedded, summary.complete) == (N, N, True)
    assert summary.device == "2 worker(s) with cpu"
    assert (seen[-1].stage, seen[-1].done, seen[-1].total) == ("embedding", N, N)
    assert len({progress.done for progress in seen if progress.stage == "embedding"}) > 3, "one display of the whole"
    assert clipaudit.embed(photographs, cache=cache, encoder=MODEL, engine="ray").n_embedded == 0


def test_a_driver_that_is_killed_goes_on_when_it_runs_again(cluster: Any, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", 7_000)
    cache = tmp_path / "c"
    command = [sys.executable, "-m", "clipaudit", "embed", tmp_path / "photos", "--model", DIGITS.model]
    command += ["--device", "cpu", "--precision", "float32", "--cache", cache, "--batch-size", "16"]
    command += ["--engine", "ray", "--address", cluster.address]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(cache.glob("parts/*.parquet")):
        time.sleep(0.005)
    assert process.poll() is None, "the run was over before it could be killed"
    process.kill()
    process.wait()
    kept = {file: file.stat().st_mtime_ns for file in cache.glob("parts/*.parquet")}
    summary = clipaudit.embed(
        tmp_path / "photos", cache=cache, encoder=replace(DIGITS, batch_size=16), engine="ray", workers=1
    )
    assert 0 < summary.n_embedded < 7_000
    assert {file: file.stat().st_mtime_ns for file in kept} == kept, "nothing is embedded twice"
    alone = clipaudit.embed(tmp_path / "photos", cache=tmp_path / "alone", encoder=replace(DIGITS, batch_size=16))
    assert parts(cache) == parts(alone.cache)


@pytest.mark.parametrize(
    ("nodes", "workers", "use_gpus", "expected"),
    [
        ([{"CPU": 8}, {"CPU": 4}], None, True, Shares(2, 4, 0)),
        ([{"CPU": 8}, {"CPU": 4}], 6, True, Shares(6, 2, 0)),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 16}], None, True, Shares(8, 8, 1)),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 16}], 2, False, Shares(2, 32, 0)),
        ([{}, {"CPU": 2, "GPU": 4}], None, True, Shares(4, 1, 1)),
    ],
)
def test_machines_are_shared_out(
    nodes: list[dict[str, float]], workers: int | None, use_gpus: bool, expected: Shares
) -> None:
    assert shares(nodes, workers, use_gpus=use_gpus) == expected


def test_what_no_cluster_can_do_is_refused(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="too few for 9 worker"):
        shares([{"CPU": 64, "GPU": 8}], 9, use_gpus=True)
    with pytest.raises(UsageError, match="no effect without engine ray"):
        clipaudit.embed(photographs, address="auto")
    # "auto" would find the cluster of any other test that runs on this machine.
    monkeypatch.setattr(ray, "init", raising(ConnectionError("Could not find any running Ray instance.")))
    with pytest.raises(UsageError, match="no Ray cluster answers at auto"):
        clipaudit.embed(photographs, cache=tmp_path / "c", encoder=MODEL, engine="ray", address="auto")
    with pytest.raises(UsageError, match="from outside"):
        clipaudit.embed(photographs, cache=tmp_path / "c", encoder=MODEL, engine="ray", address="ray://head:10001")
    assert not (tmp_path / "c").exists()


def test_without_ray_the_command_to_install_it_is_told(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'clipaudit\[ray\]'"):
        clipaudit.embed(photographs, encoder=MODEL, engine="ray")
