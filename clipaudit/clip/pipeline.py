"""Images to parts of a cache: threads read and decode, the calling thread runs the model, one thread writes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clipaudit.cache.embeddings import EmbeddingsCache, Key
from clipaudit.cache.matrix import Vectors
from clipaudit.cache.parts import ImageFacts
from clipaudit.clip.encoders import Encoder, Pixels
from clipaudit.copies.hashes import image_hashes
from clipaudit.errors import ImageError, ModelError
from clipaudit.images.ahead import decoded_ahead
from clipaudit.images.quality import Measures
from clipaudit.samples.base import Images, Sample, read_sample

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EmbedProgress:
    """Where a run stands.

    Attributes:
        stage: "loading the model", "scanning" or "embedding".
        done: Samples dealt with so far.
        total: Samples that this run has to deal with (not those that the cache holds already); None while scanning.
        unreadable: How many of those done could not be read.
    """

    stage: str
    done: int = 0
    total: int | None = None
    unreadable: int = 0


Progress = Callable[[EmbedProgress], None]


@dataclass
class _Part:
    """A part on its way: `vectors`, `reasons` and `facts` fill up while its batches pass the model."""

    name: str
    samples: list[Sample]
    vectors: Vectors
    reasons: list[str | None]
    facts: list[ImageFacts | None]
    encoded: list[tuple[list[int], torch.Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class _Batch:
    """Rows of a part whose images go through the model together; `n_done` counts those known already, too."""

    part: _Part
    rows: list[int]
    n_done: int
    is_last: bool


# Why a sample is unreadable whose image could be decoded.
NOT_FINITE = "the model gave no finite embedding (NaN or infinity)"
Prepared = tuple[Pixels, ImageFacts]
Measurer = Callable[[bytes, Image.Image], Measures]
Decoded = tuple[_Batch, list[Prepared | ImageError]]


class Pipeline:
    """Fills a cache. After `run`, the counts and times tell what happened."""

    def __init__(
        self,
        store: EmbeddingsCache,
        source: Images,
        model: Encoder,
        reusable: Mapping[Key, tuple[Vectors, ImageFacts | None]],
        report: Progress,
        measure: Measurer | None,
    ) -> None:
        """Nothing is read yet.

        Args:
            store: The cache.
            source: Where the images are.
            model: What embeds them.
            reusable: Embeddings and facts that are known, by the sample's id, size and time.
            report: Called with every batch.
            measure: What tells the quality of an image; None where nobody asks.
        """
        self._store, self._source, self._model = store, source, model
        self._reusable, self._report, self._measure = reusable, report, measure
        self.n_embedded = self.n_reused = 0
        self.seconds = self.seconds_waiting = 0.0
        self.written: set[str] = set()

    def run(self, parts: Iterable[tuple[str, list[Sample]]], n_samples: int, workers: int) -> None:
        """Encode and write parts, each with its name; `n_samples` are in all of them, if none stays away."""
        progress = EmbedProgress("embedding", total=n_samples)
        self._report(progress)
        began = time.perf_counter()
        writer = ThreadPoolExecutor(1, "clipaudit-write")
        writing: deque[Future[None]] = deque()
        try:
            for batch, results in self._waited_for(decoded_ahead(self._batches(parts), self._prepare, workers)):
                unreadable = self._encode(batch, results)
                done, unreadable = progress.done + batch.n_done, progress.unreadable + unreadable
                progress = replace(progress, done=done, unreadable=unreadable)
                if batch.is_last:
                    # One part may wait for the disk: a slow one holds the model back, and memory stays bounded.
                    while len(writing) > 1:
                        writing.popleft().result()
                    writing.append(writer.submit(self._write, batch.part))
                self._report(progress)
            for future in writing:
                future.result()
        finally:
            writer.shutdown(cancel_futures=True)
            self.seconds = time.perf_counter() - began

    def _batches(self, parts: Iterable[tuple[str, list[Sample]]]) -> Iterator[tuple[_Batch, list[Sample]]]:
        for name, samples in parts:
            dimension = self._store.info.fingerprint.dimension
            part = _Part(
                name,
                samples,
                np.zeros((len(samples), dimension), np.float16),
                [None] * len(samples),
                [None] * len(samples),
            )
            rows = self._rows_to_encode(part)
            # Batches of equal size: a small last one would run the model at half its speed.
            count = max(1, -(-len(rows) // self._model.batch_size))
            for number, share in enumerate(np.array_split(np.asarray(rows, np.intp), count), start=1):
                is_last = number == count
                known = len(samples) - len(rows) if is_last else 0
                batch = _Batch(part, share.tolist(), len(share) + known, is_last)
                yield batch, [samples[row] for row in batch.rows]

    def _rows_to_encode(self, part: _Part) -> list[int]:
        """The rows whose embedding is not known yet; the known ones are filled in."""
        rows = []
        for row, sample in enumerate(part.samples):
            known = self._reusable.get((sample.id, sample.size, sample.modified))
            if known is None or (self._measure and not (known[1] and known[1].quality)):
                rows.append(row)
            else:
                part.vectors[row], part.facts[row] = known
                self.n_reused += 1
        return rows

    def _prepare(self, sample: Sample) -> Prepared:
        data = read_sample(self._source, sample)
        with self._model.opened(data) as image:
            quality = self._measure(data, image) if self._measure else None
            return self._model.prepare_image(image), ImageFacts(image_hashes(data, image), quality)

    def _waited_for(self, batches: Iterator[Decoded]) -> Iterator[Decoded]:
        """The same batches; the time until each is decoded counts as waiting."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waiting += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _encode(self, batch: _Batch, results: list[Prepared | ImageError]) -> int:
        """Hand the readable images to the model, note why the others are not; returns how many are not."""
        rows, pixels = [], []
        for row, result in zip(batch.rows, results, strict=True):
            if isinstance(result, ImageError):
                batch.part.reasons[row] = str(result)
            else:
                rows.append(row)
                pixels.append(result[0])
                batch.part.facts[row] = result[1]
        if pixels:
            if len({image.shape for image in pixels}) > 1:
                raise ModelError(
                    "the model's image processor gives images of different sizes, which cannot share a batch."
                    " Run again with --batch-size 1."
                )
            batch.part.encoded.append((rows, self._model.encode_images(np.stack(pixels))))
            self.n_embedded += len(rows)
        return len(batch.rows) - len(rows)

    def _write(self, part: _Part) -> None:
        for rows, features in part.encoded:
            # The first time that anything waits for the device: the model is already busy with the next part.
            vectors = features.cpu().numpy()
            for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
                part.reasons[rows[row]] = NOT_FINITE
                vectors[row] = 0
            part.vectors[rows] = vectors
        self._store.write_part(part.name, part.samples, part.vectors, part.reasons, part.facts)
        self.written.add(part.name)
