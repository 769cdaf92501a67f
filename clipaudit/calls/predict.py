"""`predict`: a trained classifier on other images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import nn

from clipaudit.calls.probe import load_same_encoder
from clipaudit.clip.devices import choose_device, device_faults
from clipaudit.clip.pipeline import NOT_FINITE
from clipaudit.errors import ImageError, SourceError, UsageError
from clipaudit.images.ahead import decoded_ahead
from clipaudit.options.arguments import typed
from clipaudit.samples import Sample, Source, SourceOptions, open_source, read_sample
from clipaudit.threads import thread_count
from clipaudit.training.checkpoints import load_weights
from clipaudit.training.engine import Engine
from clipaudit.training.methods.base import Look
from clipaudit.training.models import Architecture, build
from clipaudit.training.pixels import DevicePixels, Pixels
from clipaudit.training.probe import Probe, Vectors
from clipaudit.training.run_folder import RunFolder

WEIGHTS = ("best", "last")
# Images that the networks see together, while as many again are decoded: as many as these bytes hold, and no more than
# these.
BYTES_AT_ONCE, IMAGES_AT_ONCE = 128 << 20, 512
# A decoded image or an embedding, or why there is none.
Picture = NDArray[Any] | ImageError


@dataclass(frozen=True)
class _Eyes:
    """How files become what a classifier looks at.

    Attributes:
        at_once: Images that it looks at together.
        prepare: Decodes a file, in a thread; ImageError where it cannot be read.
        finish: From a batch of these to as many samples of the classifier.
        store: Keeps a batch on the device, for the engine.
    """

    at_once: int
    prepare: Callable[[bytes], NDArray[Any]]
    finish: Callable[[list[Picture]], list[Picture]]
    store: Callable[[NDArray[Any]], Pixels]


@typed
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
    eyes = (
        _for_embeddings(architecture, engine.device, device)
        if isinstance(architecture, Probe)
        else _for_images(architecture, engine.device)
    )
    networks = [build(architecture) for _ in range(folder.n_networks)]
    load_weights(folder.best if weights == "best" else folder.last, folder, networks)
    networks = [engine.place(network) for network in networks]
    names = folder.facts.class_names
    opened = open_source(source, options)
    tables = [_table([], [], Look(np.empty(0, np.float32), np.empty(0, np.int64)), names)]
    done = 0
    with device_faults(engine.device, "Close other programs that use it, or choose another --device."):
        for samples, decoded in _decoded(opened, eyes, threads):
            pictures = eyes.finish(decoded)
            reasons = [str(picture) if isinstance(picture, ImageError) else None for picture in pictures]
            tables.append(_table(samples, reasons, _look(engine, networks, pictures, eyes), names))
            done += len(samples)
            report(done)
    table = pa.concat_tables(tables)
    if not pc.any(pc.equal(table["status"], "ok")).as_py():
        first = f" The first is {table['id'][0]}: {table['reason'][0]}." if done else ""
        raise SourceError(f"not one of {done:,} images in {source} can be read.{first}")
    return table


def _for_images(architecture: Architecture, device: torch.device) -> _Eyes:
    return _Eyes(
        at_once=max(1, min(IMAGES_AT_ONCE, BYTES_AT_ONCE // architecture.sample_values)),
        prepare=architecture.preprocessing.prepare,
        finish=lambda images: images,
        store=lambda images: DevicePixels(torch.from_numpy(images).to(device)),
    )


def _for_embeddings(probe: Probe, device: torch.device, name: str) -> _Eyes:
    encoder = load_same_encoder(probe.encoder, name)

    def embed(images: list[Picture]) -> list[Picture]:
        result = list(images)
        by_shape: dict[tuple[int, ...], dict[int, NDArray[Any]]] = {}
        for row, image in enumerate(images):
            if not isinstance(image, ImageError):
                by_shape.setdefault(image.shape, {})[row] = image
        for group in by_shape.values():
            # Rounded as in a cache, so that an image is seen as in training.
            vectors = encoder.encode_images(np.stack(list(group.values()))).half().cpu().numpy()
            for row, vector in zip(group, vectors, strict=True):
                result[row] = vector if np.isfinite(vector).all() else ImageError(NOT_FINITE)
        return result

    return _Eyes(
        at_once=min(IMAGES_AT_ONCE, encoder.batch_size),
        prepare=encoder.prepare,
        finish=embed,
        store=lambda vectors: Vectors(torch.from_numpy(vectors).to(device), np.arange(len(vectors)), device),
    )


def _decoded(source: Source, eyes: _Eyes, threads: int) -> Iterator[tuple[list[Sample], list[Picture]]]:
    """All samples of a source in batches, with their images; threads decode the next batch meanwhile."""
    samples = source.samples()
    batches = iter(lambda: list(islice(samples, eyes.at_once)), [])
    return decoded_ahead(
        ((batch, batch) for batch in batches),
        lambda sample: eyes.prepare(read_sample(source, sample)),
        threads,
        ahead=1,
    )


def _look(engine: Engine, networks: Sequence[nn.Module], pictures: Sequence[Picture], eyes: _Eyes) -> Look:
    """What the networks see together in each picture; NaN and -1 where there is none."""
    seen = {row: picture for row, picture in enumerate(pictures) if not isinstance(picture, ImageError)}
    if not seen:
        return Look(np.full(len(pictures), np.nan, np.float32), np.full(len(pictures), -1, np.int64))
    first = next(iter(seen.values()))
    samples = np.zeros((len(pictures), *first.shape), first.dtype)
    for row, picture in seen.items():
        samples[row] = picture
    return engine.look(networks, eyes.store(samples), np.array(list(seen), np.int64), len(pictures))[-1]


def _table(samples: list[Sample], reasons: list[str | None], look: Look, names: list[str]) -> pa.Table:
    unread = np.array([reason is not None for reason in reasons], bool)
    predicted = pa.array(look.y_m.astype(np.int32), mask=unread)
    return pa.table(
        {
            "id": pa.array([sample.id for sample in samples], pa.string()),
            "label": pa.array([sample.label for sample in samples], pa.string()),
            "predicted_label": pa.DictionaryArray.from_arrays(predicted, pa.array(names)),
            "probability": pa.array(look.p_m, mask=unread),
            "status": pa.array(["ok" if reason is None else "unreadable" for reason in reasons], pa.string()),
            "reason": pa.array(reasons, pa.string()),
        }
    )
