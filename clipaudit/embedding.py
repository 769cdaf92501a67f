"""`embed`: bring a cache up to date with a source. What is there is kept, the rest goes through the pipeline."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from clipaudit.embeddings import CacheInfo, EmbeddingsCache, Fingerprint, UnusableCacheError, split_into_parts
from clipaudit.encoders import Encoder, EncoderOptions, load_encoder
from clipaudit.errors import CacheError, UsageError
from clipaudit.pipeline import EmbedProgress, Pipeline, Progress
from clipaudit.samples import ParquetSource, Source, SourceOptions, open_source

CACHE_HOME = Path(".clipaudit")
LISTED_UNREADABLE = 10


@dataclass(frozen=True)
class EmbedSummary:
    """What a run did.

    Attributes:
        cache: The cache's folder.
        n_samples: Samples of the source.
        n_embedded: Images encoded by this run.
        n_reused: Embeddings taken over from parts of an earlier state of the source.
        n_unreadable: Samples of the cache whose image could not be read.
        unreadable: The first LISTED_UNREADABLE of them, as (id, reason).
        n_damaged_parts: Parts with a wrong checksum that were rebuilt.
        complete: Whether all parts are there; False while other shards have to run.
        seconds: Wall-clock time of the encoding.
        seconds_waiting: Of these, how long the model waited for decoded images.
        device: Where the model ran.
        precision: Of the arithmetic.
        notes: What the source passed over.
    """

    cache: Path
    n_samples: int
    n_embedded: int
    n_reused: int
    n_unreadable: int
    unreadable: tuple[tuple[str, str], ...]
    n_damaged_parts: int
    complete: bool
    seconds: float
    seconds_waiting: float
    device: str
    precision: str
    notes: tuple[str, ...]


def embed(
    source: str | Path,
    *,
    cache: str | Path | None = None,
    encoder: EncoderOptions | None = None,
    options: SourceOptions | None = None,
    shard: tuple[int, int] = (1, 1),
    workers: int | None = None,
    progress: Progress | None = None,
) -> EmbedSummary:
    """Embed all images of a source into a cache, or those that the cache does not hold yet.

    Memory does not grow with the number of images, but for 8 bytes an image while a manifest is checked for duplicates.

    Args:
        source: Folder of class folders, manifest, or Parquet files with images.
        cache: The cache's folder; by default one below `.clipaudit/` named after source and model.
        encoder: Model, device, precision, batch size.
        options: Columns and class names of the source.
        shard: (i, n): do the i-th of n equal shares; n processes or machines fill one cache.
        workers: Decoding threads; by default one a core beside a GPU, one for eight cores where the model runs on them.
        progress: Called with every batch.

    Raises:
        SourceError: the source has no labelled images, or a bad row.
        ModelError: the model cannot be loaded.
        CacheError: the cache belongs to another model or source.
        UsageError: a shard that does not exist.
    """
    number, shards = shard
    if not 1 <= number <= shards:
        raise UsageError(
            f"shard {number}/{shards} does not exist: shards are numbered 1/{shards} to {shards}/{shards}."
        )
    report = progress or (lambda _: None)
    opened = open_source(source, options)
    report(EmbedProgress("loading the model"))
    model = load_encoder(encoder)
    folder = Path(cache) if cache else default_cache(opened.location, model.fingerprint)
    store = EmbeddingsCache(folder, _cache_info(opened, model))
    store = store.with_plan(_plan(store, opened, report))
    present, damaged = store.verified_parts()
    _refuse_foreign_cache(store, present)
    store.save()
    for file in damaged:
        file.unlink(missing_ok=True)
    planned = dict(store.info.plan)
    stale = [file for name, file in present.items() if name not in planned]
    todo = {name: count for name, count in store.info.plan[number - 1 :: shards] if name not in present}

    pipeline = Pipeline(store, opened, model, store.rows_of(stale), report)
    if todo:
        pipeline.run(todo, workers or _fitting_workers(model))

    files = {name: file for name, file in store.part_files().items() if name in planned}
    complete = len(files) == len(planned)
    if complete:
        for file in stale:
            file.unlink(missing_ok=True)
    unreadable = store.unreadable(files.values())
    return EmbedSummary(
        cache=folder,
        n_samples=store.info.n_samples,
        n_embedded=pipeline.n_embedded,
        n_reused=pipeline.n_reused,
        n_unreadable=len(unreadable),
        unreadable=tuple(unreadable[:LISTED_UNREADABLE]),
        n_damaged_parts=len(damaged),
        complete=complete,
        seconds=pipeline.seconds,
        seconds_waiting=pipeline.seconds_waiting,
        device=str(model.device),
        precision=model.precision,
        notes=tuple(opened.notes()),
    )


def _plan(store: EmbeddingsCache, source: Source, report: Progress) -> list[tuple[str, int]]:
    plan, scanned = [], 0
    for part in split_into_parts(source.samples()):
        plan.append((store.part_name(part), len(part)))
        scanned += len(part)
        report(EmbedProgress("scanning", done=scanned))
    return plan


def default_cache(location: Path, fingerprint: Fingerprint) -> Path:
    """`.clipaudit/<source>-<model>-<hash>`: one folder for each pair of source and model."""
    model = Path(fingerprint.model).name
    mark = blake2b(f"{location}\0{fingerprint.digest}".encode(), digest_size=3).hexdigest()
    return CACHE_HOME / f"{location.stem}-{model}-{mark}"


def _fitting_workers(model: Encoder) -> int:
    """Decoding threads: every core beside a GPU. On a CPU the model needs the cores itself, and is slow to feed."""
    cores = os.cpu_count() or 1
    return max(1, cores // 8) if model.device.type == "cpu" else cores


def _cache_info(source: Source, model: Encoder) -> CacheInfo:
    return CacheInfo(
        fingerprint=model.fingerprint,
        logit_scale=model.logit_scale,
        source=str(source.location),
        root=str(source.root),
        image_column=source.image_column if isinstance(source, ParquetSource) else None,
        class_names=list(source.class_names) if source.class_names else None,
    )


def _refuse_foreign_cache(store: EmbeddingsCache, present: dict[str, Path]) -> None:
    """A cache belongs to one model and one source. A source that was moved is known by the parts it still shares."""
    try:
        held = EmbeddingsCache.open(store.path).info
    except UnusableCacheError:
        return  # None there, or a damaged cache.json: the parts speak for themselves.
    if held.fingerprint.digest != store.info.fingerprint.digest:
        difference = held.fingerprint.differences(store.info.fingerprint)
        raise CacheError(
            f"{store.path} holds embeddings of another model: {held.fingerprint.model} there,"
            f" {store.info.fingerprint.model} now ({difference}). Choose another --cache, or that model and precision."
        )
    if held.source != store.info.source and not any(name in present for name, _ in store.info.plan):
        raise CacheError(
            f"{store.path} holds embeddings of {held.source}, not of {store.info.source}. Choose another --cache."
        )
