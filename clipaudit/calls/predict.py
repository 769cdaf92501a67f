"""`predict`: a trained classifier on other images."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from clipaudit.clip.devices import choose_device, device_faults
from clipaudit.errors import ImageError, SourceError, UsageError
from clipaudit.images.decoding import one_unreadable
from clipaudit.samples import FaultySample, Sample, Source, SourceOptions, open_source
from clipaudit.threads import thread_count
from clipaudit.training.checkpoints import load_weights
from clipaudit.training.engine import Engine
from clipaudit.training.models import Architecture, build
from clipaudit.training.pixels import DevicePixels
from clipaudit.training.run_folder import RunFolder

WEIGHTS = ("best", "last")
# Images that are decoded, seen and forgotten together: as many as these bytes hold, and no more than these.
BYTES_AT_ONCE, IMAGES_AT_ONCE = 256 << 20, 1024


def predict(
    run: str | Path,
    source: str | Path,
    *,
    options: SourceOptions | None = None,
    weights: str = "best",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> pa.Table:
    """Apply a trained classifier.

    Args:
        run: A run folder of `train`.
        source: Images in any form that `embed` reads; their labels are only copied.
        options: How to read them.
        weights: "best" or "last".
        device: "auto", or a torch device.
        precision: "auto", "bfloat16" or "float32".
        workers: Number of decoding threads (1 to 256); None takes one per core.
        progress: Called with the number of images done.

    Returns:
        One row per image in source order: `id`, `label` (the source's), `predicted_label`, `probability`, `status`
        ("ok" or "unreadable") and `reason`.

    Raises:
        RunError: no run folder, one without weights, or a damaged one.
        SourceError: no image can be read, or there is no such source.
        ModelError, UsageError: see their messages.
    """
    if weights not in WEIGHTS:
        raise UsageError(f"unknown weights {weights!r:.40}. Choose from: {', '.join(WEIGHTS)}.")
    threads = thread_count(workers)
    folder, report = RunFolder.open(Path(run)), progress or (lambda _: None)
    architecture = folder.architecture
    engine = Engine(choose_device(device), precision, architecture)
    networks = [build(architecture) for _ in range(folder.n_networks)]
    load_weights(folder.best if weights == "best" else folder.last, folder, networks)
    networks = [engine.place(network) for network in networks]
    names = folder.facts.class_names
    opened = open_source(source, options)
    parts, done = [_table([], [], np.empty(0), np.empty(0, np.int64), names)], 0
    at_once = max(1, min(IMAGES_AT_ONCE, BYTES_AT_ONCE // (3 * architecture.image_size**2)))
    faults = device_faults(engine.device, "Close other programs that use it, or choose another --device.")
    with faults, ThreadPoolExecutor(threads, "clipaudit-decode") as decoders:
        samples = opened.samples()
        while share := list(islice(samples, at_once)):
            decoded = list(decoders.map(lambda sample: _decode(opened, sample, architecture), share))
            reasons = [str(result) if isinstance(result, ImageError) else None for result in decoded]
            rows = np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)
            pictures = [decoded[row] for row in rows.tolist()] or [np.zeros((0, 0, 3), np.uint8)]
            images = DevicePixels(torch.from_numpy(np.stack(pictures)).to(engine.device))
            look = engine.look(networks, images, np.arange(len(rows)), len(rows))[-1]
            p_m, y_m = np.full(len(share), np.nan), np.full(len(share), -1)
            p_m[rows], y_m[rows] = look.p_m, look.y_m
            parts.append(_table(share, reasons, p_m, y_m, names))
            done += len(share)
            report(done)
    table = pa.concat_tables(parts)
    if not pc.any(pc.equal(table["status"], "ok")).as_py():
        first = f" The first is {table['id'][0]}: {table['reason'][0]}." if done else ""
        raise SourceError(f"not one of {done:,} images in {source} can be read.{first}")
    return table


def _decode(source: Source, sample: Sample, architecture: Architecture) -> np.ndarray | ImageError:
    try:
        if isinstance(sample, FaultySample):
            raise ImageError(sample.reason)
        with one_unreadable("cannot be read"):
            return architecture.preprocessing.prepare(source.read(sample.id))
    except ImageError as error:
        return error


def _table(
    samples: list[Sample], reasons: list[str | None], p_m: np.ndarray, y_m: np.ndarray, names: list[str]
) -> pa.Table:
    unread = np.array([reason is not None for reason in reasons], bool)
    predicted = pa.array(y_m.astype(np.int32), mask=unread)
    return pa.table(
        {
            "id": pa.array([sample.id for sample in samples], pa.string()),
            "label": pa.array([sample.label for sample in samples], pa.string()),
            "predicted_label": pa.DictionaryArray.from_arrays(predicted, pa.array(names)),
            "probability": pa.array(p_m.astype(np.float32), mask=unread),
            "status": pa.array(["ok" if reason is None else "unreadable" for reason in reasons], pa.string()),
            "reason": pa.array(reasons, pa.string()),
        }
    )
