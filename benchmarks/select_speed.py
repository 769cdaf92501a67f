"""The two solvers of `select` beside scikit-learn's, at equal results.

    python -m benchmarks.select_speed [--samples 50000] [--dimensions 512] [--classes 100] [--rounds 3] [--json FILE]

The embeddings are unit rows in a narrow cone, stored in half precision, as CLIP's are; a fifth of the labels are wrong.
Each contender runs in a process of its own. Its peak is that of the resident memory (Linux), less what it held when the
data were ready and the libraries imported. scikit-learn's tolerance is as tight as it needs to be for
probabilities within 1e-3 of ours; its default is measured, too.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture

from benchmarks.memory import peak_memory, reset_peak_memory
from clipaudit.estimates import InMemory
from clipaudit.estimates.logistic import fit_logistic_regression
from clipaudit.selectors.mixture import split_losses

Array = NDArray[Any]


def make_data(n: int, d: int, k: int, seed: int) -> tuple[Array, Array]:
    """(n, d) float16 unit rows with a mean cosine of about 0.5 between classes, and (n,) labels, 20 % of them wrong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k, (n,), generator=generator)
    means = torch.randn(k, d, generator=generator) / math.sqrt(d)
    spread = torch.linspace(2.5, 0.2, d) / math.sqrt(d)
    x = 1.2 * torch.nn.functional.normalize(torch.randn(d, generator=generator), dim=0)
    x = x + 0.55 * means[labels] + 0.75 * spread * torch.randn(n, d, generator=generator)
    wrong = torch.rand(n, generator=generator) < 0.2
    labels = torch.where(wrong, torch.randint(0, k, (n,), generator=generator), labels)
    return torch.nn.functional.normalize(x, dim=1).half().numpy(), labels.numpy()


def ours_logistic(x: Array, y: Array, k: int, device: str = "cpu") -> Array:
    """(n, K) probabilities by clipaudit."""
    vectors, labels = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    return fit_logistic_regression(InMemory(vectors), labels, k).log_proba(vectors).exp().cpu().numpy()


def sklearn_logistic(x: Array, y: Array, k: int, tol: float = 1e-7) -> Array:
    """(n, K) probabilities by scikit-learn, tight, which takes double precision."""
    model = LogisticRegression(C=1.0, class_weight="balanced", tol=tol, max_iter=10_000)
    x = x.astype(np.float64)
    return model.fit(x, y).predict_proba(x)


def sklearn_logistic_default(x: Array, y: Array, k: int) -> Array:
    """(n, K) probabilities by scikit-learn with its default tolerance and in single precision, its fastest."""
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=10_000)
    x = x.astype(np.float32)
    return model.fit(x, y).predict_proba(x)


def losses_of(n: int, k: int, seed: int) -> tuple[Array, Array]:
    """(n,) losses of right and wrong labels, and classes."""
    generator = np.random.default_rng(seed)
    wrong, labels = generator.random(n) < 0.2, generator.integers(0, k, n)
    return np.abs(np.where(wrong, generator.normal(4, 1.5, n), generator.gamma(1, 0.5, n))), labels


def ours_mixture(losses: Array, labels: Array, k: int, device: str = "cpu") -> Array:
    """(n,) posteriors by clipaudit."""
    found = split_losses(torch.from_numpy(losses).to(device), torch.from_numpy(labels).to(device), k)
    return found.raw_posterior.cpu().numpy()


def sklearn_mixture(losses: Array, labels: Array, k: int, tol: float = 1e-8) -> Array:
    """(n,) posteriors by scikit-learn, tight, one class after the other."""
    posterior = np.empty(len(losses))
    for name in range(k):
        mine = labels == name
        scaled = ((losses[mine] - losses[mine].min()) / np.ptp(losses[mine]))[:, None]
        model = GaussianMixture(2, tol=tol, max_iter=2000, random_state=0).fit(scaled)
        posterior[mine] = model.predict_proba(scaled)[:, model.means_.argmin()]
    return posterior


def sklearn_mixture_default(losses: Array, labels: Array, k: int) -> Array:
    """(n,) posteriors by scikit-learn with its default tolerance."""
    return sklearn_mixture(losses, labels, k, tol=1e-3)


CONTENDERS: dict[str, tuple[Callable[..., Array], ...]] = {
    "logistic regression": (ours_logistic, sklearn_logistic, sklearn_logistic_default),
    "mixtures": (ours_mixture, sklearn_mixture, sklearn_mixture_default),
}


def run(contender: str, n: int, d: int, k: int, seed: int, out: str) -> None:
    """One contender, in this process; prints its measurements as JSON and saves its result."""
    function = globals()[contender]
    data = losses_of(n, k, seed) if "mixture" in contender else make_data(n, d, k, seed)
    small = losses_of(500, 2, 0) if "mixture" in contender else make_data(500, 16, 3, 0)
    warnings.simplefilter("ignore", ConvergenceWarning)
    function(*small, 2 if "mixture" in contender else 3)  # The first call pays for imports and thread pools.
    held = reset_peak_memory()
    began = time.perf_counter()
    result = function(*data, k)
    seconds = time.perf_counter() - began
    np.save(out, result)
    print(json.dumps({"seconds": seconds, "peak_mb": (peak_memory() - held) / 1024}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each; the best one counts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = (options.samples, options.dimensions, options.classes, options.seed)
    if options.contender:
        run(options.contender[0], *sizes, options.contender[1])
        return
    table = Table("what", "contender", "seconds", "times ours", "peak MB", "max |difference|")
    measured: dict[str, Any] = {}
    names = [
        word
        for name, size in zip(("samples", "dimensions", "classes", "seed"), sizes, strict=True)
        for word in (f"--{name}", str(size))
    ]
    with tempfile.TemporaryDirectory() as folder:
        for what, functions in CONTENDERS.items():
            ours: Array | None = None
            for function in functions:
                out = f"{folder}/{function.__name__}.npy"
                words = [sys.executable, "-m", "benchmarks.select_speed", *names, "--contender", function.__name__, out]
                # The best of several: whatever else the machine does can only take away.
                rounds = [
                    json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
                    for _ in range(options.rounds)
                ]
                result = min(rounds, key=lambda measured: measured["seconds"])
                values = np.load(out)
                ours = values if ours is None else ours
                result["difference"] = float(np.abs(values - ours).max())
                measured[function.__name__] = result
                ratio = result["seconds"] / measured[functions[0].__name__]["seconds"]
                shown = (
                    f"{result['seconds']:.2f}",
                    f"{ratio:.1f}",
                    f"{result['peak_mb']:,.0f}",
                    f"{result['difference']:.1e}",
                )
                table.add_row(what, function.__name__, *shown)
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
