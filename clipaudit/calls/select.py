"""`select`: from an embeddings cache to a clean index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.auditing.labels import AuditedLabels, audited_labels, listed_classes
from clipaudit.auditing.method import Scores, decide, score
from clipaudit.auditing.plausibility import decision_warnings, useless
from clipaudit.auditing.warnings import audit_warnings, predictions
from clipaudit.cache.embeddings import Embeddings, EmbeddingsCache
from clipaudit.calls.embed import CACHE_HOME
from clipaudit.clip.devices import choose_device, device_faults
from clipaudit.clip.encoders import EncoderOptions, load_encoder
from clipaudit.config import DECISION_FIELDS, AuditConfig
from clipaudit.errors import CacheError, SourceError, UsageError
from clipaudit.index.building import build_table, replace_decision
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.metadata import IndexMetadata, MixtureFit, PromptsUsed
from clipaudit.prompts.sets import ClassPrompts, class_prompts, find_prompts
from clipaudit.reviews.survey import calibrated


def select(
    cache: str | Path | None = None,
    *,
    config: AuditConfig | None = None,
    prompts: str | Path = "auto",
    labels: str | Path | Iterable[Any] | None = None,
    names: Sequence[str] | None = None,
    model: str | None = None,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> CleanIndex:
    """Audit the labels of an embedded source.

    Args:
        cache: The cache's folder; None takes the only one below `.clipaudit/`.
        config: Estimates, selectors, thresholds; the paper's by default.
        prompts: Name of a shipped prompt set, a prompt file, "auto" (the shipped set that knows all classes, else plain
            templates) or "none" (plain templates).
        labels: Other labels to audit: `FILE[:COLUMN]`, or one class name or index a sample; None takes the source's.
        names: Class names by class index, where labels, the source's own too, are indices.
        model: Where the cache's model lies now, if it was moved; it is needed for prompts not embedded before.
        device: "auto", or a torch device that computes.
        progress: Called with the name of each stage.

    Raises:
        CacheError: the cache is missing, incomplete or damaged.
        SourceError: labels that do not fit; fewer than two classes; no readable image; estimates that know nothing
            about the labels; no label selected.
        PromptError, ModelError, UsageError: see their messages.
    """
    config, report = config or AuditConfig(), progress or (lambda _: None)
    report("reading embeddings")
    store = EmbeddingsCache.open(Path(cache) if cache else find_cache())
    embeddings = store.read()
    config = _with_number(config, store.info.temperature)
    audited = audited_labels(embeddings, labels, names)
    prompt_set, why = find_prompts(prompts, audited.class_names)
    described = class_prompts(audited.class_names, prompt_set)
    report("embedding prompts")
    texts = _text_embeddings(store, described, model, device)
    report("estimating")
    scores = _scores(embeddings, audited, described.owners, texts, config, device)
    given = audited.indices[embeddings.readable]
    if reason := useless(len(audited.class_names), given, predictions(scores, config.estimates)):
        raise SourceError(reason)
    report("selecting")
    decision = decide(scores.estimates, given, len(audited.class_names), config)
    table = build_table(
        embeddings.table,
        store.info.root,
        audited.indices,
        audited.class_names,
        scores.estimates,
        (scores.suggested, scores.suggested_probability),
        decision,
        config,
    )
    metadata = replace(
        _metadata(store, audited, described, scores, config),
        decided=_decided(store, audited, f"{described.source}, {why}", config),
        score_warnings=audit_warnings(audited, described, texts, scores, given, config.estimates),
    )
    return _with_warnings(CleanIndex(table, metadata))


def _scores(
    embeddings: Embeddings,
    audited: AuditedLabels,
    owners: Sequence[int],
    texts: NDArray[np.float32],
    config: AuditConfig,
    device: str,
) -> Scores:
    """The scores of the readable samples, computed on a device."""
    import torch

    from clipaudit.estimates import InMemory
    from clipaudit.estimates.induced import fold_keys

    readable, target = embeddings.readable, choose_device(device)
    vectors = embeddings.vectors if readable.all() else embeddings.vectors[readable]
    ids = embeddings.table["id"].filter(pa.array(readable))
    with device_faults(target, "Close other programs that use it, or choose another --device."):
        return score(
            InMemory(torch.from_numpy(vectors).to(target)),
            torch.from_numpy(audited.indices[readable]).to(target),
            len(audited.class_names),
            torch.from_numpy(texts).to(target),
            owners,
            config,
            # Nothing is drawn without folds.
            keys=fold_keys(ids.to_pylist(), config.seed).to(target) if config.folds else None,
        )


def _metadata(
    store: EmbeddingsCache, audited: AuditedLabels, prompts: ClassPrompts, scores: Scores, config: AuditConfig
) -> IndexMetadata:
    """What the audit was made from."""
    info = store.info
    return IndexMetadata(
        config=config,
        class_names=audited.class_names,
        declared_classes=audited.declared,
        model=info.fingerprint,
        source=info.source,
        root=info.root,
        prompts=PromptsUsed(prompts.source, list(prompts.texts), list(prompts.owners)),
        mixtures={name: MixtureFit.of(mixtures) for name, mixtures in scores.mixtures.items()},
        image_column=info.image_column,
        labels=audited.spec,
        model_temperature=info.temperature,
    )


def _decided(store: EmbeddingsCache, audited: AuditedLabels, prompts: str, config: AuditConfig) -> dict[str, str]:
    """What was decided about the source, the labels and the prompts, in words."""
    info = store.info
    own = ", as the model has it" if config.temperature == info.temperature else ""
    return {
        **{"source": info.source, **info.decided},
        "cache": str(store.path),
        "labels": audited.origin or info.decided.get("labels", "the source's own"),
        "classes": listed_classes(audited.class_names),
        "prompts": prompts,
        "temperature": f"{config.temperature:.4g}{own}",
    }


def reselect(index: CleanIndex, config: AuditConfig) -> CleanIndex:
    """Decide again on the scores of an index, with other thresholds, selectors or combination.

    What a review said stays: `apply_marks` before or after `reselect` gives the same rows.

    Raises:
        UsageError: the configuration differs in something that the scores depend on.
        SourceError: no label is selected.
    """
    held = index.config
    config = _with_number(config, index.metadata.model_temperature)
    wanted, fixed = config.to_dict(), held.to_dict()
    if changed := [name for name in fixed if name not in DECISION_FIELDS and wanted[name] != fixed[name]]:
        raise UsageError(
            f"{', '.join(changed)} decided about the scores and cannot be changed now"
            f" ({', '.join(str(fixed[name]) for name in changed)} in the index)."
            " Run select on the embeddings cache again."
        )
    decision = decide(index.estimates(), index.scored_labels()[index.readable], len(index.class_names), config)
    decided = replace_decision(index, decision, config)
    # Other selectors rank otherwise, and `p_wrong` follows the ranking.
    return _with_warnings(calibrated(decided))


def _with_number(config: AuditConfig, own: float | None) -> AuditConfig:
    """The configuration with the model's own temperature `own` where it says "model"."""
    if config.temperature != "model":
        return config
    if own is None:
        raise UsageError(
            "the index does not say which temperature is the model's own: an earlier clipaudit wrote it. Give the"
            " temperature as a number, or run select on the embeddings cache again."
        )
    return replace(config, temperature=own)


