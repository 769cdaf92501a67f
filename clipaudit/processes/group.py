"""The leader's side of a group of processes: it starts the others, gives each its rows, and ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.estimates.shares import Maker, SharedVectors, Summing, Sums
from clipaudit.estimates.vectors import InMemory
from clipaudit.processes.messages import PASS, Beginning, Fit, add_up, join

# Of the embeddings that a member receives at a time.
MESSAGE_BYTES = 1 << 26
# What a member may take to end by itself.
SECONDS_TO_END = 5
# A new interpreter, not a fork, which CUDA would not survive. Nothing is imported before the path is the leader's, and
# the leader's own script is not run again, as multiprocessing would.
_PROGRAM = "import sys; sys.path[:] = {!r}; from clipaudit.processes.member import main; main({})"


@contextmanager
def shared(
    whole: InMemory, source: NDArray[Any], rows: NDArray[np.int64] | None, devices: Sequence[torch.device]
) -> Iterator[SharedVectors]:
    """Inside, passes over embeddings are shared by processes, of which this one is the first.

    Args:
        whole: n embeddings, whose chunks come on the first device.
        source: (N, d) the same in this machine's memory, or mapped from a file.
        rows: (n,) the rows of it that they are, ascending; None for all.
        devices: One for each process.

    Raises:
        UsageError: there can be no group here, or this process is a member of another one.
        ClipAuditError: what a process raised, with its message; or one ended without a word.
    """
    _refuse_where_none_can_be()
    n, n_processes, before = len(whole), len(devices), torch.get_num_threads()
    bounds = [n * rank // n_processes for rank in range(n_processes + 1)]
    threads = max(1, before // n_processes)
    with tempfile.TemporaryDirectory() as folder, _members(n_processes) as members:
        meeting = f"{folder}/meeting"
        for member, device in zip(members, devices[1:], strict=True):
            part = slice(bounds[member.rank], bounds[member.rank + 1])
            member.begin(str(device), threads, meeting, source, part if rows is None else rows[part])
        _answers(members)
        torch.set_num_threads(threads)
        try:
            join(devices[0], meeting, 0, n_processes)
            yield SharedVectors(whole, _Group(members, whole.between(0, bounds[1]), bounds))
        finally:
            torch.set_num_threads(before)


class _Group:
    """See `clipaudit.estimates.shares.Group`."""

    def __init__(self, members: Sequence[_Member], own: InMemory, bounds: Sequence[int]) -> None:
        self._members, self._own, self.bounds = members, own, bounds

    def summing(
        self,
        make: Maker,
        rows: Sequence[Tensor] | None,
        labels: Sequence[Tensor],
        class_weights: Tensor,
        chunk_rows: int,
    ) -> Summing:
        """See Group."""
        weights = class_weights.cpu().numpy()
        for member in self._members:
            chosen = None if rows is None else rows[member.rank].cpu().numpy()
            member.send(Fit(make, chosen, labels[member.rank].cpu().numpy(), weights, chunk_rows))
        own = self._own if rows is None else self._own.subset(rows[0])
        summing = make(own, labels[0], class_weights, chunk_rows)
        _answers(self._members)
        return lambda parameters: self._summed(summing, parameters)

    def _summed(self, summing: Summing, parameters: Tensor) -> Sums:
        for member in self._members:
            member.send(PASS)
        dist.broadcast(parameters.contiguous(), 0)
        gradient, curvature, loss = summing(parameters)
        losses = _answers(self._members)
        return *add_up(gradient, curvature), sum(losses, loss)


class _Member:
    """Another process of the group, as the leader knows it."""

    def __init__(self, rank: int, n_processes: int) -> None:
        self.rank, self._n_processes = rank, n_processes
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(sys.path, theirs.fileno())],
            # It ends when nobody holds the other end of its input any more.
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            # Ctrl-C is for the leader, who ends the others.
            start_new_session=True,
        )
        theirs.close()

    def begin(
        self, device: str, threads: int, meeting: str, source: NDArray[Any], rows: slice | NDArray[np.int64]
    ) -> None:
        """Tell it what it is, and send the embeddings of its rows; see Beginning and `shared`."""
        m = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        d = source.shape[1]
        size = max(1, MESSAGE_BYTES // (d * source.itemsize))
        beginning = Beginning(
            self.rank, self._n_processes, device, threads, meeting, (m, d), source.dtype.str, min(size, max(m, 1))
        )
        self.send(beginning)
        for start in range(0, m, size):
            stop = min(start + size, m)
            if isinstance(rows, slice):
                chunk = source[rows.start + start : rows.start + stop]
            else:
                chunk = source[rows[start:stop]]
            self._send_bytes(np.ascontiguousarray(chunk))

    def send(self, message: object) -> None:
        """Send a message; ClipAuditError where the process has ended."""
        try:
            self._connection.send(message)
        except ConnectionError:
            raise self._said_last() from None

    def answer(self) -> Any:
        """What it answers; raises what it raised, and ClipAuditError where the process has ended."""
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            raise self._ended() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hang_up(self) -> None:
        """Let it end by itself."""
        self._connection.close()

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()

    def wait(self) -> None:
        """Wait for its end, for a while at most."""
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _send_bytes(self, chunk: NDArray[Any]) -> None:
        try:
            self._connection.send_bytes(chunk.data.cast("B"))
        except ConnectionError:
            raise self._said_last() from None

    def _said_last(self) -> Exception:
        """Why it listens no longer: what it raised, if it has said so."""
        try:
            self.answer()
        except Exception as error:
            return error
        return self._ended()

    def _ended(self) -> ClipAuditError:
        self._process.wait()
        code = self._process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ClipAuditError(
            f"process {self.rank + 1} of {self._n_processes} ended without a word ({how}), for want of memory perhaps."
            " Lower --data-parallel, or leave it out."
        )


@contextmanager
def _members(n_processes: int) -> Iterator[list[_Member]]:
    """All processes but this one, which end with the block; where it fails, at once."""
    members: list[_Member] = []
    try:
        for rank in range(1, n_processes):
            members.append(_Member(rank, n_processes))
        yield members
    except BaseException:
        # Before they see that nobody meets them any more, and complain.
        for member in members:
            member.kill()
        raise
    finally:
        for member in members:
            member.hang_up()
        if dist.is_initialized():
            dist.destroy_process_group()
        for member in members:
            member.wait()


def _answers(members: Sequence[_Member]) -> list[Any]:
    return [member.answer() for member in members]


def _refuse_where_none_can_be() -> None:
    if os.name != "posix" or not dist.is_available():
        raise UsageError("--data-parallel needs Linux or macOS, and a torch with torch.distributed. Leave it out.")
    if dist.is_initialized():
        raise UsageError(
            "this process belongs to a process group of torch.distributed already: leave out --data-parallel, or call"
            " select in a process of its own."
        )
