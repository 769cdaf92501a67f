"""How long commands take, and how much memory, with the number of images; and what that says for many more.

    python -m benchmarks.scale [--samples 250000 500000] [--classes 100 1000] [--json FILE] [--work FOLDER]

Made-up caches: unit embeddings of 512 dimensions in clusters, one for each class; a fifth of the labels is another one,
and 1,000 images are there twice. `embed` starts on hard links to a few pictures, whose cache is complete, so that it
makes a plan, or finds it, and embeds nothing. Each command runs in a process of its own; its peak is that of the
resident memory (Linux), beyond what it holds with all libraries imported. A result is written to the JSON file as soon
as it is there, and what the file holds is not measured again, so that an interrupted run goes on. Prints Markdown
tables.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

import clipaudit
from benchmarks.made_up_cache import DIMENSION, write_cache
from benchmarks.memory import peak_memory, reset_peak_memory
from benchmarks.plan import MODEL, PHOTOS, SETTLED_AFTER, write_images
from benchmarks.plan import write_cache as write_embedded
from clipaudit.cache.info import CacheInfo
from clipaudit.files import write_atomically

FAR = (10_000_000, 100_000_000)


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        command: One of COMMANDS.
        n, n_classes: Of the cache.
        seconds: Of the call.
        peak_mb: Resident memory that it took at most, the embeddings included.
    """

    command: str
    n: int
    n_classes: int
    seconds: float
    peak_mb: float


def start(folder: Path) -> None:
    """A start of `embed` that has nothing to embed."""
    summary = clipaudit.embed(folder / PHOTOS, cache=folder / "photos-clip", encoder=MODEL)
    assert not summary.n_embedded


def plan(folder: Path) -> None:
    """The same before there is a plan."""
    (folder / "photos-clip" / "plan.parquet").unlink(missing_ok=True)
    start(folder)


def select(preset: str) -> Callable[[Path], None]:
    """An audit with a preset; its index is what the others work on."""

    def audit(folder: Path) -> None:
        index = clipaudit.select(folder / "cache", config=clipaudit.preset(preset), prompts="none")
        index.write(folder / "clean.parquet")

    return audit


def show(folder: Path) -> None:
    """What `clipaudit show` reads."""
    clipaudit.find_doubts(clipaudit.read_index(folder / "clean.parquet"))


def report(folder: Path) -> None:
    """The page, with true labels."""
    truth = f"{folder / 'truth.csv'}:truth"
    clipaudit.write_report(clipaudit.read_index(folder / "clean.parquet"), folder / "report.html", truth=truth)


def evaluate(folder: Path) -> None:
    """The audit beside true labels from a table."""
    clipaudit.evaluate(clipaudit.read_index(folder / "clean.parquet"), f"{folder / 'truth.csv'}:truth")


def apply(folder: Path) -> None:
    """Marks on a thousandth of the samples."""
    index, _ = clipaudit.apply_marks(clipaudit.read_index(folder / "clean.parquet"), folder / "marks.csv")
    index.write(folder / "reviewed.parquet")


# What is measured, in this order: a name and what it does in a folder that holds `cache`, `truth.csv`, `marks.csv`, and
# for the first two images. Other commands are a line here.
STARTS: Mapping[str, Callable[[Path], None]] = {"embed, making the plan": plan, "embed, nothing to do": start}
COMMANDS: Mapping[str, Callable[[Path], None]] = {
    **STARTS,
    "select --preset recommended": select("recommended"),
    "select": select("paper"),
    "show": show,
    "report --truth": report,
    "evaluate": evaluate,
    "apply": apply,
}


def prepare(folder: Path, n: int, n_classes: int) -> None:
    """A cache with tables of true labels and marks beside it."""
    write_cache(folder / "cache", n, n_classes)
    names, ids = CacheInfo.read(folder / "cache").class_names, [f"{number:09}" for number in range(n)]
    assert names is not None
    true = np.random.default_rng(1).integers(0, n_classes, n)
    labels = pa.DictionaryArray.from_arrays(pa.array(true), pa.array(list(names))).cast(pa.string())
    pa.csv.write_csv(pa.table({"id": ids, "truth": labels}), folder / "truth.csv")
    marked = ids[::1000]
    marks = {"id": marked, "mark": ["drop"] * len(marked), "label": [""] * len(marked)}
    pa.csv.write_csv(pa.table(marks), folder / "marks.csv")


