"""Where a probe's embeddings are from: the cache behind an index, and the encoder of that cache for other images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clipaudit.cache.embeddings import Embeddings, EmbeddingsCache
from clipaudit.cache.info import Fingerprint
from clipaudit.calls.embed import CACHE_HOME, embed
from clipaudit.clip.encoders import Encoder, EncoderOptions, load_encoder
from clipaudit.errors import CacheError, ModelError, UsageError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.samples import SourceOptions

NAME_IT = "Name the cache that the index was made from with --embeddings"


def cache_behind(index: CleanIndex, named: str | Path | None = None, home: Path = CACHE_HOME) -> EmbeddingsCache:
    """The cache that an index was made from.

    Args:
        index: The clean index.
        named: The cache; by default the only one below `home` of the index's source and model.
        home: Where to look.

    Raises:
        CacheError: the cache is none, or of another model or number of samples; or none below `home` fits.
        UsageError: several below `home` fit.
    """
    cache = EmbeddingsCache.open(named) if named is not None else _only_cache(index, home)
    there, wanted = cache.info.fingerprint, index.metadata.model
    if there.digest != wanted.digest:
        raise CacheError(
            f"{cache.path} holds embeddings of another model than the index's: {there.model} there, {wanted.model} in"
            f" the index ({there.differences(wanted)}). {NAME_IT}."
        )
    if cache.info.n_samples != len(index):
        raise CacheError(
            f"{cache.path} holds {cache.info.n_samples:,} samples, and the index {len(index):,}: they are of different"
            f" states of the source. {NAME_IT}, or make the index again with: clipaudit select {cache.path}"
        )
    return cache


def embed_test_set(
    source: str | Path,
    options: SourceOptions | None,
    encoder: Fingerprint,
    device: str,
    workers: int | None,
    show: Callable[[str, int, int], None],
) -> Embeddings:
    """The embeddings of test images by a probe's encoder, from their own cache below `.clipaudit`, which is kept.

    Raises:
        ModelError: the encoder is gone, or has other weights now.
        SourceError, CacheError: see `embed`.
    """
    made = embed(
        source,
        encoder=_options(encoder, device),
        options=options,
        workers=workers,
        progress=lambda progress: show("embedding", progress.done, progress.total or 0),
    )
    cache = EmbeddingsCache.open(made.cache)
    _refuse_another(encoder, cache.info.fingerprint)
    return cache.read()


def load_same_encoder(encoder: Fingerprint, device: str) -> Encoder:
    """The model that made a probe's embeddings; ModelError where it is gone, or has other weights now."""
    loaded = load_encoder(_options(encoder, device))
    _refuse_another(encoder, loaded.fingerprint)
    return loaded


def _only_cache(index: CleanIndex, home: Path) -> EmbeddingsCache:
    fitting = []
    for file in sorted(home.glob("*/cache.json")):
        try:
            cache = EmbeddingsCache.open(file.parent)
        except CacheError:
            continue  # Damaged, or of another version: not the one behind this index, as far as can be told.
        if cache.info.source == index.metadata.source and cache.info.fingerprint.digest == index.metadata.model.digest:
            fitting.append(cache)
    if not fitting:
        raise CacheError(
            f"there is no embeddings cache of {index.metadata.source} by {index.metadata.model.model} below {home}."
            f" {NAME_IT}."
        )
    if len(fitting) > 1:
        raise UsageError(
            f"there are several embeddings caches of {index.metadata.source} by {index.metadata.model.model}."
            " Name one with:",
            *(f"--embeddings {cache.path}" for cache in fitting),
        )
    return fitting[0]


def _options(encoder: Fingerprint, device: str) -> EncoderOptions:
    if encoder.is_own:
        raise UsageError(
            "this probe reads embeddings that were computed elsewhere, and clipaudit has no model that embeds other"
            " images as they were. Train without --test; predict needs a probe on embeddings from: clipaudit embed"
        )
    return EncoderOptions(
        model=encoder.model,
        revision=encoder.revision or None,
        device=device,
        precision=encoder.precision,
        exact="processor" in encoder.preprocessing,
    )


def _refuse_another(wanted: Fingerprint, found: Fingerprint) -> None:
    if found.digest != wanted.digest:
        raise ModelError(
            f"{wanted.model} is another model now than the one whose embeddings the probe reads"
            f" ({wanted.differences(found)}). Restore it."
        )
