"""`select`: from an embeddings cache to a clean index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.auditing.copies import copies_among
from clipaudit.auditing.labels import AuditedLabels, audited_labels, listed_classes
from clipaudit.auditing.method import Scores, decide, score
from clipaudit.auditing.plausibility import decision_warnings, useless
from clipaudit.auditing.quality import quality_of
from clipaudit.auditing.warnings import audit_warnings, predictions, stranger_warnings
from clipaudit.auditing.words import Words, words_of
from clipaudit.cache.embeddings import Embeddings, EmbeddingsCache
from clipaudit.calls.embed import CACHE_HOME
from clipaudit.clip.devices import choose_device, device_faults
from clipaudit.clip.texts import Texts
from clipaudit.config import DECISION_FIELDS, AuditConfig
from clipaudit.errors import CacheError, SourceError, UsageError
from clipaudit.index.building import Beside, Strangers, build_table, replace_decision
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.metadata import IndexMetadata, MixtureFit, PromptsUsed
from clipaudit.options.arguments import typed
from clipaudit.prompts.sets import ClassPrompts, find_prompts
from clipaudit.reviews.survey import calibrated
from clipaudit.spelling import Spellings
from clipaudit.text import excerpt


@typed
def select(
    cache: str | Path | None = None,
    *,
    config: AuditConfig | None = None,
    prompts: str | Path = "auto",
    labels: str | Path | Iterable[Any] | None = None,
    names: Sequence[str] | None = None,
    background: str | None = None,
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
        background: The class that images of none of the other classes belong to.
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
    nowhere_else = _background(audited, background)
    prompt_set, why = find_prompts(prompts, audited.class_names)
    report("embedding prompts")
    words = words_of(audited.class_names, prompt_set, Texts(store, model, device))
    report("looking for copies")
    copies, about_copies = copies_among(embeddings)
    first = None if copies is None else copies.first
    quality, about_quality = quality_of(embeddings)
    report("estimating")
    scores, strangers = _scores(embeddings, audited, words, first, config, nowhere_else, device)
    given = audited.indices[embeddings.readable]
    if reason := useless(len(audited.class_names), given, predictions(scores, config.estimates)):
        raise SourceError(reason)
    report("selecting")
    decision = decide(scores.estimates, given, len(audited.class_names), config, first)
    table = build_table(
        embeddings.table,
        store.info.root,
        audited.indices,
        audited.class_names,
        scores.estimates,
        (scores.suggested, scores.suggested_probability),
        Beside(strangers, copies, quality),
        decision,
        config,
    )
    metadata = replace(
        _metadata(store, audited, words.prompts, scores, config),
        background=audited.class_names[nowhere_else] if background else None,
        decided=_decided(store, audited, f"{words.prompts.source}, {why}", config)
        | {"copies": about_copies, **({"quality": about_quality} if about_quality else {})},
        score_warnings=[
            *audit_warnings(audited, words.prompts, words.texts, scores, given, config.estimates),
            *words.warnings,
            *(stranger_warnings(audited.class_names, given, strangers.misplaced(given)) if strangers else ()),
        ],
    )
    return _with_warnings(CleanIndex(table, metadata))


def _scores(
    embeddings: Embeddings,
    audited: AuditedLabels,
    words: Words,
    first: NDArray[np.int64] | None,
    config: AuditConfig,
    background: int,
    device: str,
) -> tuple[Scores, Strangers | None]:
    """What is computed on a device about the readable samples: their scores, and what shows none of the classes.

    Args:
        embeddings: Of all samples.
        audited: Their labels.
        words: Of the classes and other things.
        first: (m,) of each readable sample, the first one with the same image; None where nobody looked for copies.
        config: Of the audit.
        background: The class of what shows none of the others; -1 for none.
        device: Where to compute.
    """
    import torch

    from clipaudit.estimates import InMemory
    from clipaudit.estimates.induced import fold_keys
    from clipaudit.estimates.off_topic import off_topic

    readable, target = embeddings.readable, choose_device(device)
    ids = embeddings.table["id"].filter(pa.array(readable))
    given = audited.indices[readable]
    with device_faults(target, "Close other programs that use it, or choose another --device."):
        on_device = InMemory(torch.from_numpy(embeddings.readable_vectors).to(target))
        texts, nouns = (torch.from_numpy(matrix).to(target) for matrix in (words.texts, words.nouns))
        scores = score(
            on_device,
            torch.from_numpy(given).to(target),
            len(audited.class_names),
            texts,
            words.prompts.owners,
            config,
            # Nothing is drawn without folds.
            keys=fold_keys(ids.to_pylist(), config.seed).to(target) if config.folds else None,
            first=None if first is None else torch.from_numpy(first).to(target),
        )
        owners = np.array(words.prompts.owners)
        confirmed = scores.confirmed(given, config.estimates) & (given != background)
        found = off_topic(
            on_device,
            texts[torch.from_numpy(owners != background).to(target)],
            owners[owners != background].tolist(),
            nouns,
            embeddings.info.temperature,
            confirmed,
        )
    return scores, None if found is None else Strangers(found.score, np.array(words.names)[found.noun], background)


def _background(audited: AuditedLabels, name: str | None) -> int:
    """The number of the background class, -1 for none; UsageError where there is no such class."""
    if name is None:
        return -1
    number = Spellings(audited.class_names).find(name)
    if number is None:
        raise UsageError(
            f"there is no class {excerpt(name)} for the images of no class. Choose from:"
            f" {listed_classes(audited.class_names)}."
        )
    return number


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
        access=info.access,
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


@typed
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
    given = index.scored_labels()[index.readable]
    decision = decide(index.estimates(), given, len(index.class_names), config, index.first_copies)
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
