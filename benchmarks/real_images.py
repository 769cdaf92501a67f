"""50,000 real images: killed and resumed, and read as Parquet, class folders and a manifest with the same result.

    python -m benchmarks.real_images [--data ../shared/data] [--model clipaudit/demo/model] [--work FOLDER]

The images are CIFAR-10's training split, the labels those of one human annotator (CIFAR-10N). The shipped model knows
digits only: what is shown here is that every form of a source gives the same index and that nothing is lost on the way,
not how good an audit is.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

import clipaudit
from clipaudit.demo import MODEL

NOISE = "label_human_random1"
console = Console(highlight=False)


def embed_command(source: Path, model: Path, cache: Path) -> list[str]:
    """The command line that embeds a source."""
    return [sys.executable, "-m", "clipaudit", "embed", str(source), "--model", str(model), "--cache", str(cache)]


def kill_and_resume(source: Path, model: Path, cache: Path) -> None:
    """Embed, killed with SIGKILL twice on the way; every finished part must outlive the kill."""
    kept: set[str] = set()
    for parts in (5, 15):
        process = subprocess.Popen(embed_command(source, model, cache), stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(cache.glob("parts/*.parquet"))) < parts:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = {file.name for file in cache.glob("parts/*.parquet")}
        if process.returncode != -signal.SIGKILL or not kept < now:
            raise SystemExit("the run was not killed on its way, or lost a part")
        kept = now
        console.print(f"killed (SIGKILL) with {len(kept)} finished parts")
    summary = clipaudit.embed(source, cache=cache, encoder=clipaudit.EncoderOptions(str(model)))
    lost = kept - {file.name for file in cache.glob("parts/*.parquet")}
    if lost or not summary.complete:
        raise SystemExit(f"{len(lost)} finished parts were lost")
    rate = summary.n_embedded / summary.seconds
    console.print(
        f"resumed: {summary.n_embedded:,} of {summary.n_samples:,} images left to embed, {rate:,.0f} images/s"
    )


def write_files(source: Path, folder: Path, labels: list[str]) -> None:
    """The images as FOLDER/LABEL/NUMBER.jpg and as a manifest of the same files, FOLDER/manifest.csv."""
    rows = []
    for number, image in enumerate(pq.read_table(source, columns=["image"])["image"].to_pylist()):
        path = folder / labels[number] / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image["bytes"])
        rows.append((path.relative_to(folder).as_posix(), labels[number]))
    rows.sort(key=lambda row: row[0].split("/"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CLIPAUDIT_DATA", "../shared/data")))
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--work", type=Path, help="folder for caches and files; a temporary one by default")
    options = parser.parse_args()
    source, noise = (options.data / "cifar10" / f"{name}.parquet" for name in ("train", "noise"))
    work = options.work or Path(tempfile.mkdtemp())
    kill_and_resume(source, options.model, work / "cache")

    labels = pq.read_table(noise, columns=[NOISE])[NOISE].to_pylist()
    write_files(source, work / "images", labels)
    by_number = []
    for name, files in (("folder", work / "images"), ("manifest", work / "images" / "manifest.csv")):
        encoder = clipaudit.EncoderOptions(str(options.model))
        summary = clipaudit.embed(files, cache=work / name, encoder=encoder)
        console.print(f"{name}: {summary.n_embedded:,} images, {summary.n_embedded / summary.seconds:,.0f} images/s")
        by_number.append(clipaudit.select(summary.cache))
    console.print(f"class folders and manifest give the same table: {by_number[0].table.equals(by_number[1].table)}")

    began = time.perf_counter()
    index = clipaudit.select(work / "cache", labels=f"{noise}:{NOISE}")
    seconds = time.perf_counter() - began
    numbers = [int(Path(name).stem) for name in by_number[0].table["id"].to_pylist()]
    same = index.is_clean[numbers] == by_number[0].is_clean
    console.print(f"Parquet rows and files give the same verdict on {np.mean(same):.3%} of the samples")
    evaluation = clipaudit.evaluate(index, f"{noise}:label_true")
    console.print(f"select took {seconds:.1f} s; overall: {json.dumps(evaluation.to_dict()['overall'])}")


if __name__ == "__main__":
    main()
