"""What an audit looks at: the vectors of a cache, or arrays; and what embeds texts among them, if anything does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.cache.embeddings import Embeddings, EmbeddingsCache
from clipaudit.cache.info import CacheInfo, Fingerprint
from clipaudit.cache.parts import FACTS
from clipaudit.calls.embed import CACHE_HOME
from clipaudit.calls.own_vectors import NO_SCALE
from clipaudit.clip.texts import LoadedTexts, Texts, TextSide
from clipaudit.errors import CacheError, SourceError, UsageError
from clipaudit.samples.base import FILES
from clipaudit.samples.values import is_missing, text_of
from clipaudit.spelling import MAX_CLASSES
from clipaudit.text import excerpt
from clipaudit.vectors import unit_rows
from clipaudit.vectors.rows import check_dimension, rows_at_once
from clipaudit.vectors.source import NO_LABEL

# A numpy array or a torch tensor, whose library is imported for no name alone; `material_of` refuses others.
Array: TypeAlias = Any
ARRAYS = "arrays in memory"


@dataclass(frozen=True)
class Material:
    """What an audit looks at.

    Attributes:
        embeddings: Vectors, ids and labels.
        texts: What embeds texts among the vectors; None where nothing does.
        classes: (K, d) float32 unit rows, what the classes look like, in place of texts; None where there is none.
        temperature: The model's own T; None where there is no model of texts.
        cache: The cache that it is from; None for arrays.
        silence: Why zero-shot cannot speak, as part of a sentence; empty where it can.
    """

    embeddings: Embeddings
    texts: TextSide | None
    classes: NDArray[np.float32] | None
    temperature: float | None
    cache: Path | None
    silence: str


def material_of(
    vectors: str | Path | Array | None,
    ids: Iterable[Any] | None,
    class_embeddings: Array | None,
    model: str | None,
    device: str,
) -> Material:
    """What `select` was given: the folder of a cache (None: the only one), or an array with one row a sample.

    Raises:
        CacheError: the cache is missing, incomplete or damaged.
        SourceError: a vector that is not finite or all zeros.
        UsageError: something of another type or shape.
    """
    if class_embeddings is not None and model is not None:
        raise UsageError("give either model or class_embeddings: both say what the classes look like.")
    if class_embeddings is not None:
        class_embeddings = _numbers(class_embeddings, "class_embeddings", "class_embeddings must be ")
    if vectors is not None and not isinstance(vectors, str | Path):
        return _of_arrays(vectors, ids, class_embeddings, model, device)
    if ids is not None:
        raise UsageError("ids would have no effect: a cache has its own. They are for arrays.")
    store = EmbeddingsCache.open(vectors or find_cache())
    embeddings, fingerprint = store.read(), store.info.fingerprint
    classes = _class_rows(class_embeddings, fingerprint.dimension)
    texts = Texts(store, model, device) if fingerprint.has_texts and classes is None else None
    silence = "" if texts or classes is not None else "no model of texts was named when the vectors were embedded"
    return Material(embeddings, texts, classes, store.info.temperature if texts else None, store.path, silence)


def _of_arrays(
    vectors: object, ids: Iterable[Any] | None, class_embeddings: Array | None, model: str | None, device: str
) -> Material:
    array = _numbers(vectors, "embeddings", "cache must be the folder of a cache, or embeddings: ")
    n, dimension = array.shape
    rows, scaled, digest = np.empty((n, dimension), np.float16), 0, blake2b(digest_size=16)
    step = rows_at_once(dimension)
    for first in range(0, n, step):
        batch, other = unit_rows(array[first : first + step], lambda row: f"embeddings, row {row:,}", first)
        rows[first : first + step], scaled = batch, scaled + other
        digest.update(rows[first : first + step].tobytes())
    classes = _class_rows(class_embeddings, dimension)
    texts = None if model is None else _texts_of(model, device, dimension)
    encoder = texts.encoder if texts else None
    fingerprint = Fingerprint.of_own(digest.hexdigest(), dimension, encoder.fingerprint if encoder else None)
    info = CacheInfo(
        fingerprint,
        encoder.logit_scale if encoder else NO_SCALE,
        source=ARRAYS,
        # Ids may be paths of images, as the caller would open them.
        root=str(Path.cwd()),
        access=FILES,
        decided={"vectors": f"{dimension:,} numbers each" + (f"; {scaled:,} were normalised" if scaled else "")},
    )
    named = _checked_ids(ids, n)
    columns = {"id": named, "label": [NO_LABEL] * n, "status": ["ok"] * n}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    for name, kind in {"reason": pa.string(), **FACTS}.items():
        table = table.append_column(name, pa.nulls(n, kind))
    silence = "" if texts or classes is not None else "neither model nor class_embeddings were given"
    temperature = info.temperature if texts else None
    return Material(Embeddings(table, rows, info), texts, classes, temperature, None, silence)


def _texts_of(model: str, device: str, dimension: int) -> LoadedTexts:
    """The texts' side of a model; UsageError where they have other dimensions than the vectors."""
    from clipaudit.clip.encoders import EncoderOptions, load_encoder

    encoder = load_encoder(EncoderOptions(model=model, device=device))
    if encoder.fingerprint.dimension != dimension:
        raise UsageError(
            f"the embeddings have {dimension:,} numbers, the texts of {model} {encoder.fingerprint.dimension:,}: they"
            " do not belong together. Name the model that made the embeddings, or none."
        )
    return LoadedTexts(encoder)


