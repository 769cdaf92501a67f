"""`embed` on a Ray cluster of two nodes beside a single process, while a worker and a node are killed with -9.

    python -m benchmarks.ray_cluster [--images 20000] [--data ../shared/data] [--model benchmarks/reference_clip]

The nodes are processes of this machine with a core each, and so has the single process one thread: what Ray costs is
seen in their sum. Fails where a cache differs from the single process's by a byte. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import ray
import torch
from ray._private.state import actors
from ray.cluster_utils import Cluster

import clipaudit

REPOSITORY = Path(__file__).parents[1]
Kill = Callable[[Any], None]


def kill_a_worker(_: Any) -> None:
    """End the process of one of the actors that are alive."""
    pids = [actor["Pid"] for actor in actors().values() if actor["State"] == "ALIVE" and actor["Pid"] > 1]
    os.kill(pids[0], signal.SIGKILL)


def kill_a_node(cluster: Any) -> None:
    """End the second node, with what runs there."""
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)


def parts(cache: Path) -> dict[str, bytes]:
    """The parts of a cache; none yet where it has just begun."""
    with suppress(FileNotFoundError):
        return {file.name: file.read_bytes() for file in (cache / "parts").glob("*.parquet")}
    return {}


def in_the_middle(cluster: Any, cache: Path, n_parts: int, kills: list[Kill]) -> None:
    """Kill one after the other, each when another third of the parts is there."""
    for number, kill in enumerate(kills, start=1):
        while len(parts(cache)) < n_parts * number // 3:
            time.sleep(0.1)
        kill(cluster)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--model", default=str(REPOSITORY / "benchmarks" / "reference_clip"))
    given = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    torch.set_num_threads(1)
    model = clipaudit.EncoderOptions(given.model, device="cpu", precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "images.parquet"
        pq.write_table(pq.read_table(given.data / "cifar10" / "train.parquet").slice(0, given.images), source)

        def timed(name: str, **options: Any) -> Path:
            began = time.perf_counter()
            summary = clipaudit.embed(source, cache=Path(folder) / name, encoder=model, **options)
            seconds = time.perf_counter() - began
            assert summary.n_embedded == given.images, summary
            print(f"| {name} | {seconds:.0f} | {given.images / seconds:.0f} |", flush=True)
            return summary.cache

        print("| run | seconds in all | images/s |\n|---|---:|---:|", flush=True)
        expected = parts(timed("a single process, one thread", workers=1))
        for name, kills in (
            ("two nodes", []),
            ("two nodes, a worker and a node killed with -9", [kill_a_worker, kill_a_node]),
        ):
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
            cluster.add_node(num_cpus=1)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            arguments = (cluster, Path(folder) / name, len(expected), kills)
            killer = Thread(target=in_the_middle, args=arguments, daemon=True)
            killer.start()
            cache = timed(name, engine="ray")
            killer.join(1)
            assert not killer.is_alive(), "somebody was not killed in time"
            assert parts(cache) == expected, "other bytes than a single process's"
            ray.shutdown()
            cluster.shutdown()


if __name__ == "__main__":
    main()
