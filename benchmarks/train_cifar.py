"""All methods on CIFAR-10 with 40 % instance-dependent noise, from the same clean subset.

    python -m benchmarks.train_cifar [--model MODEL] [--recipe cifar] [--data ../shared/data] [--json FILE]

The clean subset comes from an audit of all 50,000 training images with the CLIP model MODEL (a folder or a hub id;
the reference CLIP, which `benchmarks.train_reference_clip` makes, by default), or from `--index FILE`, which an
earlier audit wrote. The reference CLIP has seen CIFAR-10's test images, so accuracy is measured on 5,000 training
images that are held out, with their true labels. `--samples`, `--width` and `--epochs` make a run shorter; the table
says what was run. Accuracy is that of the last epoch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import clipaudit
from clipaudit.index.clean_index import CleanIndex

CONTENDERS = {
    "ce-all": {"method": "ce-all"},
    "ce": {"method": "ce"},
    "mixfix": {"method": "mixfix"},
    "mixfix --co-training": {"method": "mixfix", "co_training": True},
    "dividemix": {"method": "dividemix"},
}


def audit(data: Path, column: str, model: str, preset: str, device: str, folder: Path) -> CleanIndex:
    """The audit's index of all 50,000 training images."""
    encoder = clipaudit.EncoderOptions(model, device=device)
    cache = clipaudit.embed(data / "cifar10" / "train.parquet", cache=folder / "cache", encoder=encoder).cache
    config = clipaudit.AuditConfig(**clipaudit.PRESETS[preset])
    return clipaudit.select(cache, config=config, labels=f"{data}/cifar10/noise.parquet:{column}", device=device)


def hold_out(data: Path, index: CleanIndex, n: int, samples: int | None, folder: Path) -> tuple[CleanIndex, Path]:
    """The index without n random samples, cut to `samples` random ones of the rest; and these n with true labels."""
    images = pq.read_table(data / "cifar10" / "train.parquet", columns=["image", "label"])
    order = np.random.default_rng(0).permutation(len(index))
    kept = np.sort(order[n:] if samples is None else order[n : n + samples])
    pq.write_table(images.take(np.sort(order[:n])), folder / "held_out.parquet")
    return CleanIndex(index.table.take(kept), index.metadata), folder / "held_out.parquet"


def main() -> None:
    """Train each contender and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--labels", default="label_instance_0.4")
    parser.add_argument("--model", default=str(Path(__file__).parent / "reference_clip"))
    parser.add_argument("--index", type=Path)
    parser.add_argument("--preset", choices=list(clipaudit.PRESETS), default="cifar")
    parser.add_argument("--methods", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--held-out", type=int, default=5_000)
    parser.add_argument("--samples", type=int, help="train on so many of the others")
    parser.add_argument("--recipe", choices=["cifar", "fast"], default="cifar")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--width", type=int, help="instead of the recipe's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name), {}
        if options.index:
            index = clipaudit.read_index(options.index)
        else:
            index = audit(options.data, options.labels, options.model, options.preset, options.device, folder)
        index, test = hold_out(options.data, index, options.held_out, options.samples, folder)
        for contender in options.methods:
            changes = {"epochs": options.epochs, "width": options.width, **CONTENDERS[contender]}
            config = clipaudit.recipe(options.recipe, **changes)
            began, images = time.perf_counter(), 0

            def count(progress: clipaudit.TrainProgress) -> None:
                nonlocal images
                images += progress.done if progress.row else 0

            run = folder / contender.replace(" ", "")
            summary = clipaudit.train(index, out=run, config=config, test=test, device=options.device, progress=count)
            rate = images / (time.perf_counter() - began)
            results[contender] = {"accuracy": summary.history[-1]["test_accuracy"], "images_per_second": rate}
    clean = f"{int(index.is_clean.sum()):,} of {len(index):,} clean"
    where = f"recipe {options.recipe}, {config.epochs} epochs, width {config.width}"
    where += f", {summary.device} in {summary.precision}"
    title = f"CIFAR-10, {options.labels}, {clean}; {where}; accuracy on {options.held_out:,} held-out images"
    table = Table("method", "accuracy", "images/s", title=title, title_justify="left")
    for contender, result in results.items():
        table.add_row(contender, f"{result['accuracy']:.2%}", f"{result['images_per_second']:,.0f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"setting": title, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
