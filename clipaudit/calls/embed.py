"""`embed`: bring a cache up to date with a source. What is there is kept, the rest goes through the pipeline."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.cache.info import CacheInfo, Fingerprint
from clipaudit.calls.filling import Wish, fill
from clipaudit.calls.planning import plan_key, planned_files, source_warnings
from clipaudit.clip.encoders import EncoderOptions
from clipaudit.clip.pipeline import Progress
from clipaudit.engines import open_engine
from clipaudit.engines.base import Engine
from clipaudit.errors import SourceError, UsageError
from clipaudit.files import check_folder
from clipaudit.images.quality import measurer
from clipaudit.options.arguments import typed
from clipaudit.options.shared import ADDRESS, ENGINE, QUALITY, VERIFY, ZERO_SHOT
from clipaudit.remote import to_path
from clipaudit.samples import Source, SourceOptions, open_source
from clipaudit.samples.base import NOT_OPENED
from clipaudit.samples.hugging_face import Dataset, is_dataset
from clipaudit.samples.paths import path_pattern
from clipaudit.threads import thread_count

CACHE_HOME = Path(".clipaudit")
LISTED_UNREADABLE = 10
EXAMPLES = 3
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
    engine: str = ENGINE.default,
    address: str | None = None,
    verify: bool = VERIFY.default,
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
        engine: "local" runs the model in this process; "ray" in workers of a Ray cluster, one a GPU, which read the
            source and write the cache at the same paths as this process (docs/scale.md).
        address: With "ray", that of the cluster; "auto" for the one that this machine belongs to. By default that
            one, or where there is none, this machine becomes one for as long as the call takes.
        verify: Scan the source again, whatever the saved plan says, and read every byte of the cache. By default,
            names, sizes and times are trusted.
        quality: Measure the quality of each image by cleanvision, for `select` to judge. Images that were embedded
            without are embedded again.
        workers: Number of decoding threads (1 to 256); by default one per core, or one per eight cores with the model
            on the CPU. With "ray", the number of workers; by default one a GPU, or one a machine where none has one.
        progress: Called with every batch.

    Raises:
        SourceError: the source has no labelled images, or a bad row; or nearly no image can be read.
        ModelError: the model cannot be loaded.
        CacheError: the cache belongs to another model or source, or the source keeps changing meanwhile.
        UsageError: a shard that does not exist, a number of workers out of range, a cache that is the source or no
            folder; cleanvision is wanted and not installed; not one of source and embeddings, or what has no effect on
            embeddings; no Ray, or no cluster at the address, or a data set in memory for "ray".
    """
    if embeddings is not None:
        from clipaudit.calls.own_vectors import embed_vectors, refuse_idle

        refuse_idle(
            source,
            encoder,
            shard=shard != (1, 1),
            engine=engine != ENGINE.default,
            address=address is not None,
            verify=verify,
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
    _check_engine(ENGINE.take(engine), ADDRESS.take(address), source)
    if quality:
        measurer()
    VERIFY.take(verify)
    if cache:
        check_folder(cache, [] if is_dataset(source) else [str(source)], new=False)
    report = progress or (lambda _: None)
    opened = open_source(source, options)
    with open_engine(engine, encoder, workers, address, report) as runner:
        folder = to_path(cache) if cache else default_cache(opened.location, runner.fingerprint)
        key = plan_key(opened, options, runner.fingerprint)
        empty = EmbeddingsCache(folder, _cache_info(opened, runner))
        store, plan, work = fill(empty, Wish(opened, key, shard, quality, verify), runner, report)
    files = planned_files(store)
    unreadable = store.unreadable(files.values())
    _refuse_total_failure(store, unreadable, sum(count for name, count in store.info.plan if name in files))
    return EmbedSummary(
        cache=folder,
        n_samples=store.info.n_samples,
        n_unreadable=len(unreadable),
        unreadable=tuple(unreadable[:LISTED_UNREADABLE]),
        complete=len(files) == len(store.info.plan),
        device=runner.device,
        precision=runner.precision,
        decided=store.info.decided,
        notes=tuple(store.info.notes),
        warnings=tuple(source_warnings(plan.facts.classes)),
        **asdict(work),
    )


def _check_engine(engine: str, address: str | None, source: str | Path | Dataset) -> None:
    if address is not None and engine != "ray":
        raise UsageError(f"address {address!r} would have no effect without engine ray. Leave it out, or name both.")
    if engine == "ray" and is_dataset(source):
        raise UsageError(
            "a data set in the memory of this process is not within reach of workers elsewhere. Save it to a folder"
            " that all machines share (dataset.save_to_disk) and embed that."
        )


def _check_shard(number: int, shards: int) -> None:
    if not 1 <= number <= shards:
        raise UsageError(
            f"shard {number}/{shards} does not exist: shards are numbered 1/{shards} to {shards}/{shards}."
        )


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


def _cache_info(source: Source, engine: Engine) -> CacheInfo:
    return CacheInfo(
        fingerprint=engine.fingerprint,
        logit_scale=engine.logit_scale,
        source=str(source.location),
        root=str(source.root),
        image_column=source.image_column,
        access=source.access,
        class_names=list(source.class_names) if source.class_names else None,
    )
