"""Passes that go wrong in the processes of a group, which find them by their names, and a command line with one."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from clipaudit.cli import main
from clipaudit.errors import UsageError
from clipaudit.estimates import Vectors, logistic
from clipaudit.estimates.shares import Summing, Sums

IDS, PASS = "PROCESS_IDS", logistic.Pass


def refused(vectors: Vectors, labels: Tensor, class_weights: Tensor, chunk_rows: int) -> Summing:
    """A pass that the other processes refuse to make."""
    if dist.get_rank():
        raise UsageError(f"these {len(vectors)} rows are not welcome.")
    return PASS(vectors, labels, class_weights, chunk_rows)


def at_fault(vectors: Vectors, labels: Tensor, class_weights: Tensor, chunk_rows: int) -> Summing:
    """A pass with a fault of ours, in the other processes."""
    if dist.get_rank():
        raise KeyError("rows")
    return PASS(vectors, labels, class_weights, chunk_rows)


def killed(vectors: Vectors, labels: Tensor, class_weights: Tensor, chunk_rows: int) -> Summing:
    """A pass that kills one process, while another one waits to have the sums added."""
    summing = PASS(vectors, labels, class_weights, chunk_rows)

    def kill(parameters: Tensor) -> Sums:
        if dist.get_rank() == 1:
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        return summing(parameters)

    return kill


def asleep(vectors: Vectors, labels: Tensor, class_weights: Tensor, chunk_rows: int) -> Summing:
    """A pass that takes long everywhere; each process notes its id."""
    with Path(os.environ[IDS]).open("a") as file:
        file.write(f"{os.getpid()}\n")

    def sleep(parameters: Tensor) -> None:
        time.sleep(60)

    return sleep


def run() -> None:
    """The command line with the pass that the first argument names."""
    logistic.Pass = globals()[sys.argv.pop(1)]
    main()


if __name__ == "__main__":
    # By its own name: other processes do not run this file.
    from process_helpers import run as run_by_name

    run_by_name()
