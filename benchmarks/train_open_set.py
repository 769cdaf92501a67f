"""Training with strangers kept out, or absorbed and relabelled like any other image.

    python -m benchmarks.train_open_set [--samples 4000] [--epochs 10] [--width 16] [--seeds 2] [--work FOLDER]

SAMPLES images of CIFAR-10 keep the label of one human annotator (17.2 % wrong), but 40 % of them are replaced by images
of Tiny ImageNet that show none of its classes. `select --preset recommended` audits them with the reference CLIP, and
MixFix trains on the index with and without `--off-topic`, with the same number of steps. Accuracy is that of the last
epoch, on 5,000 other images with their true labels. Runs in FOLDER are resumed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import clipaudit
from benchmarks.open_set import EXCLUDED
from clipaudit.index.clean_index import CleanIndex

REPOSITORY = Path(__file__).parents[1]
RATE, HELD_OUT = 0.4, 5_000


def mixed(data: Path, samples: int, work: Path) -> tuple[Path, Path]:
    """Parquet files of the images to train on and of those held out."""
    order = np.random.default_rng(0).permutation(50_000)[: samples + HELD_OUT]
    images = pq.read_table(data / "cifar10" / "train.parquet", columns=["image", "label"]).take(order)
    labels = pq.read_table(data / "cifar10" / "noise.parquet")["label_human_random1"].take(order)
    pq.write_table(images.slice(samples), work / "held_out.parquet")
    tiny = pq.read_table(data / "tinyimagenet32" / "train.parquet", columns=["image", "label_words"])
    allowed = [word.split(", ")[0] not in EXCLUDED for word in tiny["label_words"].to_pylist()]
    n = round(RATE * samples)
    strangers = tiny.take(np.random.default_rng(0).permutation(np.flatnonzero(allowed))[:n])["image"].to_pylist()
    kept = images["image"].slice(n, samples - n).to_pylist()
    shown = [{"bytes": image["bytes"], "path": f"{row}.jpg"} for row, image in enumerate(strangers + kept)]
    pq.write_table(pa.table({"image": shown, "label": labels.slice(0, samples)}), work / "train.parquet")
    return work / "train.parquet", work / "held_out.parquet"


def audited(images: Path, work: Path) -> CleanIndex:
    """The audit's index, embedded and selected."""
    encoder = clipaudit.EncoderOptions(str(Path(__file__).parent / "reference_clip"))
    cache = clipaudit.embed(images, cache=work / "cache", encoder=encoder).cache
    return clipaudit.select(cache, config=clipaudit.preset("recommended"))


def main() -> None:
    """Train and print one row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=Path("train-open-set"))
    parser.add_argument("--samples", type=int, default=4_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    images, held_out = mixed(options.data, options.samples, options.work)
    index = audited(images, options.work)
    stranger = np.arange(len(index)) < round(RATE * len(index))
    print(f"{index.off_topic.sum():,} called strangers; of {stranger.sum():,}, {index.off_topic[stranger].sum():,} are")
    print("| strangers | seed | accuracy | absorbed | relabelled |\n|---|---:|---:|---:|---:|")
    for seed in range(options.seeds):
        for off_topic in (False, True):
            changes = {"epochs": options.epochs, "width": options.width, "seed": seed, "off_topic": off_topic}
            run = options.work / f"{'with' if off_topic else 'without'}-{seed}"
            config = clipaudit.recipe("cifar", **changes)
            last = clipaudit.train(index, out=run, config=config, test=held_out).history[-1]
            found = f"{last['test_accuracy']:.1%} | {last['absorbed']:,} | {last['relabelled']:,}"
            print(f"| {'as any other' if off_topic else 'kept out'} | {seed} | {found} |", flush=True)


if __name__ == "__main__":
    main()
