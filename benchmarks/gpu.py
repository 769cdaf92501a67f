"""All that is to be measured on a GPU, in under ten minutes and without a network; writes one Markdown table.

    python -m benchmarks.gpu [--dry-run] [--steps select training ...] [--json gpu.json] [--table gpu.md]

Each step runs in a process of its own and has a time limit; together, the limits are below ten minutes. A result is
written to the JSON file as soon as it is there, and a step that the file holds is not run again. A step that fails is a
row that says why, the others go on, and the exit code is 1. `--dry-run` runs all steps with small sizes on the CPU.

The models have random weights, the images and embeddings are made up: only speed is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from clipaudit.files import write_atomically

ROOT = Path(__file__).parents[1]
# What a test that needs a GPU is marked with.
MARK = "cuda"


@dataclass(frozen=True)
class Found:
    """What a step found.

    Attributes:
        size: What it was measured on, in words.
        result: In words.
        numbers: The same, for other programs.
    """

    size: str
    result: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Step:
    """Something to measure.

    Attributes:
        title: In the table.
        measure: Does it on the device that the first argument names; the others are sizes.
        limit: Seconds after which it is ended, with everything that it has started.
        sizes: On a GPU.
        dry: In a dry run.
    """

    title: str
    measure: Callable[..., Found]
    limit: int
    sizes: Mapping[str, Any]
    dry: Mapping[str, Any]


def tests(device: str) -> Found:
    """The tests that need a GPU; without one, pytest skips them."""
    files = [file for file in sorted(ROOT.glob("tests/test_*.py")) if f"mark.{MARK}" in file.read_text()]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", MARK, *map(str, files)]
    ended = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    lines = ended.stdout.strip().splitlines() or ["pytest said nothing"]
    if ended.returncode:
        raise RuntimeError("; ".join([*(line for line in lines if line.startswith("FAILED")), lines[-1]]))
    counts = {word: int(count) for count, word in (part.split()[:2] for part in lines[-1].split(" in ")[0].split(", "))}
    counts.pop("deselected", None)
    return Found(f"{len(files)} files", ", ".join(f"{count} {word}" for word, count in counts.items()), counts)


def embed(device: str, geometry: str, images: int, edge: int) -> Found:
    """`embed` beside the bare model, both with the largest batch that `embed` chooses by itself."""
    import torch

    from benchmarks.embed_speed import GEOMETRIES, make_images, make_model, run_bare_model, run_embed
    from clipaudit.clip.encoders import EncoderOptions, load_encoder

    with tempfile.TemporaryDirectory() as folder:
        model, photos = Path(folder) / "model", Path(folder) / "images"
        make_model(model, GEOMETRIES[geometry])
        make_images(photos, images, edge)
        encoder = load_encoder(EncoderOptions(str(model), device=device))
        batch, precision = encoder.batch_size, encoder.precision
        del encoder
        torch.cuda.empty_cache()
        done, seconds = run_bare_model(str(model), images, batch, device)
        bare = done / seconds
        torch.cuda.empty_cache()
        done, seconds, waiting = run_embed(str(model), str(photos), batch, device)
    rate, share = done / seconds, waiting / seconds
    return Found(
        f"{images:,} JPEG files of {edge} x {edge}, {precision}, batches of {batch:,} (the largest found)",
        f"{rate:,.0f} images/s, {rate / bare:.0%} of the bare model's {bare:,.0f}; waited {share:.0%} of the time",
        {"images_per_second": rate, "bare": bare, "waiting": share, "batch": batch},
    )


def select(device: str, n: int, d: int, k: int) -> Found:
    """`clipaudit.select` on embeddings in memory, the whole call."""
    import numpy as np
    import torch

    import clipaudit
    from benchmarks.select_speed import make_data

    x, y = make_data(n, d, k, 0)
    # What a class looks like: the mean of some of its samples.
    shown = min(n, 100 * k)
    classes = np.zeros((k, d), np.float32)
    np.add.at(classes, y[:shown], x[:shown].astype(np.float32))
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    stages = []

    def note(stage: str) -> None:
        stages.append((stage, time.perf_counter()))

    clipaudit.select(
        x, y.tolist(), names=[f"class {i}" for i in range(k)], class_embeddings=classes, device=device, progress=note
    )
    ended = time.perf_counter()
    times = dict(stages)
    seconds, estimating = ended - stages[0][1], times["selecting"] - times["estimating"]
    peak = torch.cuda.max_memory_allocated() / 2**30
    return Found(
        f"{n:,} embeddings of {d:,} dimensions, {k:,} classes",
        f"{seconds:,.1f} s, {estimating:,.1f} s of them for estimates and mixtures; {peak:,.1f} GB of the GPU at most",
        {"seconds": seconds, "estimating": estimating, "peak_gb": peak},
    )


def logistic(device: str, n: int, d: int, k: int) -> Found:
    """The logistic regression beside scikit-learn's at equal results, on a slice that it can do."""
    from benchmarks.select_speed import make_data, ours_logistic, sklearn_logistic

    ours_logistic(*make_data(500, 16, 3, 0), 3, device)  # The first call pays for starting the device.
    x, y = make_data(n, d, k, 0)
    return _beside(
        f"{n:,} embeddings of {d:,} dimensions, {k:,} classes",
        lambda: ours_logistic(x, y, k, device),
        lambda: sklearn_logistic(x, y, k),
    )


