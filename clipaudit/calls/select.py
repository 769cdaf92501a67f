"""`select`: from an embeddings cache to a clean index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.auditing.labels import audited_labels, listed_classes
from clipaudit.auditing.method import Scores, decide, score
from clipaudit.auditing.metrics import best_threshold
from clipaudit.auditing.plausibility import (
    class_warnings,
    decision_warnings,
    prompt_warnings,
    score_warnings,
    some,
    useless,
)
from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.calls.embed import CACHE_HOME
from clipaudit.clip.devices import choose_device, device_faults
from clipaudit.clip.encoders import EncoderOptions, load_encoder
from clipaudit.config import DECISION_FIELDS, AuditConfig
from clipaudit.errors import CacheError, SourceError, UsageError
from clipaudit.index.clean_index import CleanIndex, build_table, replace_decision
from clipaudit.index.marks import kept_by
from clipaudit.index.metadata import IndexMetadata, MixtureFit, PromptsUsed
from clipaudit.prompts.sets import ClassPrompts, class_prompts, find_prompts
from clipaudit.vocabulary import EstimateTerm


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
    import torch

    from clipaudit.estimates import InMemory

    config, report = config or AuditConfig(), progress or (lambda _: None)
    report("reading embeddings")
    store = EmbeddingsCache.open(Path(cache) if cache else find_cache())
    embeddings = store.read()
    own = 1 / store.info.logit_scale
    config = _with_number(config, own)
    audited = audited_labels(embeddings, labels, names)
    class_names, readable = audited.class_names, embeddings.readable
    prompt_set, why = find_prompts(prompts, class_names)
    described = class_prompts(class_names, prompt_set)
    report("embedding prompts")
    texts = _text_embeddings(store, described, model, device)
    report("estimating")
    vectors = embeddings.vectors if readable.all() else embeddings.vectors[readable]
    given = audited.indices[readable]
    keys = _fold_keys(embeddings.table["id"].filter(pa.array(readable)), config)
    target = choose_device(device)
    with device_faults(target, "Close other programs that use it, or choose another --device."):
        scores = score(
            InMemory(torch.from_numpy(vectors).to(target)),
            torch.from_numpy(given).to(target),
            len(class_names),
            torch.from_numpy(texts).to(target),
            described.owners,
            config,
            keys=None if keys is None else torch.from_numpy(keys).to(target),
        )
    seen = {term.title: scores.estimates[term.name].prediction for term in config.estimates}
    if reason := useless(len(class_names), given, seen):
        raise SourceError(reason)
    report("selecting")
    decision = decide(scores.estimates, given, len(class_names), config)
    suggestion = (scores.suggested, scores.suggested_probability)
    table = build_table(
        embeddings.table,
        store.info.root,
        audited.indices,
        class_names,
        scores.estimates,
        suggestion,
        decision,
        config.estimates,
    )
    warnings = [
        *audited.warnings,
        *class_warnings(audited.counts()),
        *prompt_warnings(class_names, described.texts, described.owners, texts),
        *_fit_warnings(class_names, described, scores, given, config.estimates),
        *score_warnings(class_names, given, seen),
    ]
    decided = {
        **{"source": store.info.source, **store.info.decided},
        "cache": str(store.path),
        "labels": audited.origin or store.info.decided.get("labels", "the source's own"),
        "classes": listed_classes(class_names),
        "prompts": f"{described.source}, {why}",
        "temperature": f"{config.temperature:.4g}{', as the model has it' if config.temperature == own else ''}",
    }
    metadata = IndexMetadata(
        config=config,
        class_names=audited.class_names,
        declared_classes=audited.declared,
        model=store.info.fingerprint,
        source=store.info.source,
        root=store.info.root,
        prompts=PromptsUsed(described.source, list(described.texts), list(described.owners)),
        mixtures={name: MixtureFit.of(mixtures) for name, mixtures in scores.mixtures.items()},
        image_column=store.info.image_column,
        labels=audited.spec,
        decided=decided,
        model_temperature=own,
        score_warnings=warnings,
    )
    return _with_warnings(CleanIndex(table, metadata))


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
    return _with_warnings(replace_decision(index, decision, config))


def reviewed_threshold(index: CleanIndex) -> float:
    """The `threshold` that suits a review: the F1 of the wrong labels is highest among the samples that it marked.

    "right" says that the label given before was right; "relabel" and "drop", that it was wrong. The more the marked
    samples are like all others (a random choice at best), the better the threshold suits these.

    Args:
        index: With marks, from `apply_marks`.

    Raises:
        UsageError: no label was marked, or no right one, or no wrong one.
    """
    if not index.has_reviews:
        raise UsageError("the index holds no review. Mark samples in the report, then merge them: clipaudit apply")
    readable, given = index.readable, index.scored_labels()
    marked = index.reviewed[readable]
    right = (kept_by(index.table["reviewed"]) & (index.labels() == given))[readable][marked]
    for kind, held in (("right", right), ("wrong", ~right)):
        if not held.any():
            raise UsageError(
                f"the review marked no {kind} label among the readable images. A threshold needs some of both kinds."
            )
    undecided = index.config.with_changes(threshold=AuditConfig.threshold)
    scores = decide(index.estimates(), given[readable], len(index.class_names), undecided).clean_score
    return min(best_threshold(scores[marked], right)[0], 1.0)


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


def _fold_keys(ids: pa.ChunkedArray, config: AuditConfig) -> NDArray[np.int64] | None:
    """(n,) what the folds are drawn by: a hash of each id and the seed. None where nothing is drawn."""
    if not config.folds:
        return None
    seed = config.seed.to_bytes(8, "little")
    digests = (blake2b(sample_id.encode(), digest_size=8, key=seed).digest() for sample_id in ids.to_pylist())
    return np.frombuffer(b"".join(digests), "<i8").copy()


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
        index.class_names, index.labels()[readable], is_clean | index.reviewed[readable], rescued
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


def _fit_warnings(
    class_names: list[str],
    prompts: ClassPrompts,
    scores: Scores,
    labels: NDArray[np.int64],
    estimates: Sequence[EstimateTerm],
) -> list[str]:
    """What was missing or did not work out on the way to the scores."""
    counts = np.bincount(labels, minlength=len(class_names))
    warnings = []
    if absent := [name for name, count in zip(class_names, counts, strict=True) if count == 0]:
        warnings.append(f"no readable image has the label {some(absent)}")
    if prompts.plain and prompts.source != "plain templates":
        warnings.append(
            f"prompt set {prompts.source!r} has no features for {some(prompts.plain)}: plain templates used"
        )
    if prompts.source == "plain templates":
        warnings.append(
            "no prompt set: plain templates used for all classes; features make the zero-shot estimate better"
        )
    for term in estimates:
        mixture = scores.mixtures[term.name]
        if kept := [class_names[k] for k in np.flatnonzero(mixture.abstained & (counts > 0))]:
            warnings.append(
                f"the {term.title} losses of {some(kept)} have nothing to split: that selector keeps them all"
            )
        if stopped := [class_names[k] for k in np.flatnonzero(~mixture.converged)]:
            warnings.append(
                f"the mixture of the {term.title} losses of {some(stopped)} stopped before its optimum; its posteriors"
                " may be off"
            )
    if not scores.converged:
        warnings.append("the logistic regression stopped before its optimum; its probabilities may be off")
    return warnings
