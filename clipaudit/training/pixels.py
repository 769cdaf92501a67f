"""Decoded images: uint8 on the device where they fit there, else in one file that blocks are streamed from."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clipaudit.errors import ClipAuditError
from clipaudit.files import temporary
from clipaudit.images.ahead import decoded_ahead
from clipaudit.images.decoding import Preprocessing
from clipaudit.training.data import Samples

# Memory of the host that decoded images may take; of a GPU, half of what is free.
HOST_LIMIT = 4 << 30
# Blocks read ahead of the model where images are streamed.
BLOCKS_AHEAD = 2
IMAGES_A_TASK = 64
# Images decoded between two reports of progress.
IMAGES_A_BATCH = 256
ZEROS = bytes(1 << 20)

Report = Callable[[int, int], None]


class Pixels(Protocol):
    """n decoded images of one size, or in their place n embeddings (`clipaudit.training.probe.Vectors`)."""

    def blocks(self, blocks: Sequence[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        """For each array of b row numbers a (b, 3, height, width) uint8 tensor on the device, or (b, d) float32."""
        ...


@dataclass(frozen=True)
class DevicePixels:
    """All images in the memory of the device, (n, height, width, 3) uint8."""

    images: torch.Tensor

    def blocks(self, blocks: Sequence[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        """Gathered on the device."""
        for rows in blocks:
            yield self.images[torch.from_numpy(rows).to(self.images.device)].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class DiskPixels:
    """All images in one memory-mapped file; workers read the coming blocks while the device computes."""

    images: NDArray[np.uint8]
    device: torch.device
    workers: int

    def blocks(self, blocks: Sequence[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        """Read ahead, pinned where the device is a GPU."""
        with ThreadPoolExecutor(self.workers, "clipaudit-read") as readers:
            waiting = [self._start(readers, rows) for rows in blocks[:BLOCKS_AHEAD]]
            for number in range(len(blocks)):
                block, reading = waiting.pop(0)
                if number + BLOCKS_AHEAD < len(blocks):
                    waiting.append(self._start(readers, blocks[number + BLOCKS_AHEAD]))
                for share in reading:
                    share.result()
                yield block.to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    def _start(self, readers: ThreadPoolExecutor, rows: NDArray[np.int64]) -> tuple[torch.Tensor, list[Future[None]]]:
        pinned = self.device.type == "cuda"
        block = torch.empty((len(rows), *self.images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        target = block.numpy()

        def read(start: int) -> None:
            target[start : start + IMAGES_A_TASK] = self.images[rows[start : start + IMAGES_A_TASK]]

        return block, [readers.submit(read, start) for start in range(0, len(rows), IMAGES_A_TASK)]


def load_pixels(
    samples: Samples,
    rows: NDArray[np.int64],
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    place: str,
    folder: Path,
    workers: int,
    report: Report,
) -> tuple[Pixels, NDArray[np.int64]]:
    """Decode `rows` of the samples once.

    Args:
        samples: n images; row i of the result is image i, zero where it was not asked for or cannot be read.
        rows: Those to decode.
        preprocessing: Resizes and crops.
        device: Where the images are needed.
        place: "device", "disk", or "auto": on the device where they fit.
        folder: For the file of "disk", which is removed when the process ends.
        workers: Threads that decode or read.
        report: Called with images done and images in all.

    Returns:
        The pixels, and the rows among `rows` that cannot be read.

    Raises:
        ClipAuditError: the disk has too little space, or not one image can be read.
    """
    size = preprocessing.crop or (preprocessing.target, preprocessing.target)
    shape = (len(samples), *size, 3)
    needed = math.prod(shape)
    in_memory = place == "device" or (place == "auto" and needed <= memory_limit(device))
    images = np.zeros(shape, np.uint8) if in_memory else _unnamed_file(folder, shape, needed)
    unreadable = _decode_into(images, samples, rows, preprocessing, workers, report)
    if in_memory:
        return DevicePixels(torch.from_numpy(images).to(device)), unreadable
    return DiskPixels(images, device, workers), unreadable


def _decode_into(
    images: NDArray[np.uint8],
    samples: Samples,
    rows: NDArray[np.int64],
    preprocessing: Preprocessing,
    workers: int,
    report: Report,
) -> NDArray[np.int64]:
    def decode(row: int) -> None:
        images[row] = preprocessing.prepare(samples.read(samples.ids[row]))

    reasons: dict[int, str] = {}
    shares = (rows[start : start + IMAGES_A_BATCH].tolist() for start in range(0, len(rows), IMAGES_A_BATCH))
    done = 0
    for share, results in decoded_ahead(((share, share) for share in shares), decode, workers):
        reasons |= {row: str(reason) for row, reason in zip(share, results, strict=True) if reason is not None}
        done += len(share)
        report(done, len(rows))
    if len(rows) and len(reasons) == len(rows):
        row = min(reasons)
        raise ClipAuditError(
            f"not one of {len(rows):,} images can be read. The first is {samples.ids[row]}: {reasons[row]}."
            " If the images were moved, name their folder with --images."
        )
    return np.array(sorted(reasons), np.int64)


def memory_limit(device: torch.device) -> int:
    """Bytes of a device that samples may take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return HOST_LIMIT


def _unnamed_file(folder: Path, shape: tuple[int, ...], needed: int) -> NDArray[np.uint8]:
    too_little = ClipAuditError(
        f"the decoded images need {needed / 1e9:,.1f} GB, more than is free in {folder}."
        " Free some space, choose another run folder or a smaller --image-size."
    )
    path = temporary(folder / "pixels")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < needed:
            raise too_little
        with path.open("w+b") as file:
            if os.name != "nt":
                path.unlink()  # The mapping keeps the file alive, and nothing is left whatever ends the process.
            _allocate(file.fileno(), needed)
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise too_little from None
        raise ClipAuditError(f"the decoded images cannot be kept in {folder}: {error.strerror or error}.") from None


def _allocate(handle: int, needed: int) -> None:
    """Take the space now: a disk that is full when a mapped page is first written kills the process (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, needed)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    for start in range(0, needed, len(ZEROS)):
        os.write(handle, ZEROS[: needed - start])