def mixtures(device: str, n: int, k: int) -> Found:
    """The mixtures of all classes at once beside scikit-learn's, one class after the other."""
    from benchmarks.select_speed import losses_of, ours_mixture, sklearn_mixture

    ours_mixture(*losses_of(500, 2, 0), 2, device)  # The first call pays for starting the device.
    losses, labels = losses_of(n, k, 0)
    return _beside(
        f"{n:,} losses, {k:,} classes",
        lambda: ours_mixture(losses, labels, k, device),
        lambda: sklearn_mixture(losses, labels, k),
    )


def training(device: str, images: int, batch: int, width: int, workers: int) -> Found:
    """An epoch beside the bare model and beside a plain loop."""
    from benchmarks.train_speed import measure

    sizes = {"images": images, "batch": batch, "width": width, "workers": workers, "repeats": 1}
    found = measure(argparse.Namespace(device=device, precision="auto", **sizes))
    done = images // batch * batch
    rates = {name: done / seconds for name, seconds in found.items()}
    return Found(
        f"PreAct ResNet-18 of width {width}, {images:,} images of 32 x 32, batches of {batch:,}",
        "; ".join(f"{name}: {rate:,.0f} images/s" for name, rate in rates.items()),
        rates,
    )


def _beside(size: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Found:
    import warnings

    import numpy as np
    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)
    began = time.perf_counter()
    found = ours()
    between = time.perf_counter()
    expected = theirs()
    seconds, other = between - began, time.perf_counter() - between
    difference = float(np.abs(found - expected).max())
    return Found(
        size,
        f"{seconds:,.2f} s; scikit-learn on the processor {other:,.1f} s ({other / seconds:,.1f} times as long);"
        f" largest difference {difference:.0e}",
        {"seconds": seconds, "scikit_learn": other, "difference": difference},
    )


IMAGENET = {"n": 1_281_167, "k": 1_000}
STEPS: Mapping[str, Step] = {
    "tests": Step("tests that need a GPU", tests, 140, {}, {}),
    "vit-b-32": Step(
        "`embed`, ViT-B/32",
        embed,
        90,
        {"geometry": "vit-b-32", "images": 6144, "edge": 400},
        {"geometry": "tiny", "images": 16, "edge": 64},
    ),
    "vit-l-14-336": Step(
        "`embed`, ViT-L/14@336",
        embed,
        110,
        {"geometry": "vit-l-14-336", "images": 4096, "edge": 400},
        {"geometry": "tiny", "images": 16, "edge": 64},
    ),
    "select": Step("`select`", select, 90, {**IMAGENET, "d": 512}, {"n": 2_000, "d": 32, "k": 5}),
    "logistic": Step(
        "logistic regression", logistic, 50, {"n": 50_000, "d": 512, "k": 100}, {"n": 1_000, "d": 16, "k": 4}
    ),
    "mixtures": Step("mixtures", mixtures, 60, IMAGENET, {"n": 1_000, "k": 4}),
    "training": Step(
        "a training epoch",
        training,
        50,
        {"images": 25_600, "batch": 128, "width": 64, "workers": 16},
        {"images": 32, "batch": 16, "width": 4, "workers": 1},
    ),
}


