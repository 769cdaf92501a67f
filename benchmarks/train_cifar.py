"""Training on the clean subset of CIFAR-10's noisy labels: methods, noise, clean subsets, seeds, thresholds.

    python -m benchmarks.train_cifar [--cache CACHE] [--recipe fast] [--noises label_instance_0.4] [--seeds 0 1 2] ...

CACHE holds the 50,000 training images, from `clipaudit embed ../shared/data/cifar10/train.parquet`; without it, they
are embedded by the reference CLIP. That CLIP has seen CIFAR-10's test images, so that accuracy is measured on 5,000
training images which are held out, with their true labels, after the last epoch. Nothing is chosen on them.

Every run is a row of the JSON file as soon as it has ended. What the file holds is not trained again, and a run that
was interrupted goes on in the folder WORK. Prints a Markdown table of the means over seeds.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import clipaudit
from benchmarks.human_noise import label_columns
from clipaudit.files import write_atomically
from clipaudit.index.clean_index import CleanIndex

# Each with the changes to the recipe that make it.
CONTENDERS: Mapping[str, Mapping[str, Any]] = {
    "ce-all": {"method": "ce-all"},
    "ce": {"method": "ce"},
    "mixfix": {"method": "mixfix"},
    "mixfix --co-training": {"method": "mixfix", "co_training": True},
    "dividemix": {"method": "dividemix"},
}
THRESHOLDS = (0.7, 0.8, 0.9)
# The paper's Fig. 3: both thresholds of eq. 7, of which the second is at least the first.
GRID: Mapping[str, Mapping[str, Any]] = {
    f"mixfix, {low:g}/{high:g}": {"method": "mixfix", "theta_r": low, "theta_r_prime": high}
    for low, high in product(THRESHOLDS, THRESHOLDS)
    if low <= high
}
NOISES = ("label_instance_0.4", "label_human_random1", "symmetric_0.5", "symmetric_0.8", "asymmetric_0.4")
HELD_OUT = 5_000


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        noise, preset, recipe, contender, seed: What was trained.
        samples: How many of the others than those that are held out; None for all.
        changes: How it differs from the recipe, but for what makes the contender.
        n_clean: Size of the clean subset.
        seconds: Of the call that ended it, with the reading of images; an interrupted run took longer.
        images_per_second: Trained on.
        history: Rows of the run's metrics.jsonl; "test_accuracy" is that on the held-out images.
    """

    noise: str
    preset: str
    recipe: str
    contender: str
    seed: int
    samples: int | None
    changes: Mapping[str, Any]
    n_clean: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    history: Sequence[Mapping[str, Any]] = ()

    @property
    def setting(self) -> str:
        """The recipe, and how it was changed."""
        changed = {**({"samples": self.samples} if self.samples else {}), **self.changes}
        return ", ".join([self.recipe, *(f"{name} {value}" for name, value in changed.items())])

    @property
    def name(self) -> str:
        """What makes it another run."""
        return f"{self.noise}, {self.preset}, {self.setting}, {self.contender}, seed {self.seed}"


