"""`select`: from an embeddings cache to a clean index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.auditing.copies import copies_among
from clipaudit.auditing.labels import AuditedLabels, audited_labels, listed_classes
from clipaudit.auditing.method import Scores, decide, score
from clipaudit.auditing.plausibility import unrelated, useless
from clipaudit.auditing.quality import quality_of
from clipaudit.auditing.warnings import audit_warnings, predictions, stranger_warnings
from clipaudit.auditing.words import Words, no_words, words_given, words_of
from clipaudit.cache.embeddings import Embeddings
from clipaudit.calls.material import Array, Material, material_of, names_of_classes
from clipaudit.calls.on_device import keys_of, readable_on_all
from clipaudit.calls.reselect import with_number, with_warnings
from clipaudit.clip.devices import choose_devices, device_faults
from clipaudit.config import AuditConfig
from clipaudit.errors import SourceError, UsageError
from clipaudit.index.building import Beside, Strangers, build_table
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.metadata import IndexMetadata, MixtureFit, PromptsUsed
from clipaudit.options.arguments import typed
from clipaudit.options.shared import DATA_PARALLEL
from clipaudit.prompts.sets import ClassPrompts, find_prompts
from clipaudit.spelling import Spellings
from clipaudit.text import excerpt

if TYPE_CHECKING:
    import torch


@typed
def select(
    cache: str | Path | Array | None = None,
    labels: str | Path | Iterable[Any] | None = None,
    *,
    config: AuditConfig | None = None,
    prompts: str | Path = "auto",
    names: Sequence[str] | None = None,
    ids: Iterable[Any] | None = None,
    class_embeddings: Array | None = None,
    background: str | None = None,
    model: str | None = None,
    device: str = "auto",
    data_parallel: int = 1,
    progress: Callable[[str], None] | None = None,
) -> CleanIndex:
    """Audit the labels of an embedded source, or of embeddings at hand: `select(embeddings, labels, model=...)`.

    Args:
        cache: The cache's folder; None takes the only one below `.clipaudit/`. Or embeddings, an (n, d) array of numpy
            or torch; with neither `model` nor `class_embeddings` only the induced estimate speaks.
        labels: Other labels to audit: `FILE[:COLUMN]`, or one class name or index a sample; None takes the source's.
        config: Estimates, selectors, thresholds; the paper's by default.
        prompts: Name of a shipped prompt set, a prompt file, "auto" (the shipped set that knows all classes, else plain
            templates) or "none" (plain templates).
        names: Class names by class index, where labels, the source's own too, are indices.
        ids: Of embeddings at hand, one a sample; paths lead to the images. None numbers them from 0.
        class_embeddings: (K, d), what each class looks like, in the order of the names, in place of texts.
        background: The class that images of none of the other classes belong to.
        model: Where the cache's model lies now, if it was moved; it is needed for prompts not embedded before. Of
            embeddings at hand, the model that made them.
        device: "auto", or a torch device that computes.
        data_parallel: Number of GPUs that fit the logistic regression together, a process each; on the CPU, of
            processes. No probability changes by more than about 1e-4, the tolerance of the fit.
        progress: Called with the name of each stage.

    Raises:
        CacheError: the cache is missing, incomplete or damaged.
        SourceError: labels that do not fit; fewer than two classes; no readable image; estimates that know nothing
            about the labels; no label selected.
        PromptError, ModelError, UsageError: see their messages.
    """
    config, report = config or AuditConfig(), progress or (lambda _: None)
    devices = _devices(device, data_parallel, config)
    report("reading embeddings")
    material = material_of(cache, ids, class_embeddings, model, device)
    embeddings, classes = material.embeddings, material.classes
    config = _speaking(config, material, prompts=prompts != "auto", background=background, model=model)
    if classes is not None and names is None:
        names = names_of_classes(labels, len(classes))
    audited = audited_labels(embeddings, labels, names)
    nowhere_else = _background(audited, background)
    report("embedding prompts")
    words, described = _words(material, audited, prompts, config)
    report("looking for copies")
    copies, about_copies = copies_among(embeddings)
    first = None if copies is None else copies.first
    quality, about_quality = quality_of(embeddings)
    embeddings = embeddings.without_facts()
    material = replace(material, embeddings=embeddings)
    report("estimating")
    scores, strangers = _scores(embeddings, audited, words, first, config, nowhere_else, devices)
    # Nothing below looks at a vector, and the index takes the memory that they leave.
    embeddings = embeddings.without_vectors()
    material = replace(material, embeddings=embeddings)
    given = audited.indices[embeddings.readable]
    _refuse_chance(material, audited, given, scores, config)
    report("selecting")
    decision = decide(scores.estimates, given, len(audited.class_names), config, first)
    table = build_table(
        embeddings.table,
        embeddings.info.root,
        audited.indices,
        audited.class_names,
        scores.estimates,
        (scores.suggested, scores.suggested_probability),
        Beside(strangers, copies, quality),
        decision,
        config,
    )
    metadata = replace(
        _metadata(material, audited, words.prompts, scores, config),
        background=audited.class_names[nowhere_else] if background else None,
        decided=_decided(material, audited, described, config)
        | {"copies": about_copies, **({"quality": about_quality} if about_quality else {})},
        score_warnings=[
            *audit_warnings(audited, words.prompts, words.texts, scores, given, config.estimates),
            *words.warnings,
            *(stranger_warnings(audited.class_names, given, strangers.misplaced(given)) if strangers else ()),
        ],
    )
    return with_warnings(CleanIndex(table, metadata))


def _devices(name: str, data_parallel: int, config: AuditConfig) -> list[torch.device]:
    """Where each process computes; UsageError where there is nothing for several to do."""
    n_processes = DATA_PARALLEL.take(data_parallel)
    if n_processes > 1 and "c" in config.idle:
        raise UsageError(
            f"data_parallel would have no effect: the induced estimate {config.induced!r} fits no logistic regression."
            " Leave out the one or the other."
        )
    return choose_devices(name, n_processes)


def _speaking(config: AuditConfig, material: Material, **for_texts: Any) -> AuditConfig:
    """The configuration with what can speak, its temperature a number.

    Args:
        config: As it was asked for.
        material: What it is about.
        for_texts: What has an effect on texts alone, by the names of the arguments; empty where it was not given.

    Raises:
        UsageError: something was given that has no effect without zero-shot, or is made of it.
    """
    if material.silence and config.zero_shot:
        config = config.with_changes(zero_shot=False)
    if not config.zero_shot and (idle := [name for name, given in for_texts.items() if given]):
        raise UsageError(
            f"{', '.join(idle)} would have no effect: zero-shot does not speak"
            f" ({material.silence or 'as asked for'}). Leave out the one or the other."
        )
    if config.temperature == "model" and material.classes is not None:
        raise UsageError("class_embeddings come without a temperature of their own: give it as a number.")
    return with_number(config, material.temperature)


def _words(material: Material, audited: AuditedLabels, prompts: str | Path, config: AuditConfig) -> tuple[Words, str]:
    """What the classes look like, and the same in a few words."""
    names, dimension = audited.class_names, material.embeddings.info.fingerprint.dimension
    if not config.zero_shot:
        judges = " and ".join(term.title for term in config.estimates)
        return no_words(dimension, material.silence or "as asked for", judges), "none, as zero-shot does not speak"
    if material.classes is not None:
        if prompts != "auto":
            raise UsageError("prompts would have no effect beside class_embeddings. Leave out the one or the other.")
        if len(material.classes) != len(names):
            raise UsageError(f"there are {len(material.classes):,} class_embeddings for {len(names):,} classes.")
        return words_given(names, material.classes), "none, but class embeddings that were given"
    assert material.texts is not None  # There is no silence.
    prompt_set, why = find_prompts(prompts, names)
    words = words_of(names, prompt_set, material.texts)
    return words, f"{words.prompts.source}, {why}"


def _refuse_chance(
    material: Material, audited: AuditedLabels, given: NDArray[np.int64], scores: Scores, config: AuditConfig
) -> None:
    """SourceError where no result can be right: nothing knows the labels, or vectors and texts are of two models."""
    seen, n_classes = predictions(scores, config.estimates), len(audited.class_names)
    if reason := useless(n_classes, given, seen):
        raise SourceError(reason)
    info = material.embeddings.info
    if not (config.zero_shot and info.fingerprint.is_own) or (why := unrelated(n_classes, given, seen)) is None:
        return
    texts = "class_embeddings" if material.classes is not None else f"texts of {info.fingerprint.model}"
    raise SourceError(
        f"the vectors of {info.source} and the {texts} do not belong together: {why}. Name the model that made the"
        " vectors; or describe the classes by other --prompts, if these say nothing of what the images show; or leave"
        " texts out with --no-zero-shot."
    )


def _scores(
    embeddings: Embeddings,
    audited: AuditedLabels,
    words: Words,
    first: NDArray[np.int64] | None,
    config: AuditConfig,
    background: int,
    devices: Sequence[torch.device],
) -> tuple[Scores, Strangers | None]:
    """What is computed on a device about the readable samples: their scores, and what shows none of the classes.

    Args:
        embeddings: Of all samples.
        audited: Their labels.
        words: Of the classes and other things.
        first: (m,) of each readable sample, the first one with the same image; None where nobody looked for copies.
        config: Of the audit.
        background: The class of what shows none of the others; -1 for none.
        devices: Where to compute, one for each process.
    """
    import torch

    from clipaudit.estimates.off_topic import off_topic

    readable, target = embeddings.readable, devices[0]
    given = audited.indices[readable]
    with (
        device_faults(target, "Close other programs that use it, or choose another --device."),
        readable_on_all(embeddings, devices) as (whole, shared),
    ):
        texts, nouns = (torch.from_numpy(matrix).to(target) for matrix in (words.texts, words.nouns))
        scores = score(
            shared,
            torch.from_numpy(given).to(target),
            len(audited.class_names),
            texts,
            words.prompts.owners,
            config,
            keys=keys_of(embeddings, config, target),
            first=None if first is None else torch.from_numpy(first).to(target),
        )
        if not config.zero_shot:
            return scores, None
        owners = np.array(words.prompts.owners)
        confirmed = scores.confirmed(given, config.estimates) & (given != background)
        found = off_topic(
            whole,
            texts[torch.from_numpy(owners != background).to(target)],
            owners[owners != background].tolist(),
            nouns,
            embeddings.info.temperature,
            confirmed,
        )
    return scores, None if found is None else Strangers(found.score, found.noun, words.names, background)


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
    material: Material, audited: AuditedLabels, prompts: ClassPrompts, scores: Scores, config: AuditConfig
) -> IndexMetadata:
    """What the audit was made from."""
    info = material.embeddings.info
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
        model_temperature=material.temperature,
    )


def _decided(material: Material, audited: AuditedLabels, prompts: str, config: AuditConfig) -> dict[str, str]:
    """What was decided about the source, the labels and the prompts, in words."""
    from clipaudit.estimates.neighbours import search_said

    info, n_readable = material.embeddings.info, int(material.embeddings.readable.sum())
    own = ", as the model has it" if config.temperature == material.temperature else ""
    return {
        **{"source": info.source, **info.decided},
        **({"cache": str(material.cache)} if material.cache else {}),
        "labels": audited.origin or info.decided.get("labels", "the source's own"),
        "classes": listed_classes(audited.class_names),
        "prompts": prompts,
        **({"temperature": f"{config.temperature:.4g}{own}"} if config.zero_shot else {}),
        **({"neighbours": search_said(n_readable)} if "neighbours" in config.induced.split(",") else {}),
    }
