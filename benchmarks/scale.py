"""How long `select` takes, and how much memory, with the number of images.

    python -m benchmarks.scale [--samples 100000 1000000] [--classes 100]

Made-up caches: unit embeddings of 512 dimensions in clusters, one for each class; a fifth of the labels is another one,
and 1,000 images are there twice. Each size is audited in a process of its own. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import clipaudit
from benchmarks.memory import peak_memory, reset_peak_memory
from clipaudit.cache.embeddings import EmbeddingsCache, split_into_parts
from clipaudit.cache.info import CacheInfo, Fingerprint
from clipaudit.cache.parts import ImageFacts
from clipaudit.copies.hashes import ImageHashes
from clipaudit.index.copies import copies_in
from clipaudit.prompts.nouns import everyday_nouns, noun_text
from clipaudit.prompts.sets import class_prompts
from clipaudit.samples.base import Sample

DIMENSION, N_COPIES, WRONG = 512, 1_000, 0.2
# What an image adds to its class's direction, and a copy to its original.
SPREAD, SHIFT = 1.5, 0.05
STAGES = ("reading embeddings", "looking for copies", "estimating", "selecting")


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """The same rows with length one."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_cache(folder: Path, n: int, n_classes: int) -> None:
    """A cache of n made-up images."""
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


def audit(folder: Path, preset: str) -> None:
    """Audit a cache in this process; print a row of the table."""
    resident = reset_peak_memory()
    marks: dict[str, float] = {}
    began = time.perf_counter()
    index = clipaudit.select(
        folder,
        config=clipaudit.preset(preset),
        prompts="none",
        progress=lambda stage: marks.update({stage: time.perf_counter()}),
    )
    ended = time.perf_counter()
    peak = peak_memory() - resident
    starts = [*marks.values(), ended]
    seconds = dict(zip(marks, np.diff(starts), strict=True))
    copies = copies_in(index.table)
    n_copies = 0 if copies is None else copies.n_groups
    vectors = len(index) * DIMENSION * 2 / 1e9
    shown = " | ".join(f"{spent:.1f}" for spent in [*(seconds[stage] for stage in STAGES), ended - began])
    print(f"| {len(index):,} | {preset} | {shown} | {vectors:.2f} | {peak / 1e6:.2f} | {n_copies:,} |", flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--presets", nargs="+", default=["paper", "recommended"])
    parser.add_argument("--audit", nargs=2, metavar=("CACHE", "PRESET"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.audit:
        audit(Path(given.audit[0]), given.audit[1])
        return
    print(f"| images | preset | {' s | '.join(STAGES)} s | together s | vectors GB | peak GB | groups of copies |")
    print("|---:|---|" + "---:|" * (len(STAGES) + 4), flush=True)
    for n in given.samples:
        with tempfile.TemporaryDirectory() as folder:
            write_cache(Path(folder) / "cache", n, given.classes)
            for preset in given.presets:
                command = [sys.executable, "-m", "benchmarks.scale", "--audit", f"{folder}/cache", preset]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
