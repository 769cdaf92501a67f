"""`select`: from an embeddings cache to a clean index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clipaudit import __version__
from clipaudit.audit import Scores, decide, score
from clipaudit.config import DECISION_FIELDS, AuditConfig
from clipaudit.embedding import CACHE_HOME
from clipaudit.embeddings import CacheInfo, Embeddings, EmbeddingsCache
from clipaudit.encoders import EncoderOptions, choose_device, load_encoder
from clipaudit.errors import CacheError, SourceError, UsageError
from clipaudit.evaluation import best_threshold
from clipaudit.index import CleanIndex, build_table, replace_decision
from clipaudit.prompts import ClassPrompts, class_prompts, find_prompts
from clipaudit.samples.labels import read_column
from clipaudit.text_embeddings import read_texts, write_texts

NAMES_IN_A_WARNING = 5


def select(
    cache: str | Path | None = None,
    *,
    config: AuditConfig | None = None,
    prompts: str | Path = "auto",
    labels: str | Path | Sequence[str] | None = None,
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
        labels: Other labels to audit: `FILE[:COLUMN]`, or one class name a sample. None takes the source's own.
        names: Class names, where `labels` are class indices.
        model: Where the cache's model lies now, if it was moved; it is needed for prompts not embedded before.
        device: "auto", or a torch device that computes.
        progress: Called with the name of each stage.

    Raises:
        CacheError: the cache is missing, incomplete or damaged.
        SourceError: labels that do not fit; fewer than two classes; no readable image.
        PromptError, ModelError, UsageError: see their messages.
    """
    import torch

    config, report = config or AuditConfig(), progress or (lambda _: None)
    report("reading embeddings")
    store = EmbeddingsCache.open(Path(cache) if cache else find_cache())
    embeddings = store.read()
    if config.temperature == "model":
        config = replace(config, temperature=1 / store.info.logit_scale)
    class_names, indices = _labels(embeddings, labels, names)
    described = class_prompts(class_names, find_prompts(prompts, class_names)[0])
    report("embedding prompts")
    texts = _text_embeddings(store, described, model, device)
    report("estimating")
    readable = embeddings.readable
    vectors = embeddings.vectors if readable.all() else embeddings.vectors[readable]
    target = choose_device(device)
    scores = score(
        torch.from_numpy(vectors).to(target),
        torch.from_numpy(indices[readable]).to(target),
        len(class_names),
        torch.from_numpy(texts).to(target),
        described.owners,
        config,
    )
    report("selecting")
    decision = decide(scores.estimates, indices[readable], len(class_names), config)
    suggestion = (scores.suggested, scores.suggested_probability)
    root = store.info.root
    table = build_table(embeddings.table, root, indices, class_names, scores.estimates, suggestion, decision)
    declared = class_names == list(names or store.info.class_names or ())
    metadata = _metadata(store.info, config, class_names, declared, described, scores, indices[readable])
    return CleanIndex(table, metadata | {"labels": str(labels) if isinstance(labels, str | Path) else None})


def reselect(index: CleanIndex, config: AuditConfig) -> CleanIndex:
    """Decide again on the scores of an index, with other thresholds, selectors or combination.

    What a review said stays: `apply_marks` before or after `reselect` gives the same rows.

    Raises:
        UsageError: the configuration differs in something that the scores depend on.
    """
    held = index.config
    for name, value in config.to_dict().items():
        if name not in DECISION_FIELDS and value != getattr(held, name):
            raise UsageError(
                f"{name} decided about the scores and cannot be changed now ({getattr(held, name)} in the index)."
                " Run select on the embeddings cache again."
            )
    labels = index.scored_labels()[index.readable]
    decision = decide(index.estimates(), labels, len(index.class_names), config)
    return replace_decision(index, decision, config)


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
    marks = index.table["reviewed"]
    marked = index.readable & np.asarray(pc.is_valid(marks).to_numpy())
    kept = np.asarray(pc.fill_null(pc.not_equal(marks, "drop"), False).to_numpy())
    right = (kept & (index.labels() == index.scored_labels()))[marked]
    for kind, held in (("right", right), ("wrong", ~right)):
        if not held.any():
            raise UsageError(
                f"the review marked no {kind} label among the readable images. A threshold needs some of both kinds."
            )
    undecided = reselect(index, index.config.with_changes(threshold=AuditConfig.threshold))
    scores = undecided.table["clean_score"].to_numpy()[marked]
    return min(best_threshold(scores, right)[0], 1.0)


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


