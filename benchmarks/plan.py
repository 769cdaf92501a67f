"""How fast `embed` plans, and how long a start takes that has nothing to do.

    python -m benchmarks.plan [--images 1000000] [--classes 1000]

The images are hard links to a few pictures, in class folders and listed by a manifest; the cache is complete and holds
made-up vectors in the geometry of the reference model. Each start is `clipaudit.embed` in a process of its own, and its
stages are timed by their reports of progress. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import clipaudit
from clipaudit.cache.embeddings import EmbeddingsCache, split_into_parts
from clipaudit.cache.info import CacheInfo
from clipaudit.cache.parts import ImageFacts
from clipaudit.clip.encoders import load_encoder
from clipaudit.copies.hashes import ImageHashes
from clipaudit.samples import open_source

# ext4 allows 65,000 links to a file.
LINKS = 50_000
# A plan of files that were written just before is made again.
SETTLED_AFTER = 3
PHOTOS = "photos"
MODEL = clipaudit.EncoderOptions(str(Path(__file__).parent / "reference_clip"), device="cpu", precision="float32")


def write_images(root: Path, n: int, n_classes: int) -> None:
    """Class folders with n links in all, and `images.csv`, which lists them."""
    generator, classes = np.random.default_rng(0), root / PHOTOS
    for k in range(n_classes):
        (classes / f"class {k:04}").mkdir(parents=True)
    with (root / "images.csv").open("w") as table:
        table.write("path,label\n")
        for number in range(n):
            if number % LINKS == 0:
                original = root / f"{number:08}.png"
                Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(original)
            name = f"class {number % n_classes:04}"
            os.link(original, classes / name / f"{number:08}.png")
            table.write(f"{PHOTOS}/{name}/{number:08}.png,{name}\n")


def write_cache(source: Path, folder: Path) -> None:
    """A complete cache of the source, as if its images had been embedded."""
    model, opened, generator = load_encoder(MODEL), open_source(source), np.random.default_rng(0)
    info = CacheInfo(model.fingerprint, model.logit_scale, str(opened.location), str(opened.root), access="files")
    store = EmbeddingsCache(folder, info)
    for samples in split_into_parts(opened.samples()):
        vectors = generator.standard_normal((len(samples), model.fingerprint.dimension))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        facts = [ImageFacts(ImageHashes(generator.bytes(16), generator.bytes(16), 1), None) for _ in samples]
        name = store.part_name(samples)
        store.write_part(name, samples, vectors.astype(np.float16), [None] * len(samples), facts)
        store.info.plan.append((name, len(samples)))
    store.save()


def start(source: Path, folder: Path) -> None:
    """A start in this process; prints a row of the table."""
    marks: dict[str, list[tuple[float, int]]] = {}
    began = time.perf_counter()
    summary = clipaudit.embed(
        source,
        cache=folder,
        encoder=MODEL,
        progress=lambda now: marks.setdefault(now.stage, []).append((time.perf_counter(), now.done)),
    )
    ended = time.perf_counter()
    assert not summary.n_embedded
    stage = list(marks)[-1]
    (first, done), (last, total) = marks[stage][0], marks[stage][-1]
    loaded = marks["loading the model"][0][0]
    rate = (total - done) / max(last - first, 1e-9)
    print(f"| {source.name} | {stage} | {rate:,.0f} | {ended - began:.1f} | {loaded - began:.1f} |", flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--start", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        start(*given.start)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, given.images, given.classes)
        time.sleep(SETTLED_AFTER)
        print("| source | looked at it by | samples/s | start s | of these, opening the source s |", flush=True)
        print("|---|---|---:|---:|---:|", flush=True)
        for source in (root / PHOTOS, root / "images.csv"):
            cache = root / "cache" / source.name
            write_cache(source, cache)
            for _ in range(given.starts):
                command = [sys.executable, "-m", "benchmarks.plan", "--start", str(source), str(cache)]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
