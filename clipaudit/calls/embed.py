"""`embed`: bring a cache up to date with a source. What is there is kept, the rest goes through the pipeline."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.cache.info import CacheInfo, Fingerprint, UnusableCacheError
from clipaudit.calls.planning import planned_files, source_warnings, with_plan
from clipaudit.clip.devices import device_faults
from clipaudit.clip.encoders import Encoder, EncoderOptions, load_encoder
from clipaudit.clip.pipeline import EmbedProgress, Measurer, Pipeline, Progress
from clipaudit.errors import CacheError, SourceError, UsageError
from clipaudit.files import check_folder
from clipaudit.images.quality import measurer
from clipaudit.options.arguments import typed
from clipaudit.options.shared import QUALITY, ZERO_SHOT
from clipaudit.remote import READERS, is_remote, to_path
from clipaudit.samples import Source, SourceOptions, open_source
from clipaudit.samples.base import NOT_OPENED
from clipaudit.samples.hugging_face import Dataset, is_dataset
from clipaudit.samples.paths import path_pattern
from clipaudit.threads import thread_count

CACHE_HOME = Path(".clipaudit")
LISTED_UNREADABLE = 10
EXAMPLES = 3
# A source that changes while it is embedded is looked at again, but not for ever.
PLANS = 3
# A run in which at least this share of the images cannot be read has failed.
FAILED_SHARE = 0.9


@dataclass(frozen=True)
class EmbedSummary:
    """What a run decided and did.

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
        seconds_waiting: Seconds of these in which the model waited for decoded images.
        device: Where the model ran.
        precision: Precision of the arithmetic.
        decided: What was decided about the source, by what it is about ("classes": "10: cat, dog, ..."), in words.
        notes: What was skipped in the source.
        warnings: What is odd about the classes, as sentences.
        is_own: The vectors were computed elsewhere: n_embedded says how many were taken over by this run.
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
    decided: Mapping[str, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    is_own: bool = False


@dataclass
class _Work:
    """What was done so far."""

    n_embedded: int = 0
    n_reused: int = 0
    n_damaged_parts: int = 0
    seconds: float = 0.0
    seconds_waiting: float = 0.0


@typed
def embed(
    source: str | Path | Dataset | None = None,
    *,
    embeddings: str | Path | None = None,
    zero_shot: bool = ZERO_SHOT.default,
    cache: str | Path | None = None,
    encoder: EncoderOptions | None = None,
    options: SourceOptions | None = None,
    shard: tuple[int, int] = (1, 1),
    quality: bool = QUALITY.default,
    workers: int | None = None,
    progress: Progress | None = None,
) -> EmbedSummary:
    """Embed all images of a source into a cache, or those that the cache does not hold yet; or take vectors over.

    Memory does not grow with the number of images, but for 8 bytes an image while a manifest is checked for duplicates.

    Args:
        source: Folder of class folders, manifest, Parquet files with images or whatever else docs/sources.md lists; a
            quoted pattern names several files. Or a `datasets.Dataset`.
        embeddings: In place of a source, vectors that were computed elsewhere: Parquet files with a column of vectors,
            `.npy` files, or a folder of them; docs/sources.md tells which. Of `encoder`, its texts are used.
        zero_shot: With `embeddings`, load the texts' side of the model; False for vectors of a model without texts.
        cache: The cache's folder; by default one below `.clipaudit/` named after source and model.
        encoder: Model, device, precision, batch size; by default `EncoderOptions()`.
        options: Columns and class names of the source.
        shard: (i, n): do the i-th of n equal shares; n processes or machines fill one cache.
        quality: Measure the quality of each image by cleanvision, for `select` to judge. Images that were embedded
            without are embedded again.
        workers: Number of decoding threads (1 to 256); by default one per core, or one per eight cores with the model
            on the CPU.
        progress: Called with every batch.

    Raises:
        SourceError: the source has no labelled images, or a bad row; or nearly no image can be read.
        ModelError: the model cannot be loaded.
        CacheError: the cache belongs to another model or source, or the source keeps changing meanwhile.
        UsageError: a shard that does not exist, a number of workers out of range, a cache that is the source or no
            folder; cleanvision is wanted and not installed; not one of source and embeddings, or what has no effect on
            embeddings.
    """
    if embeddings is not None:
        from clipaudit.calls.own_vectors import embed_vectors, refuse_idle

        refuse_idle(
            source,
            encoder,
            shard=shard != (1, 1),
            quality=quality,
            workers=workers is not None,
            crops=bool(options and options.crops),
        )
        return embed_vectors(
            embeddings, cache=cache, encoder=encoder, options=options, zero_shot=zero_shot, progress=progress
        )
    if source is None or not ZERO_SHOT.take(zero_shot) or (options and options.vector_column):
        raise UsageError(
            "name the images to embed"
            + ("; zero_shot and vector_column are for embeddings only." if source else ", or embeddings of them.")
        )
    _check_shard(*shard)
    thread_count(workers)
    measure = measurer() if quality else None
    if cache:
        check_folder(cache, [] if is_dataset(source) else [str(source)], new=False)
    report = progress or (lambda _: None)
    opened = open_source(source, options)
    report(EmbedProgress("loading the model"))
    model = load_encoder(encoder)
    folder = to_path(cache) if cache else default_cache(opened.location, model.fingerprint)
    empty = EmbeddingsCache(folder, _cache_info(opened, model))
    threads = thread_count(workers, _fitting_workers(opened, model))
    store, counts, work = _up_to_date(empty, opened, model, shard, threads, report, measure)
    files = planned_files(store)
    unreadable = store.unreadable(files.values())
    _refuse_total_failure(store, unreadable, sum(count for name, count in store.info.plan if name in files))
    return EmbedSummary(
        cache=folder,
        n_samples=store.info.n_samples,
        n_unreadable=len(unreadable),
        unreadable=tuple(unreadable[:LISTED_UNREADABLE]),
        complete=len(files) == len(store.info.plan),
        device=str(model.device),
        precision=model.precision,
        decided=store.info.decided,
        notes=tuple(store.info.notes),
        warnings=tuple(source_warnings(counts)),
        **asdict(work),
    )


def _check_shard(number: int, shards: int) -> None:
    if not 1 <= number <= shards:
        raise UsageError(
            f"shard {number}/{shards} does not exist: shards are numbered 1/{shards} to {shards}/{shards}."
        )


def _up_to_date(
    store: EmbeddingsCache,
    source: Source,
    model: Encoder,
    shard: tuple[int, int],
    workers: int,
    report: Progress,
    measure: Measurer | None,
) -> tuple[EmbeddingsCache, Counter[str], _Work]:
    """The cache with all parts of a share of the source, the number of samples of each class, and what was done.

    Raises:
        CacheError: the source was another one at each attempt.
    """
    number, shards = shard
    work = _Work()
    for _ in range(PLANS):
        store, counts = with_plan(store, source, report)
        share = dict(store.info.plan[number - 1 :: shards])
        _fill(store, source, model, share, workers, report, measure, work)
        if share.keys() <= store.part_files().keys():
            return store, counts, work
    raise CacheError(
        f"{source.location} changes while it is embedded: its files were other ones at each of {PLANS} attempts."
        " Run the same command again when nothing writes there; it goes on where it stopped."
    )


def _fill(
    store: EmbeddingsCache,
    source: Source,
    model: Encoder,
    share: Mapping[str, int],
    workers: int,
    report: Progress,
    measure: Measurer | None,
    work: _Work,
) -> None:
    """Embed the parts of `share` that are not there yet. Those of images that changed meanwhile stay away."""
    present, damaged = store.verified_parts()
    _refuse_foreign_cache(store, present)
    store.save()
    mine = {name: file for name, file in present.items() if name in share}
    again = store.not_opened(mine) | (store.without_quality(mine) if measure else set())
    planned = dict(store.info.plan)
    known = store.rows_of(file for name, file in present.items() if name not in planned or name in again)
    for file in [*damaged, *(present[name] for name in again)]:
        file.unlink(missing_ok=True)
    todo = {name: count for name, count in share.items() if name not in present or name in again}
    work.n_damaged_parts += len(damaged)
    if todo:
        pipeline = Pipeline(store, source, model, known, report, measure)
        with device_faults(model.device, "Choose a smaller --batch-size."):
            pipeline.run(todo, workers)
        work.n_embedded += pipeline.n_embedded
        work.n_reused += pipeline.n_reused
        work.seconds += pipeline.seconds
        work.seconds_waiting += pipeline.seconds_waiting


def _refuse_total_failure(store: EmbeddingsCache, unreadable: Sequence[tuple[str, str]], n_samples: int) -> None:
    """A run in which nearly no image could be read has failed; the cache keeps each row with its reason.

    Raises:
        SourceError: at least FAILED_SHARE of the images are unreadable.
    """
    if len(unreadable) < FAILED_SHARE * n_samples:
        return
    reason, count = Counter(reason for _, reason in unreadable).most_common(1)[0]
    failed = [sample_id for sample_id, why in unreadable if why == reason]
    sentences = [
        f"{len(unreadable):,} of {n_samples:,} images of {store.info.source} cannot be read, so there is nothing to"
        " audit",
        f"Reason of {count:,} of them: {reason}",
        f"For example: {', '.join(failed[:EXAMPLES])}",
    ]
    if reason.startswith(NOT_OPENED) and (pattern := path_pattern(failed, to_path(store.info.root))):
        sentences.append(pattern[0].upper() + pattern[1:])
    raise SourceError(". ".join([*sentences, f"Every image and its reason are kept in {store.path}."]))


def default_cache(location: Path, fingerprint: Fingerprint) -> Path:
    """`.clipaudit/<source>-<model>-<hash>`: one folder for each pair of source and model."""
    model = Path(fingerprint.model).name
    mark = blake2b(f"{location}\0{fingerprint.digest}".encode(), digest_size=3).hexdigest()
    # The name of a source may be a pattern; that of a folder had better be none.
    source = re.sub(r"[*?\[\]]+", "", location.stem).strip("-_")
    return CACHE_HOME / f"{source}-{model}-{mark}"


def _fitting_workers(source: Source, model: Encoder) -> int:
    """Decoding threads: every core beside a GPU. On a CPU the model needs the cores itself, and is slow to feed."""
    cores = os.cpu_count() or 1
    if is_remote(source.root):
        # They wait for another machine most of the time.
        return max(READERS, cores)
    return max(1, cores // 8) if model.device.type == "cpu" else cores


def _cache_info(source: Source, model: Encoder) -> CacheInfo:
    return CacheInfo(
        fingerprint=model.fingerprint,
        logit_scale=model.logit_scale,
        source=str(source.location),
        root=str(source.root),
        image_column=source.image_column,
        access=source.access,
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