def read_rows(file: Path) -> list[Row]:
    """What was trained before."""
    return [Row(**row) for row in json.loads(file.read_text())] if file.exists() else []


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Keep them, a line each."""
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    write_atomically(file, f"[\n{lines}\n]\n".encode())


class Bench:
    """The data, and the audits of it in a folder."""

    def __init__(self, data: Path, work: Path, cache: Path | None, model: str, device: str) -> None:
        self._data, self._work, self._device = data, work, device
        made = [noise for noise in NOISES if not noise.startswith("label")]
        self._names, self._true, self._columns = label_columns(data, made)
        images = data / "cifar10" / "train.parquet"
        encoder = clipaudit.EncoderOptions(model, device=device)
        self._cache = cache or clipaudit.embed(images, cache=work / "cache", encoder=encoder).cache
        order = np.random.default_rng(0).permutation(len(self._true))
        self._held_out, self._others = np.sort(order[:HELD_OUT]), order[HELD_OUT:]
        self.test, self.truth = work / "held_out.parquet", work / "truth.parquet"
        if not self.test.exists():
            table = pq.read_table(images, columns=["image", "label"])
            pq.write_table(table.take(self._held_out), self.test)

    def _index(self, noise: str, preset: str, samples: int | None) -> CleanIndex:
        """The audit of all images with these labels, without those that are held out; or of some random ones."""
        file = self._work / f"{noise}-{preset}.parquet"
        if not file.exists():
            given = [self._names[k] for k in self._columns[noise]]
            config = clipaudit.preset(preset)
            clipaudit.select(self._cache, labels=given, config=config, device=self._device).write(file)
        whole = clipaudit.read_index(file)
        kept = np.sort(self._others[:samples])
        if not self.truth.exists():
            true = [self._names[k] for k in self._true]
            pq.write_table(pa.table({"id": whole.table["id"], "label": true}), self.truth)
        return CleanIndex(whole.table.take(kept), whole.metadata)

    def run(self, row: Row) -> Row:
        """Train what a row names; it goes on with what an interrupted call left."""
        index = self._index(row.noise, row.preset, row.samples)
        changes = {**row.changes, **{**CONTENDERS, **GRID}[row.contender]}
        config = clipaudit.recipe(row.recipe, **changes, seed=row.seed)
        images = 0

        def count(progress: clipaudit.TrainProgress) -> None:
            nonlocal images
            images += progress.done if progress.row else 0

        out, began = self._work / "runs" / re.sub(r"[^a-z0-9_.]+", "-", row.name), time.perf_counter()
        truth = f"{self.truth}:label"
        summary = clipaudit.train(
            index, out=out, config=config, test=self.test, truth=truth, device=self._device, progress=count
        )
        seconds = time.perf_counter() - began
        n_clean = int(index.is_clean.sum())
        return replace(
            row, n_clean=n_clean, seconds=seconds, images_per_second=images / seconds, history=summary.history
        )


def table(rows: Iterable[Row]) -> str:
    """The means over seeds, in Markdown."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.noise, row.preset, row.setting, row.contender), []).append(row)
    lines = [
        "| noise | clean subset | recipe | method | seeds | accuracy | minutes | images/s |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    for place, mine in groups.items():
        accuracies = [100 * row.history[-1]["test_accuracy"] for row in mine]
        spread = f" ± {np.std(accuracies, ddof=1):.2f}" if len(mine) > 1 else ""
        minutes, rate = np.mean([row.seconds / 60 for row in mine]), np.mean([row.images_per_second for row in mine])
        cells = [*place, str(len(mine)), f"{np.mean(accuracies):.2f}{spread}"]
        lines.append(f"| {' | '.join(cells)} | {minutes:.0f} | {rate:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is wanted and not there yet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--model", default=str(Path(__file__).parent / "reference_clip"))
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=NOISES[:1], metavar="NOISE")
    parser.add_argument("--presets", nargs="+", choices=list(clipaudit.PRESETS), default=["cifar"], metavar="PRESET")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--methods", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="METHOD")
    parser.add_argument("--grid", action="store_true", help="the thresholds of eq. 7 in place of the methods")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, help="train on so many of the 45,000")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    parser.add_argument("--width", type=int, help="in place of the recipe's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, default=Path("training-cifar.json"))
    parser.add_argument("--work", type=Path, default=Path("training-cifar"))
    given = parser.parse_args()
    changes = {name: value for name in ("epochs", "width") if (value := getattr(given, name)) is not None}
    given.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.data, given.work, given.cache, given.model, given.device)
    rows = read_rows(given.json)
    contenders = list(GRID) if given.grid else given.methods
    for seed, noise, preset, contender in product(given.seeds, given.noises, given.presets, contenders):
        row = Row(noise, preset, given.recipe, contender, seed, given.samples, changes)
        if row.name in {known.name for known in rows}:
            continue
        rows.append(bench.run(row))
        write_rows(given.json, rows)
        print(f"{row.name}: {rows[-1].history[-1]['test_accuracy']:.2%}", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