def _labels(
    embeddings: Embeddings, labels: str | Path | Sequence[str] | None, names: Sequence[str] | None
) -> tuple[list[str], NDArray[np.int64]]:
    """Class names and (n,) class indices of the labels to audit."""
    info = embeddings.info
    declared = names or info.class_names
    if labels is None:
        values = embeddings.table["label"].combine_chunks()
    elif isinstance(labels, str | Path):
        ids = embeddings.table["id"].to_pylist()
        values = pa.array(read_column(labels, ids, Path(info.root), names=declared).values)
    else:
        values = pa.array([str(label) for label in labels])
        if len(values) != len(embeddings.table):
            raise SourceError(
                f"there are {len(values):,} labels for {len(embeddings.table):,} samples. Give one a sample."
            )
    present = sorted(values.unique().to_pylist())
    class_names = list(declared) if declared and set(present) <= set(declared) else present
    if len(class_names) < 2:
        raise SourceError(f"all images have the label {present[0]!r}. An audit needs at least two classes.")
    if not embeddings.readable.any():
        raise SourceError(
            f"no image of {info.source} could be read. See the reasons with: clipaudit embed {info.source}"
        )
    indices = pc.index_in(values, pa.array(class_names))
    return class_names, np.asarray(indices.to_numpy(zero_copy_only=False), np.int64)


def _text_embeddings(
    store: EmbeddingsCache, prompts: ClassPrompts, model: str | None, device: str
) -> NDArray[np.float32]:
    """(P, d) embeddings of the prompts, from the cache where they were needed before."""
    fingerprint = store.info.fingerprint
    key = blake2b("\0".join([fingerprint.digest, *prompts.texts]).encode(), digest_size=16).hexdigest()
    folder, shape = store.path / "text", (len(prompts.texts), fingerprint.dimension)
    if (held := read_texts(folder, key, shape)) is not None:
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
    write_texts(folder, key, texts)
    return texts


def _metadata(
    info: CacheInfo,
    config: AuditConfig,
    class_names: list[str],
    declared: bool,
    prompts: ClassPrompts,
    scores: Scores,
    labels: NDArray[np.int64],
) -> dict[str, Any]:
    return {
        "clipaudit": __version__,
        "config": config.to_dict(),
        "class_names": class_names,
        "declared_classes": declared,
        "model": asdict(info.fingerprint),
        "source": info.source,
        "root": info.root,
        "image_column": info.image_column,
        "prompts": {"source": prompts.source, "texts": list(prompts.texts), "owners": list(prompts.owners)},
        "mixtures": {
            name: {field: _plain(values) for field, values in vars(mixture).items()}
            for name, mixture in scores.mixtures.items()
        },
        "warnings": _warnings(class_names, prompts, scores, labels),
    }


def _plain(values: NDArray[Any]) -> list[Any]:
    """An array as lists, with None for NaN, which JSON has not."""
    plain: list[Any] = values.astype(object).tolist()
    return [_plain(np.asarray(row)) if isinstance(row, list) else None if row != row else row for row in plain]


def _warnings(class_names: list[str], prompts: ClassPrompts, scores: Scores, labels: NDArray[np.int64]) -> list[str]:
    """What a user should know before trusting the result."""
    counts = np.bincount(labels, minlength=len(class_names))
    warnings = []
    if absent := [name for name, count in zip(class_names, counts, strict=True) if count == 0]:
        warnings.append(f"no readable image has the label {_some(absent)}")
    if prompts.plain and prompts.source != "plain templates":
        warnings.append(
            f"prompt set {prompts.source!r} has no features for {_some(prompts.plain)}: plain templates used"
        )
    if prompts.source == "plain templates":
        warnings.append(
            "no prompt set: plain templates used for all classes; features make the zero-shot estimate better"
        )
    for name, mixture in scores.mixtures.items():
        kept = [class_names[k] for k in np.flatnonzero(mixture.abstained & (counts > 0))]
        if kept:
            estimate = name.replace("_", "-")
            warnings.append(
                f"the {estimate} losses of {_some(kept)} have nothing to split: that selector keeps them all"
            )
    if not scores.converged:
        warnings.append("the logistic regression stopped before its optimum; its probabilities may be off")
    return warnings


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:NAMES_IN_A_WARNING]))
    more = len(names) - NAMES_IN_A_WARNING
    return f"{shown} and {more} more" if more > 0 else shown
