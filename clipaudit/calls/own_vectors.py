"""`embed` of vectors that were computed elsewhere: checked, normalised and taken over into a cache like any other."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipaudit.auditing.plausibility import unrelated
from clipaudit.cache.embeddings import EmbeddingsCache, split_into_parts
from clipaudit.cache.info import CacheInfo, Fingerprint, UnusableCacheError
from clipaudit.cache.matrix import Vectors
from clipaudit.calls.embed import CACHE_HOME, EmbedSummary
from clipaudit.calls.planning import planned_files, source_warnings, with_plan
from clipaudit.clip.pipeline import EmbedProgress, Progress
from clipaudit.clip.texts import Texts
from clipaudit.errors import CacheError, PromptError, SourceError, UsageError
from clipaudit.files import check_folder
from clipaudit.options.shared import ZERO_SHOT
from clipaudit.prompts.sets import class_prompts, find_prompts
from clipaudit.remote import to_path
from clipaudit.samples import Sample, SourceOptions
from clipaudit.vectors import VectorFacts, VectorSource, open_vectors
from clipaudit.vocabulary import ESTIMATES

if TYPE_CHECKING:
    from clipaudit.clip.encoders import Encoder, EncoderOptions

# So many vectors tell whether the texts belong to them.
TRIED = 4096
# 1 / temperature where no model says its own: that of the paper.
NO_SCALE = 1 / 0.07


def refuse_idle(source: object, encoder: EncoderOptions | None, **given: bool) -> None:
    """UsageError where something was given that has no effect on embeddings."""
    if source is not None:
        raise UsageError("name either images or embeddings of them, not both: no image is read for embeddings.")
    if encoder is not None:
        given = {**given, "batch_size": encoder.batch_size is not None, "exact": encoder.exact}
    if idle := [name for name, is_given in given.items() if is_given]:
        raise UsageError(
            f"{', '.join(idle)} would have no effect on embeddings: no image is read. Leave out the one or the other."
        )


def embed_vectors(
    embeddings: str | Path,
    *,
    cache: str | Path | None,
    encoder: EncoderOptions | None,
    options: SourceOptions | None,
    zero_shot: bool,
    progress: Progress | None,
) -> EmbedSummary:
    """Bring a cache up to date with files of vectors; see `clipaudit.embed`.

    They are read twice: what they are together names the parts that they are kept in.

    Raises:
        SourceError: no vectors, a bad row, or vectors of another dimension than the texts.
        ModelError: the model cannot be loaded.
        CacheError: the cache holds something else, or the files change meanwhile.
        UsageError: neither a model for the texts nor the word that there is none.
    """
    _check_sides(encoder, zero_shot)
    if cache:
        check_folder(cache, [embeddings], new=False)
    report = progress or (lambda _: None)
    source = open_vectors(embeddings, options)
    model = _texts_side(source, encoder, report) if zero_shot else None
    facts = source.survey(
        lambda done: report(EmbedProgress("checking vectors", done=done, total=source.n_rows)),
        max(1, source.n_rows // TRIED),
    )
    info = _cache_info(source, facts, model)
    store = EmbeddingsCache(to_path(cache) if cache else _default_cache(source, model), info)
    _refuse_foreign(store)
    store, counts = with_plan(store, source, report)
    store = EmbeddingsCache(store.path, replace(store.info, decided=_decided(source, facts, store.info, model)))
    began = time.perf_counter()
    n_taken, n_damaged = _take_over(store, source, facts, report)
    planned_files(store)
    names = list(source.class_names or sorted(counts))
    unlike = _unlike(store, source, facts, model, names) if model and source.has_labels else None
    return EmbedSummary(
        cache=store.path,
        n_samples=store.info.n_samples,
        n_embedded=n_taken,
        n_reused=0,
        n_unreadable=0,
        unreadable=(),
        n_damaged_parts=n_damaged,
        complete=True,
        seconds=time.perf_counter() - began,
        seconds_waiting=0.0,
        device=str(model.device) if model else "",
        precision=model.precision if model else "",
        decided=store.info.decided,
        notes=tuple(store.info.notes),
        warnings=(*(source_warnings(counts) if source.has_labels else ()), *([unlike] if unlike else ())),
        is_own=True,
    )


def _check_sides(encoder: EncoderOptions | None, zero_shot: bool) -> None:
    """UsageError unless it is clear which model embeds texts among the vectors, or that none does."""
    if ZERO_SHOT.take(zero_shot) and encoder is None:
        raise UsageError(
            "embeddings need the model that made them, which embeds texts for the zero-shot estimate: --model MODEL."
            " For vectors of a model without texts (DINOv2), say --no-zero-shot."
        )
    if not zero_shot and encoder is not None:
        raise UsageError("a model would have no effect without zero-shot: it is needed for texts only. Leave it out.")


def _texts_side(source: VectorSource, options: EncoderOptions | None, report: Progress) -> Encoder:
    """The model that embeds texts; SourceError where they have other dimensions than the vectors."""
    from clipaudit.clip.encoders import load_encoder

    report(EmbedProgress("loading the model"))
    model = load_encoder(options)
    if model.fingerprint.dimension != source.dimension:
        raise SourceError(
            f"the vectors of {source.location} have {source.dimension:,} numbers, the texts of"
            f" {model.fingerprint.model} {model.fingerprint.dimension:,}: they do not belong together. Name the model"
            " that made the vectors with --model, or say --no-zero-shot."
        )
    return model


def _cache_info(source: VectorSource, facts: VectorFacts, model: Encoder | None) -> CacheInfo:
    texts = model.fingerprint if model else None
    return CacheInfo(
        fingerprint=Fingerprint.of_own(facts.content, source.dimension, texts),
        logit_scale=model.logit_scale if model else NO_SCALE,
        source=str(source.location),
        root=str(source.root),
        access=source.access,
        class_names=list(source.class_names) if source.class_names and source.has_labels else None,
    )


def _default_cache(source: VectorSource, model: Encoder | None) -> Path:
    """`.clipaudit/<source>-<model>-<hash>`, which stays the same when the vectors change."""
    name, weights = (Path(model.fingerprint.model).name, model.fingerprint.weights) if model else ("vectors", "")
    mark = blake2b(f"{source.location}\0own\0{weights}".encode(), digest_size=3).hexdigest()
    return CACHE_HOME / f"{re.sub(r'[*?]+|[][]', '', source.location.stem).strip('-_') or 'own'}-{name}-{mark}"


def _decided(source: VectorSource, facts: VectorFacts, info: CacheInfo, model: Encoder | None) -> dict[str, str]:
    """What was decided about the vectors, in words."""
    decided = dict(info.decided)
    if facts.n_scaled:
        decided["vectors"] += f"; {facts.n_scaled:,} of {facts.n:,} were not of length 1 and were normalised"
    decided["texts"] = (
        f"embedded by {model.fingerprint.model}" if model else "none, so that only the induced estimate will speak"
    )
    if not source.has_labels:
        del decided["classes"]
    return decided


def _refuse_foreign(store: EmbeddingsCache) -> None:
    """A cache belongs to one source and one model of texts. Where the vectors changed, new ones take their place."""
    try:
        held = EmbeddingsCache.open(store.path).info
    except UnusableCacheError:
        return
    mine, its = store.info.fingerprint, held.fingerprint
    if its.digest == mine.digest or (its.is_own and its.weights == mine.weights and held.source == store.info.source):
        return
    what = "vectors that were computed elsewhere" if its.is_own else "embeddings"
    texts = f" with texts of {its.model}" if its.is_own and its.has_texts else ""
    raise CacheError(f"{store.path} holds {what} of {held.source}{texts}. Choose another --cache.")


def _take_over(store: EmbeddingsCache, source: VectorSource, facts: VectorFacts, report: Progress) -> tuple[int, int]:
    """Write the parts that are not there; how many vectors are in these, and how many parts were damaged.

    Raises:
        CacheError: the files hold other vectors than before.
    """
    present, damaged = store.verified_parts()
    store.save()
    for file in damaged:
        file.unlink(missing_ok=True)
    todo = {name: count for name, count in store.info.plan if name not in present}
    written: list[str] = []
    digest = blake2b(digest_size=16)
    if todo:
        for part, vectors in _parts(source):
            digest.update(vectors.tobytes())
            name = store.part_name(part)
            if name in todo:
                none = [None] * len(part)
                store.write_part(name, part, vectors, none, none)
                written.append(name)
                report(EmbedProgress("taking vectors over", sum(todo[one] for one in written), sum(todo.values())))
        if digest.hexdigest() != facts.content or set(written) != todo.keys():
            files = store.part_files()
            for name in written:
                files[name].unlink(missing_ok=True)
            raise CacheError(
                f"{source.location} changes while it is read. Run the same command again when nothing writes there."
            )
    return sum(todo.values()), len(damaged)


def _parts(source: VectorSource) -> Iterator[tuple[list[Sample], Vectors]]:
    """The samples of each part with their (m, d) float16 vectors."""
    held: list[NDArray[np.float16]] = []
    rows = (row for batch, _ in source.batches() for row in batch.astype(np.float16))

    def samples() -> Iterator[Sample]:
        for sample in source.samples():
            row = next(rows, None)
            if row is None:
                return
            held.append(row)
            yield sample

    for part in split_into_parts(samples()):
        vectors = np.stack(held[: len(part)])
        del held[: len(part)]
        yield part, vectors


def _unlike(
    store: EmbeddingsCache, source: VectorSource, facts: VectorFacts, model: Encoder, names: Sequence[str]
) -> str | None:
    """A warning where the texts seem to belong to other vectors.

    Only `select` refuses them: other prompts may describe the classes better.
    """
    import torch

    from clipaudit.estimates import InMemory, ZeroShot, estimate

    if len(names) < 2:
        return None
    number = {name: place for place, name in enumerate(names)}
    labels = np.array([number[sample.label] for sample in islice(source.samples(), 0, None, facts.stride)], np.int64)
    prompts = class_prompts(names, find_prompts("auto", names)[0])
    try:
        texts = Texts(store, None, "cpu", model).embed(prompts.texts)
    except PromptError:
        return None  # As select will say.
    estimator = ZeroShot(torch.from_numpy(texts), prompts.owners, 1 / model.logit_scale)
    (seen,), *_ = estimate([estimator], InMemory(torch.from_numpy(facts.tried)), torch.from_numpy(labels))
    why = unrelated(len(names), labels, {ESTIMATES["zero_shot"].title: seen.prediction.numpy()})
    if why is None:
        return None
    return (
        f"the vectors and the texts of {model.fingerprint.model} do not seem to belong together: {why}. Either another"
        " model made the vectors, or the prompts do not describe the classes: select will refuse them then"
    )
