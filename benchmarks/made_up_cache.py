"""Made-up embeddings caches of any size, for what takes long with many images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipaudit.cache.embeddings import EmbeddingsCache, split_into_parts
from clipaudit.cache.info import CacheInfo, Fingerprint
from clipaudit.cache.parts import ImageFacts
from clipaudit.copies.hashes import ImageHashes
from clipaudit.prompts.nouns import everyday_nouns, noun_text
from clipaudit.prompts.sets import class_prompts
from clipaudit.samples.base import Sample

DIMENSION, N_COPIES, WRONG = 512, 1_000, 0.2
# What an image adds to its class's direction, and a copy to its original.
SPREAD, SHIFT = 1.5, 0.05


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """The same rows with length one."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_cache(folder: Path, n: int, n_classes: int) -> None:
    """A cache of n made-up images, in clusters of their classes; a fifth has another label, some are there twice."""
    generator = np.random.default_rng(0)
    names = [f"class {k:04}" for k in range(n_classes)]
    centres = unit(generator.standard_normal((n_classes, DIMENSION)))
    fingerprint = Fingerprint("made-up", "", "made-up", {}, "float32", DIMENSION)
    store = EmbeddingsCache(folder, CacheInfo(fingerprint, 100.0, str(folder), str(folder), class_names=names))
    planted = 0
    for samples in split_into_parts(_samples(names, n, generator)):
        true = np.array([sample.size for sample in samples])
        vectors = unit(centres[true] + SPREAD / DIMENSION**0.5 * generator.standard_normal((len(true), DIMENSION)))
        looks = generator.integers(0, 1 << 63, len(true), dtype=np.uint64)
        again = np.arange(1, len(true), 10)[: N_COPIES - planted]
        planted += len(again)
        noise = SHIFT / DIMENSION**0.5 * generator.standard_normal((len(again), DIMENSION))
        vectors[again], looks[again] = unit(vectors[again - 1] + noise), looks[again - 1]
        facts = [ImageFacts(ImageHashes(generator.bytes(16), generator.bytes(16), int(look)), None) for look in looks]
        name = store.part_name(samples)
        store.write_part(name, samples, vectors.astype(np.float16), [None] * len(samples), facts)
        store.info.plan.append((name, len(samples)))
    store.save()
    prompts = class_prompts(names, None)
    store.write_texts(prompts.texts, centres[list(prompts.owners)])
    nouns = [noun_text(noun) for noun in everyday_nouns([])]
    store.write_texts(nouns, unit(generator.standard_normal((len(nouns), DIMENSION))))


def _samples(names: list[str], n: int, generator: np.random.Generator) -> Iterator[Sample]:
    """Samples whose size tells their true class; a fifth has another label."""
    for number in range(n):
        true = int(generator.integers(len(names)))
        shift = int(generator.integers(1, len(names))) if generator.random() < WRONG else 0
        yield Sample(f"{number:09}", names[(true + shift) % len(names)], true, 0)
