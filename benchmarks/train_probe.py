"""A probe on CIFAR-10's embeddings with published noisy labels, beside the zero-shot estimate of the same CLIP.

    python -m benchmarks.train_probe CACHE [--labels label_instance_0.4] [--samples N] [--data ../shared/data]

CACHE holds the 50,000 training images, from `clipaudit embed ../shared/data/cifar10/train.parquet`. A tenth of the
samples is set apart before the audit: no label of theirs is seen, and they judge the heads by their true labels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import clipaudit
from clipaudit.cache.embeddings import Embeddings, EmbeddingsCache
from clipaudit.index.clean_index import CleanIndex
from clipaudit.training.checkpoints import load_weights
from clipaudit.training.models import build
from clipaudit.training.run_folder import RunFolder

METHODS = ("ce-all", "ce", "mixfix")


def audit(embeddings: Embeddings, labels: pa.ChunkedArray, rows: NDArray[np.int64], folder: Path) -> CleanIndex:
    """Audit these rows alone, with the noisy labels; the cache is FOLDER/cache."""
    vectors = embeddings.vectors[rows]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table({"id": embeddings.table["id"].take(rows), "label": labels.take(rows), "embedding": column})
    pq.write_table(table, folder / "vectors.parquet")
    encoder = clipaudit.EncoderOptions(embeddings.info.fingerprint.model, device="cpu")
    clipaudit.embed(embeddings=folder / "vectors.parquet", cache=folder / "cache", encoder=encoder)
    return clipaudit.select(folder / "cache", config=clipaudit.preset("cifar"), device="cpu")


def logits_of_head(run: Path, vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """(m, K) logits of a run's last weights."""
    folder = RunFolder.open(run)
    head = build(folder.architecture).eval()
    load_weights(folder.last, folder, [head])
    with torch.no_grad():
        result: NDArray[np.float32] = head(torch.from_numpy(vectors).float()).numpy()
    return result


def zero_shot_logits(cache: Path, index: CleanIndex, vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """(m, K) mean cosine to the prompts of each class, as in the index's zero-shot estimate."""
    prompts = index.metadata.prompts
    texts = EmbeddingsCache.open(cache).read_texts(prompts.texts)
    owners = np.array(prompts.owners)
    means = np.stack([texts[owners == k].mean(axis=0) for k in range(len(index.class_names))])
    result: NDArray[np.float32] = vectors.astype(np.float32) @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    return result


def main() -> None:
    """Train each method and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--labels", default="label_instance_0.4")
    parser.add_argument("--samples", type=int, default=50_000, help="use so many of them")
    options = parser.parse_args()
    embeddings = EmbeddingsCache.open(options.cache).read()
    noise = pq.read_table(options.data / "cifar10" / "noise.parquet")
    order = np.random.default_rng(0).permutation(len(noise))[: options.samples]
    held_out, kept = np.sort(order[: len(order) // 10]), np.sort(order[len(order) // 10 :])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = audit(embeddings, noise[options.labels], kept, folder)
        truth = np.array(noise["label_true"].take(held_out).to_pylist())
        vectors, names = embeddings.vectors[held_out], np.array(index.class_names)

        def accuracy(logits: NDArray[np.float32]) -> str:
            return f"{(names[logits.argmax(axis=1)] == truth).mean():.2%}"

        table = Table("method", "accuracy", "seconds", title=f"{options.labels}, {index}", title_justify="left")
        table.add_row("zero-shot", accuracy(zero_shot_logits(folder / "cache", index, vectors)), "")
        for method in METHODS:
            began = time.perf_counter()
            config = clipaudit.recipe("probe", method=method)
            clipaudit.train(index, out=folder / method, config=config, embeddings=folder / "cache", device="cpu")
            seconds = time.perf_counter() - began
            table.add_row(method, accuracy(logits_of_head(folder / method, vectors)), f"{seconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