def run_step(name: str, *, dry: bool) -> dict[str, Any]:
    """Run a step in a process of its own; what it found, or what `failed`, and the seconds that all of it took."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file, errors = Path(folder) / "found.json", Path(folder) / "errors"
        words = [sys.executable, "-m", "benchmarks.gpu", "--measure", name, str(file), *(["--dry-run"] if dry else [])]
        with errors.open("w") as stream:
            process = subprocess.Popen(words, cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True)
            try:
                code = process.wait(STEPS[name].limit)
                why = f"exit code {code}"
            except subprocess.TimeoutExpired:
                why = f"it took more than {STEPS[name].limit} s"
            finally:
                # With what it has started, should it be left: also after Ctrl-C.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        found = json.loads(file.read_text()) if file.exists() else None
        said = errors.read_text(errors="replace").strip()
    seconds = time.perf_counter() - began
    if found is None:
        print(said, file=sys.stderr)
        last = said.splitlines()[-1] if said else ""
        return {"failed": f"{why}: {last}" if last and "exit" in why else why, "seconds": seconds}
    return {**found, "seconds": seconds}


def table(steps: Mapping[str, Mapping[str, Any]], heading: str) -> str:
    """The Markdown table of what is there."""
    lines = [heading, "", "| what | on | result | seconds in all |", "|---|---|---|---:|"]
    for name, step in STEPS.items():
        if found := steps.get(name):
            result = f"failed: {found['failed']}" if "failed" in found else found["result"]
            cells = (step.title, found.get("size", ""), result.replace("|", r"\|"), f"{found['seconds']:,.0f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def card_name(*, dry: bool) -> str:
    """The card that is measured, the processor in a dry run; ends the program where there is no card."""
    import torch

    if dry:
        return "no GPU (a dry run: small sizes on the CPU, whose numbers mean nothing)"
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here. --dry-run runs all steps with small sizes on the CPU.")
    return f"{torch.cuda.get_device_name()} ({os.cpu_count()} processor cores, torch {torch.__version__})"


def main() -> int:
    """Run the steps; exit code 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="small sizes on the CPU")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--table", type=Path, default=Path("gpu.md"))
    parser.add_argument("--measure", nargs=2, metavar=("STEP", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        step = STEPS[given.measure[0]]
        found = step.measure("cpu" if given.dry_run else "cuda", **(step.dry if given.dry_run else step.sizes))
        write_atomically(Path(given.measure[1]), json.dumps(vars(found)).encode())
        return 0
    card = card_name(dry=given.dry_run)
    document = json.loads(given.json.read_text()) if given.json.exists() else {"card": card, "steps": {}}
    if document["card"] != card:
        parser.error(f"{given.json} holds results of {document['card']}: name another file with --json")
    steps = document["steps"]
    for name in given.steps:
        if name in steps and "failed" not in steps[name]:
            continue
        steps[name] = run_step(name, dry=given.dry_run)
        document["date"] = date.today().isoformat()
        write_atomically(given.json, (json.dumps(document, indent=1) + "\n").encode())
        print(f"{name}: {steps[name].get('result', 'failed')}", flush=True)
    shown = table(steps, f"Measured on {document['date']} on {card}.")
    write_atomically(given.table, shown.encode())
    print(shown, end="")
    return int(any("failed" in steps[name] for name in given.steps))


if __name__ == "__main__":
    sys.exit(main())
