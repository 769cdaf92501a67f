"""What the leader of a group of processes sends to the others, and how all of them meet in torch.distributed.

The leader sends each member a Beginning and the embeddings of its rows. When all have said that they are ready, they
meet. Then the leader sends a Fit for each fit, and PASS for each pass of it, and the parameters follow by a broadcast.
Members answer each message, with None, the loss of a pass, or the exception that ends them; only when all have answered
are the sums added. So a member that failed is found out by its answer, and nobody waits for it in vain.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from clipaudit.estimates.shares import Maker

PASS = "pass"
# Nobody is late to a collective but where the machine is overloaded.
PATIENCE = timedelta(minutes=5)
_LOOPBACK = {"linux": "lo", "darwin": "lo0"}
_GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


@dataclass(frozen=True)
class Beginning:
    """What a member is.

    Attributes:
        rank: Its number; the leader is 0.
        n_processes: The leader included.
        device: The name of the one that it computes on.
        threads: How many it computes with, on the CPU.
        meeting: A file that does not exist yet, where all processes find each other.
        shape: (m, d) of its embeddings.
        dtype: Their NumPy type.
        chunk_rows: How many of them come in a message.
    """

    rank: int
    n_processes: int
    device: str
    threads: int
    meeting: str
    shape: tuple[int, int]
    dtype: str
    chunk_rows: int


@dataclass(frozen=True)
class Fit:
    """What all passes of a fit need to know.

    Attributes:
        make: What makes a pass of a member's embeddings.
        rows: (m,) int64, its own rows that count, ascending; None for all.
        labels: (m,) int64.
        class_weights: (K,) float32.
        chunk_rows: Rows a chunk.
    """

    make: Maker
    rows: NDArray[Any] | None
    labels: NDArray[Any]
    class_weights: NDArray[Any]
    chunk_rows: int


def join(device: torch.device, meeting: str, rank: int, n_processes: int) -> None:
    """Join the others, by NCCL on GPUs and by gloo on the CPU; waits until all are there."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _on_this_machine():
        dist.init_process_group(
            backend, init_method=f"file://{meeting}", rank=rank, world_size=n_processes, timeout=PATIENCE
        )


def add_up(gradient: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of all processes' (K, d+1) gradients and (K,) curvatures; only the leader receives them."""
    packed = torch.cat([gradient, curvature[:, None]], 1)
    dist.reduce(packed, 0)
    return packed[:, :-1], packed[:, -1]


@contextmanager
def _on_this_machine() -> Iterator[None]:
    """Inside, gloo talks over the loopback interface alone, unless the environment names another one."""
    loopback = _LOOPBACK.get(sys.platform)
    if loopback is None or _GLOO_INTERFACE in os.environ:
        yield
        return
    os.environ[_GLOO_INTERFACE] = loopback
    try:
        yield
    finally:
        del os.environ[_GLOO_INTERFACE]