def measured(command: str, folder: Path) -> None:
    """Run a command in this process; print seconds and peak as JSON."""
    import torch  # noqa: F401

    held, began = reset_peak_memory(), time.perf_counter()
    COMMANDS[command](folder)
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": (peak_memory() - held) / 1024}))


def read_rows(file: Path) -> list[Row]:
    """What was measured before."""
    return [Row(**row) for row in json.loads(file.read_text())] if file.exists() else []


def run(sizes: Iterable[tuple[int, int]], commands: Iterable[str], file: Path, work: Path) -> list[Row]:
    """Measure what the file does not hold yet."""
    rows, commands = read_rows(file), list(commands)
    for n, n_classes in sizes:
        known = {row.command for row in rows if (row.n, row.n_classes) == (n, n_classes)}
        if not (wanted := [command for command in commands if command not in known]):
            continue
        folder = work / f"{n}-{n_classes}"
        shutil.rmtree(folder, ignore_errors=True)
        prepare(folder, n, n_classes)
        if STARTS.keys() & set(wanted):
            write_images(folder, n, n_classes)
            write_embedded(folder / PHOTOS, folder / "photos-clip")
            time.sleep(SETTLED_AFTER)
        if not any(command.startswith("select") for command in wanted):
            select("paper")(folder)
        for command in wanted:
            words = [sys.executable, "-m", "benchmarks.scale", "--measure", command, str(folder)]
            found = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
            rows.append(Row(command, n, n_classes, **found))
            document = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
            write_atomically(file, document.encode())
            print(f"{command}, {n:,} x {n_classes:,}: {rows[-1].seconds:.1f} s, {rows[-1].peak_mb:,.0f} MB", flush=True)
        shutil.rmtree(folder)
    return rows


def tables(rows: Iterable[Row]) -> str:
    """Two Markdown tables: what was measured, and lines through it."""
    rows = sorted(rows, key=lambda row: (list(COMMANDS).index(row.command), row.n_classes, row.n))
    lines = [
        "| command | images | classes | seconds | peak MB | beyond the vectors MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        vectors = row.n * DIMENSION * 2 / 2**20 if row.command.startswith("select") else 0.0
        numbers = (
            f"{row.n:,} | {row.n_classes:,} | {row.seconds:,.1f} | {row.peak_mb:,.0f} | {row.peak_mb - vectors:,.0f}"
        )
        lines.append(f"| {row.command} | {numbers} |")
    far = " | ".join(f"{n // 1_000_000} million" for n in FAR)
    lines += ["", f"| command | classes | s per million | bytes a sample | {far} |", "|---|---:|---:|---:|---:|---:|"]
    groups = dict.fromkeys((row.command, row.n_classes) for row in rows)
    for command, n_classes in groups:
        mine = [row for row in rows if (row.command, row.n_classes) == (command, n_classes)]
        if len({row.n for row in mine}) > 1:
            lines.append(f"| {command} | {n_classes:,} | {' | '.join(_fitted(mine))} |")
    return "\n".join(lines)


def _fitted(rows: list[Row]) -> list[str]:
    """What lines through the sizes say: seconds for a million more, bytes for a sample more, and of many samples."""
    n = [row.n for row in rows]
    seconds, megabytes = (np.polyfit(n, [getattr(row, name) for row in rows], 1) for name in ("seconds", "peak_mb"))
    far = [f"{np.polyval(seconds, m) / 3600:,.1f} h, {np.polyval(megabytes, m) / 1024:,.1f} GB" for m in FAR]
    return [f"{seconds[0] * 1e6:,.0f}", f"{megabytes[0] * 2**20:,.0f}", *far]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[250_000, 500_000, 1_000_000, 2_000_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--json", type=Path, default=Path("scale.json"))
    parser.add_argument("--work", type=Path, help="folder for the caches")
    parser.add_argument("--measure", nargs=2, metavar=("COMMAND", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measured(given.measure[0], Path(given.measure[1]))
        return
    sizes = [(n, n_classes) for n_classes in given.classes for n in given.samples]
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        print(tables(run(sizes, given.commands, given.json, Path(work))))


if __name__ == "__main__":
    main()