def _class_rows(array: NDArray[Any] | None, dimension: int) -> NDArray[np.float32] | None:
    """(K, d) float32 unit rows; UsageError where they do not fit vectors of this dimension."""
    if array is None:
        return None
    if len(array) > MAX_CLASSES:
        raise UsageError(f"class_embeddings has {len(array):,} rows, more than {MAX_CLASSES:,} classes.")
    if array.shape[1] != dimension:
        raise UsageError(
            f"class_embeddings has rows of {array.shape[1]:,} numbers, the embeddings of {dimension:,}: they do not"
            " belong together."
        )
    return unit_rows(array, lambda row: f"class_embeddings, row {row:,}")[0]


def names_of_classes(labels: object, n_classes: int) -> list[str]:
    """What the rows of `class_embeddings` are called where nobody says: their numbers, if the labels are such.

    Raises:
        UsageError: the labels are names, so that nothing says which row is which class's.
    """
    listed = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(listed, list | tuple) and all(isinstance(label, Integral) for label in listed):
        return [str(number) for number in range(n_classes)]
    raise UsageError("class_embeddings need names: the class names in the order of their rows.")


def _numbers(given: object, name: str, wanted: str) -> NDArray[Any]:
    """An array of numpy or torch as numpy has it; UsageError where it is no (n, d) array of floating point numbers."""
    wanted += "a numpy array or torch tensor of floating point numbers of shape (n, d)"
    if hasattr(given, "detach") and hasattr(given, "cpu"):
        # numpy knows no bfloat16.
        tensor = given.detach().cpu()
        given = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    if not isinstance(given, np.ndarray):
        raise UsageError(f"{wanted}, not {type(given).__name__}.")
    if given.dtype.kind != "f" or given.dtype.itemsize > 8:
        raise UsageError(f"{wanted}, float16, float32 or float64, not of {given.dtype}.")
    if given.ndim != 2 or not given.size:
        raise UsageError(f"{wanted}, not of shape {given.shape}.")
    try:
        check_dimension(given.shape[1], name)
    except SourceError as error:
        raise UsageError(str(error)) from None
    return given


def _checked_ids(ids: Iterable[Any] | None, n: int) -> list[str]:
    """A text a sample; UsageError where one is missing, is none or comes twice."""
    if ids is None:
        return [str(number) for number in range(n)]
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise UsageError(f"ids must be a list with one id a sample, not {type(ids).__name__}.")
    listed, places = list(values), dict[str, int]()
    if len(listed) != n:
        raise UsageError(f"there are {len(listed):,} ids for {n:,} embeddings. Give one a sample.")
    for place, value in enumerate(listed):
        try:
            text = "" if is_missing(value) else text_of(str(value) if isinstance(value, Path) else value, "id", "ids")
        except SourceError as error:
            raise UsageError(f"ids, place {place:,}: {error}") from None
        if not text or "\0" in text:
            raise UsageError(f"ids, place {place:,}: {excerpt(value)} is no id. Use text or a whole number.")
        if text in places:
            raise UsageError(f"ids, place {place:,}: {excerpt(text)} stands at {places[text]:,} already.")
        places[text] = place
    return list(places)


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
