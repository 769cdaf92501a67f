"""All methods on CIFAR-10 with 40 % instance-dependent noise, from the same clean subset.

    python -m benchmarks.train_cifar --model MODEL [--epochs 300] [--data ../shared/data] [--json FILE]

The clean subset comes from an audit with the CLIP model MODEL (a folder or a hub id), from `--index FILE` that an
earlier audit wrote, or, where no CLIP model is at hand, from `--simulate PRECISION RECALL`: a random subset with that
precision and recall against the true labels, which is no audit and says nothing about one. `--samples`,
`--test-images`, `--width` and `--epochs` make a run shorter; the table says what was run. Accuracy is that of the last
epoch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import clipaudit
from clipaudit.index import CleanIndex

CONTENDERS = {
    "ce-all": {"method": "ce-all"},
    "ce": {"method": "ce"},
    "mixfix": {"method": "mixfix"},
    "mixfix --co-training": {"method": "mixfix", "co_training": True},
    "dividemix": {"method": "dividemix"},
}


def simulate(data: Path, column: str, n: int, precision: float, recall: float) -> CleanIndex:
    """An index of the first n training images whose clean subset is drawn with the given precision and recall."""
    noise = pq.read_table(data / "cifar10" / "noise.parquet").slice(0, n)
    labels, truth = (np.array(noise[name].to_pylist()) for name in (column, "label_true"))
    right, generator = labels == truth, np.random.default_rng(0)
    wanted = {True: recall, False: recall * (1 - precision) / precision * right.sum() / (~right).sum()}
    clean = generator.random(n) < np.where(right, wanted[True], wanted[False])
    table = pa.table(
        {
            "id": [f"train.parquet#{row}" for row in range(n)],
            "label": pa.array(labels).dictionary_encode(),
            "is_clean": clean,
            "status": ["ok"] * n,
        }
    )
    root = str((data / "cifar10").resolve())
    names = sorted(set(truth.tolist()))
    return CleanIndex(table, {"class_names": names, "source": root, "root": root, "image_column": "image"})


def audit(data: Path, column: str, model: str, device: str, folder: Path) -> CleanIndex:
    """The audit's index of all 50,000 training images."""
    encoder = clipaudit.EncoderOptions(model, device=device)
    cache = clipaudit.embed(data / "cifar10" / "train.parquet", cache=folder / "cache", encoder=encoder).cache
    config = clipaudit.AuditConfig(**clipaudit.PRESETS["cifar"])
    return clipaudit.select(cache, config=config, labels=f"{data}/cifar10/noise.parquet:{column}", device=device)


def test_images(data: Path, n: int, folder: Path) -> Path:
    """A random part of the test set, which is sorted by class."""
    table = pq.read_table(data / "cifar10" / "test.parquet")
    rows = np.sort(np.random.default_rng(0).permutation(table.num_rows)[:n])
    pq.write_table(table.take(rows), folder / "test.parquet")
    return folder / "test.parquet"


def main() -> None:
    """Train each contender and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--labels", default="label_instance_0.4")
    parser.add_argument("--model")
    parser.add_argument("--index", type=Path)
    parser.add_argument("--simulate", type=float, nargs=2, metavar=("PRECISION", "RECALL"))
    parser.add_argument("--methods", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--samples", type=int, default=50_000, help="with --simulate: the first so many images")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not (options.model or options.index or options.simulate):
        parser.error("name the clean subset: --model, --index or --simulate")
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name), {}
        if options.simulate:
            index = simulate(options.data, options.labels, options.samples, *options.simulate)
        elif options.model:
            index = audit(options.data, options.labels, options.model, options.device, folder)
        else:
            index = clipaudit.read_index(options.index)
        test = test_images(options.data, options.test_images, folder)
        for contender in options.methods:
            config = clipaudit.recipe("cifar", epochs=options.epochs, width=options.width, **CONTENDERS[contender])
            began, images = time.perf_counter(), 0

            def count(progress: clipaudit.TrainProgress) -> None:
                nonlocal images
                images += progress.done if progress.row else 0

            run = folder / contender.replace(" ", "")
            summary = clipaudit.train(index, out=run, config=config, test=test, device=options.device, progress=count)
            rate = images / (time.perf_counter() - began)
            results[contender] = {"accuracy": summary.history[-1]["test_accuracy"], "images_per_second": rate}
    clean = f"{int(index.is_clean.sum()):,} of {len(index):,} clean"
    where = f"{options.epochs} epochs, width {options.width}, {summary.device} in {summary.precision}"
    title = f"CIFAR-10, {options.labels}, {clean}{' (simulated)' if options.simulate else ''}; {where}"
    table = Table("method", "test accuracy", "images/s", title=title, title_justify="left")
    for contender, result in results.items():
        table.add_row(contender, f"{result['accuracy']:.2%}", f"{result['images_per_second']:,.0f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"setting": title, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
