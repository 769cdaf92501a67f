"""Embeddings of texts by a cache's model, kept with the cache: the model is loaded for those not embedded before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.clip.encoders import Encoder, EncoderOptions, load_encoder
from clipaudit.errors import CacheError


class TextSide(Protocol):
    """What texts mean to a model of images and texts."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(P, d) unit rows for P texts; raises ModelError, CacheError."""
        ...


class LoadedTexts:
    """A model that is loaded; nothing is kept."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(P, d) unit rows for P texts."""
        return self.encoder.encode_texts(texts)


class Texts:
    """What texts mean to the model of a cache."""

    def __init__(self, store: EmbeddingsCache, model: str | None, device: str, encoder: Encoder | None = None) -> None:
        """Nothing is loaded yet.

        Args:
            store: The cache.
            model: Where its model lies now, if it was moved.
            device: "auto", or a torch device that computes.
            encoder: The model, where it is loaded already.
        """
        self._store, self._model, self._device, self._loaded = store, model, device, encoder

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(P, d) unit rows for P texts, from the cache where they were needed before.

        Raises:
            ModelError: the model cannot be loaded.
            CacheError: it is another one.
        """
        if (held := self._store.read_texts(texts)) is not None:
            return held
        embeddings = self._encoder.encode_texts(texts)
        self._store.write_texts(texts, embeddings)
        return embeddings

    @cached_property
    def _encoder(self) -> Encoder:
        if self._loaded is not None:
            return self._loaded
        fingerprint = self._store.info.fingerprint
        options = EncoderOptions(
            model=self._model or fingerprint.model,
            revision=fingerprint.revision or None,
            device=self._device,
            precision=fingerprint.precision,
        )
        encoder = load_encoder(options)
        if encoder.fingerprint.weights != fingerprint.weights:
            raise CacheError(
                f"the model {options.model} has other weights than the one that {self._store.path} was made with."
                " Name the right one with --model, or embed again."
            )
        return encoder