def _with_warnings(index: CleanIndex) -> CleanIndex:
    """An index with the warnings about its scores and its verdicts; SourceError where nothing was selected at all."""
    readable, metadata = index.readable, index.metadata
    rescued = np.asarray(index.table["fallback"].filter(pa.array(readable)).to_numpy())
    is_clean = index.is_clean[readable]
    # An index of an earlier clipaudit has no warnings but those about its scores.
    about_scores = metadata.warnings if metadata.score_warnings is None else metadata.score_warnings
    if not (is_clean & ~rescued).any():
        raise SourceError(
            "; ".join([f"not one of {len(is_clean):,} labels was selected as clean", *about_scores])
            + ". Lower the thresholds, or look at labels, prompts and model."
        )
    about_verdicts = decision_warnings(
        index.class_names, index.labels()[readable], is_clean | index.settled[readable], rescued
    )
    return CleanIndex(index.table, replace(metadata, warnings=[*about_scores, *about_verdicts]))


def find_cache(home: Path = CACHE_HOME) -> Path:
    """The only cache below `home`.

    Raises:
        CacheError: there is none.
        UsageError: there are several; the message lists them.
    """
    found = sorted(file.parent for file in home.glob("*/cache.json"))
    if not found:
        raise CacheError(f"there is no embeddings cache below {home}. Make one with: clipaudit embed IMAGES")
    if len(found) > 1:
        commands = (f"clipaudit select {path}" for path in found)
        raise UsageError("there are several embeddings caches. Name one:", *commands)
    return found[0]


def _text_embeddings(
    store: EmbeddingsCache, prompts: ClassPrompts, model: str | None, device: str
) -> NDArray[np.float32]:
    """(P, d) embeddings of the prompts, from the cache where they were needed before."""
    fingerprint = store.info.fingerprint
    if (held := store.read_texts(prompts.texts)) is not None:
        return held
    options = EncoderOptions(
        model=model or fingerprint.model,
        revision=fingerprint.revision or None,
        device=device,
        precision=fingerprint.precision,
    )
    encoder = load_encoder(options)
    if encoder.fingerprint.weights != fingerprint.weights:
        raise CacheError(
            f"the model {options.model} has other weights than the one that {store.path} was made with."
            " Name the right one with --model, or embed again."
        )
    texts = encoder.encode_texts(prompts.texts)
    store.write_texts(prompts.texts, texts)
    return texts
