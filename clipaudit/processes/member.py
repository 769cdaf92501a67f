"""A process that adds up over its rows what the leader of the group asks for."""

from __future__ import annotations

import os
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from clipaudit.clip.devices import device_faults
from clipaudit.errors import ClipAuditError
from clipaudit.estimates.shares import Summing
from clipaudit.estimates.vectors import SHARE_OF_DEVICE, InMemory
from clipaudit.processes.messages import PASS, Beginning, Fit, add_up, join


def main(connection: int) -> None:
    """Serve the leader until it hangs up.

    Args:
        connection: The open file that leads to it.
    """
    threading.Thread(target=_end_with_the_leader, daemon=True).start()
    leader: Connection[Any, Any] = Connection(connection)
    try:
        _serve(leader)
    except (EOFError, ConnectionError):
        pass
    except ClipAuditError as error:
        leader.send(error)
    except Exception:
        leader.send(RuntimeError(f"in another process:\n{traceback.format_exc().rstrip()}"))


def _end_with_the_leader() -> None:
    """End at once when the leader ends, whatever goes on here: nobody but it holds the other end of the input."""
    os.read(0, 1)
    os._exit(1)


def _serve(leader: Connection[Any, Any]) -> None:
    beginning: Beginning = leader.recv()
    device = torch.device(beginning.device)
    torch.set_num_threads(beginning.threads)
    with device_faults(device, "Close other programs that use it, or leave out --data-parallel."):
        vectors = InMemory(_received(leader, beginning, device), device=device)
        leader.send(None)
        join(device, beginning.meeting, beginning.rank, beginning.n_processes)
        summing: Summing | None = None
        parameters = torch.empty(0)
        try:
            while True:
                asked = leader.recv()
                if isinstance(asked, Fit):
                    summing, parameters = _begun(asked, vectors, device)
                    leader.send(None)
                    continue
                assert asked == PASS
                assert summing is not None
                dist.broadcast(parameters, 0)
                gradient, curvature, loss = summing(parameters)
                leader.send(loss)
                add_up(gradient, curvature)
        except EOFError:
            dist.destroy_process_group()


def _received(leader: Connection[Any, Any], beginning: Beginning, device: torch.device) -> Tensor:
    """(m, d) the embeddings of this process's rows: on the device where they fit, else in memory."""
    m, d = beginning.shape
    dtype = np.dtype(beginning.dtype)
    chunk = np.empty((beginning.chunk_rows, d), dtype)
    fits = device.type != "cuda" or m * d * dtype.itemsize <= SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]
    held = torch.empty(m, d, dtype=torch.from_numpy(chunk).dtype, device=device if fits else None)
    for start in range(0, m, beginning.chunk_rows):
        rows = min(beginning.chunk_rows, m - start)
        leader.recv_bytes_into(chunk.data.cast("B"))
        held[start : start + rows] = torch.from_numpy(chunk[:rows]).to(held.device)
    return held


def _begun(fit: Fit, vectors: InMemory, device: torch.device) -> tuple[Summing, Tensor]:
    """The pass of a fit, and where its (K, d+1) parameters go."""
    labels, class_weights = (torch.from_numpy(array).to(device) for array in (fit.labels, fit.class_weights))
    mine = vectors if fit.rows is None else vectors.subset(torch.from_numpy(fit.rows))
    parameters = torch.empty(len(class_weights), vectors.dimension + 1, device=device)
    return fit.make(mine, labels, class_weights, fit.chunk_rows), parameters
