"""`pred_probs`: P(y|x) of every sample and class, which an index leaves out, for cleanlab and others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from clipaudit.auditing.method import fitted
from clipaudit.cache.embeddings import Embeddings, EmbeddingsCache
from clipaudit.calls.on_device import keys_of, readable_on
from clipaudit.clip.devices import choose_device, device_faults
from clipaudit.clip.texts import Texts
from clipaudit.errors import CacheError, UsageError
from clipaudit.files import write_atomically
from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.remote import is_remote, to_path
from clipaudit.text import excerpt
from clipaudit.vocabulary import EstimateTerm

if TYPE_CHECKING:
    import torch

    from clipaudit.estimates import Estimator, Vectors

# Beside the names of the estimates: the mean of several.
MEAN, INDUCED = "mean", "induced"
_NPY = ".npy"
Chunk = NDArray[np.float32]


@typed
def pred_probs(
    index: CleanIndex,
    out: str | Path | None = None,
    *,
    estimate: str = MEAN,
    cache: str | Path | None = None,
    model: str | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """P(y|x) of all samples and classes, by the estimates of an audit, fitted as there.

    Each row sums to 1. It is out-of-fold where the audit's configuration has folds. An estimate whose name ends in
    `_transition` takes the given label as evidence, too: tools such as cleanlab, which compare labels with
    probabilities, need one that does not.

    Args:
        index: From `select` or `read_index`: all samples of the cache, in their order. After a review, the labels given
            before it are fitted.
        out: A file to write, `.npy`; the array that is returned is read from it as it is needed. None keeps all in
            memory.
        estimate: One of the index's estimates, such as "zero_shot" or "logistic"; "induced", the mean of those that
            learn from the labels; or "mean", of all, by which labels are suggested.
        cache: The embeddings cache, if it is no longer where the audit found it.
        model: Where the cache's model lies now, if it was moved; it is needed for prompts not embedded before.
        device: "auto", or a torch device that computes.
        progress: Called with the number of samples done, and of all.

    Returns:
        (n, K) float32, classes in the order of `index.class_names`; NaN where the image could not be read.

    Raises:
        CacheError: the cache is missing or damaged, or holds other samples than the index.
        UsageError: there is no such estimate, the file's name ends otherwise, or the array does not fit into memory.
        ModelError, ClipAuditError: see their messages.
    """
    terms = _terms(index, estimate)
    if out is not None:
        check_file(out)
        index.check_output(out, [index.file])
    store, embeddings = _opened(index, cache)
    shape, report = (len(index), len(index.class_names)), progress or (lambda *_: None)
    texts = Texts(store, model, device).embed(index.metadata.prompts.texts)
    target = choose_device(device)
    with device_faults(target, "Close other programs that use it, or choose another --device."):
        chunks = _chunks(index, embeddings, texts, terms, target, report)
        if out is None:
            return _in_memory(chunks, shape)
        place = to_path(out)
        write_atomically(place, lambda file: _write(chunks, shape, file))
    # What lies on another machine cannot be mapped.
    written: Chunk = np.load(place.open("rb")) if is_remote(place) else np.load(place, mmap_mode="r")
    return written


def check_file(path: str | Path) -> None:
    """Refuse a name that is none of a NumPy array's file."""
    if Path(path).suffix.lower() != _NPY:
        raise UsageError(f"{path}: probabilities are a NumPy array, whose file ends in {_NPY}.")


def _terms(index: CleanIndex, name: str) -> Sequence[EstimateTerm]:
    """The estimates whose mean is wanted."""
    terms = index.config.estimates
    groups = {MEAN: terms, INDUCED: [term for term in terms if term.induced], **{term.name: [term] for term in terms}}
    if name not in groups:
        raise UsageError(f"the index has no estimate {excerpt(name)}. Choose one of: {', '.join(groups)}.")
    return groups[name]


def _opened(index: CleanIndex, cache: str | Path | None) -> tuple[EmbeddingsCache, Embeddings]:
    """The cache, after a check that it is what was audited."""
    if cache is None and (cache := index.metadata.decided.get("cache")) is None:
        raise UsageError("the index does not say which embeddings cache it was made from: name it.")
    store = EmbeddingsCache.open(cache)
    if store.info.fingerprint.digest != index.metadata.model.digest:
        difference = store.info.fingerprint.differences(index.metadata.model)
        raise CacheError(f"{store.path} holds embeddings of another model than the index's ({difference}).")
    embeddings = store.read()
    for name in ("id", "status"):
        if not embeddings.table[name].equals(index.table[name]):
            raise CacheError(
                f"{store.path} does not hold the samples of the index, in their order. Name the cache that it was made"
                " from, or run select again."
            )
    return store, embeddings


def _chunks(
    index: CleanIndex,
    embeddings: Embeddings,
    texts: NDArray[np.float32],
    terms: Sequence[EstimateTerm],
    device: torch.device,
    report: Callable[[int, int], None],
) -> Iterator[Chunk]:
    """The rows in their order, never many at once."""
    import torch

    from clipaudit.estimates import Problem
    from clipaudit.estimates.base import rows_at_once

    readable, config, first = embeddings.readable, index.config, index.first_copies
    vectors = readable_on(embeddings, device)
    problem = Problem(
        vectors,
        torch.from_numpy(index.scored_labels()[readable]).to(device),
        len(index.class_names),
        torch.from_numpy(texts).to(device),
        index.metadata.prompts.owners,
        config,
        keys_of(embeddings, config, device),
        None if first is None else torch.from_numpy(first).to(device),
    )
    estimators = [fitted(term, problem) for term in terms]
    row_bytes = max(estimator.row_bytes for estimator in estimators) + 12 * problem.n_classes
    size = rows_at_once(row_bytes, vectors.dimension)
    before = np.concatenate([[0], np.cumsum(readable)])
    for start in range(0, len(readable), size):
        stop = min(start + size, len(readable))
        chunk = np.full((stop - start, problem.n_classes), np.nan, np.float32)
        rows = torch.arange(int(before[start]), int(before[stop]), device=device)
        chunk[readable[start:stop]] = _mean(estimators, vectors, rows)
        yield chunk
        report(stop, len(readable))


def _mean(estimators: Sequence[Estimator], vectors: Vectors, rows: torch.Tensor) -> Chunk:
    """(m, K) of some readable samples."""
    embeddings = vectors.take(rows)
    first, *others = (estimator.log_proba(embeddings, rows).exp() for estimator in estimators)
    return np.asarray((sum(others, first) / len(estimators)).cpu().numpy())


def _in_memory(chunks: Iterator[Chunk], shape: tuple[int, int]) -> Chunk:
    try:
        result = np.empty(shape, np.float32)
    except MemoryError:
        raise UsageError(
            f"{shape[0]:,} x {shape[1]:,} probabilities do not fit into memory ({4e-9 * shape[0] * shape[1]:,.0f} GB)."
            " Name a file to write them to."
        ) from None
    start = 0
    for chunk in chunks:
        result[start : start + len(chunk)] = chunk
        start += len(chunk)
    return result


def _write(chunks: Iterator[Chunk], shape: tuple[int, int], file: BinaryIO) -> None:
    """What `np.save` writes, chunk by chunk."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for chunk in chunks:
        file.write(chunk.astype("<f4", copy=False).tobytes())
