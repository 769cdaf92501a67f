"""How large a report is, how long it takes to write, and how long a browser takes to open it.

    python -m benchmarks.report_speed [--samples 1000000] [--classes 1000]      # made-up scores, real pictures
    python -m benchmarks.report_speed --index clean.parquet                     # an audit of your own

The made-up audit has class folders of pictures of 256 x 192 pixels, only those that the report shows: enlarged pictures
of `../shared/data/tinyimagenet32`. The browser is Debian's Chromium, through Selenium
(`pip install 'clipaudit[bench]'`).
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

import clipaudit
from benchmarks.memory import peak_memory, reset_peak_memory
from clipaudit.auditing.method import EstimateScores, decide
from clipaudit.cache.info import Fingerprint
from clipaudit.index.building import Beside, build_table
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.metadata import IndexMetadata, MixtureFit, PromptsUsed
from clipaudit.report.choice import choose
from clipaudit.report.columns import read_columns
from clipaudit.selectors.base import Mixtures
from clipaudit.selectors.consistency import consistency
from clipaudit.selectors.mixture import split_losses

DATA = Path(__file__).parents[2] / "shared" / "data"
PICTURE = (256, 192)


def made_up_estimate(labels: NDArray[np.int64], true: NDArray[np.int64], k: int, seed: int) -> EstimateScores:
    """Probabilities like those of an estimate that is right most of the time."""
    generator, right = np.random.default_rng(seed), labels == true
    p_label = np.where(right, generator.beta(4, 2, len(labels)), generator.beta(1, 30, len(labels))).clip(1e-6, 0.999)
    prediction = np.where(right & (p_label > 0.3), labels, np.where(right, (labels + 1) % k, true))
    p_max = np.where(prediction == labels, p_label, p_label + generator.random(len(labels)) * (1 - p_label))
    log_p, log_max = np.log(p_label).astype(np.float32), np.log(p_max).astype(np.float32)
    split = split_losses(torch.from_numpy(-log_p), torch.from_numpy(labels), k)
    posterior, raw = split.posterior.numpy(), split.raw_posterior.numpy()
    ratio = consistency(log_p, log_max)
    scores = {"p_label": np.exp(log_p), "p_max": np.exp(log_max), "consistency": ratio, "loss": -log_p}
    return EstimateScores(prediction, scores | {"posterior": posterior, "raw_posterior": raw})


def made_up_index(n: int, k: int, root: Path) -> CleanIndex:
    """An index of n samples in k classes, a fifth of the labels wrong."""
    generator = np.random.default_rng(0)
    true = generator.integers(0, k, n)
    labels = np.where(generator.random(n) < 0.2, (true + generator.geometric(0.3, n)) % k, true)
    names = [f"class {number:04}" for number in range(k)]
    config = clipaudit.AuditConfig()
    estimates = {term.name: made_up_estimate(labels, true, k, seed) for seed, term in enumerate(config.estimates)}
    ids = [f"{names[label]}/{number:07}.jpg" for number, label in enumerate(labels.tolist())]
    samples = pa.table({"id": ids, "status": ["ok"] * n, "reason": pa.nulls(n, pa.string())})
    suggestion = (estimates["zero_shot"].prediction, estimates["zero_shot"]["p_max"])
    decision = decide(estimates, labels, k, config)
    table = build_table(samples, str(root), labels, names, estimates, suggestion, Beside(), decision, config)
    none, every = np.full((k, 2), np.nan), np.ones(k, bool)
    unsplit = MixtureFit.of(Mixtures(none, none, none, every, every))
    metadata = IndexMetadata(
        config=config,
        class_names=names,
        declared_classes=True,
        model=Fingerprint("made up", "", "", {}, "float32", 512),
        source=str(root),
        root=str(root),
        prompts=PromptsUsed("none", [], []),
        mixtures=dict.fromkeys(estimates, unsplit),
    )
    return CleanIndex(table, metadata)


def draw_pictures(index: CleanIndex, root: Path) -> None:
    """Write the pictures that the report will ask for."""
    source = pq.read_table(DATA / "tinyimagenet32" / "train.parquet", columns=["image"])["image"]
    columns, generator = read_columns(index), np.random.default_rng(0)
    for number, name in enumerate(columns.strings("id", choose(columns, 200, None).rows)):
        with Image.open(io.BytesIO(source[number % len(source)].as_py()["bytes"])) as small:
            picture = np.asarray(small.convert("RGB").resize(PICTURE, Image.Resampling.BICUBIC), np.float32)
        # Grain, without which an enlarged picture would compress better than a photograph.
        grained = (picture + generator.normal(0, 12, picture.shape)).clip(0, 255).astype(np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grained).save(root / name, quality=90)


def opening_seconds(page: Path, rounds: int = 3) -> float | None:
    """Median time until a browser has loaded the page; None where there is no browser."""
    driver_path = shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        return None
    if driver_path is None:
        return None
    # A named driver: without one, Selenium would look for it on the network.
    service = webdriver.ChromeService(driver_path)
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox"):
        options.add_argument(argument)
    with webdriver.Chrome(options=options, service=service) as driver:
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            driver.get(page.resolve().as_uri())
            seconds.append(time.perf_counter() - began)
    return sorted(seconds)[rounds // 2]


def main() -> None:
    """Write a report, open it, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        index = clipaudit.read_index(options.index) if options.index else None
        if index is None:
            index = made_up_index(options.samples, options.classes, root)
            draw_pictures(index, root)
        before, began = reset_peak_memory(), time.perf_counter()
        summary = clipaudit.write_report(index, root / "report.html")
        seconds, peak = time.perf_counter() - began, (peak_memory() - before) // 1024
        opening = opening_seconds(summary.path)
    print(f"{summary.n_samples:,} samples, {len(index.class_names):,} classes: {summary.n_shown:,} images,")
    print(f"{summary.n_bytes / 1e6:.1f} MB, written in {seconds:.1f} s, {peak:,} MB above the index;")
    print("no browser to open it" if opening is None else f"opens in {opening:.2f} s")


if __name__ == "__main__":
    main()
