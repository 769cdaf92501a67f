"""How well `review` and `estimate` keep what they promise: reviewers simulated by the true labels.

    python -m benchmarks.certainty [--cache CACHE] [--data ../shared/data] [--out docs/certainty] [--seeds 200]

For every noise of `benchmarks.human_noise`, `select --preset recommended` ranks CIFAR-10's 50,000 labels once; two more
tasks are made up: 20,000 samples of 1,000 classes, and 5,000 samples of 20 classes, one of which has three samples.
From each ranking, samples are drawn with a budget of 50, 100, 200 and 400 marks, with as many seeds as --seeds says.
The reviewers know the true labels, or know them and give the other answer in one of twenty cases. Results are kept in
OUT.jsonl as they come, and a rerun goes on there; at the end OUT.md (the table) and OUT.svg are written.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

import clipaudit
from benchmarks.human_noise import HUMAN, SYNTHETIC, label_columns
from clipaudit.auditing.metrics import best_threshold
from clipaudit.certainty.classes import MARKS_FOR_A_CLASS, wrong_by_class
from clipaudit.certainty.survey import Marks, Surveyed, draw, survey, wrong_by_bin
from clipaudit.certainty.thresholds import best_f1, interval, reach

REPOSITORY = Path(__file__).parents[1]
MADE_UP = ("1,000 classes", "a class of three")
# The priors of `clipaudit.certainty.curve` were set on these; the others confirm them.
SET_ON = ("label_human_aggregate", "label_instance_0.2", "label_instance_0.4", "symmetric_0.5", "asymmetric_0.2")
BUDGETS, MISTAKES = (50, 100, 200, 400), (0.0, 0.05)
# What the issue that asked for this wants: coverage, width, and how far the F1 may be from the best.
COVERAGE, WIDTH, LOSS = 0.93, 0.6, {100: 1.0, 200: 0.7, 400: 0.7}


@dataclass(frozen=True)
class Task:
    """A ranked data set: (n,) scores, classes, which labels are wrong, which are in doubt; and K."""

    ranking: NDArray[np.float64]
    labels: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    in_doubt: NDArray[np.bool_]
    n_classes: int


@dataclass(frozen=True)
class Result:
    """Means over the seeds.

    Attributes:
        task, budget, mistaken: What was simulated.
        seeds: How often.
        covered: How often the interval of the number of wrong labels holds the true one.
        covered_classes: The same of the intervals of classes, all together; None where there was none.
        covered_precision, covered_recall: The same of the current verdict's.
        half: Half the width of the interval of the share of wrong labels, in points.
        width: Its width beside that of the exact binomial interval of as many random marks.
        loss: How far the F1 at the threshold found is from the best one, in points.
    """

    task: str
    budget: int
    mistaken: float
    seeds: int
    covered: float
    covered_classes: float | None
    covered_precision: float
    covered_recall: float
    half: float
    width: float
    loss: float


def made_up(name: str) -> Task:
    """Scores that are calibrated but for a shift, and differ by class."""
    n, k = (20_000, 1000) if name == MADE_UP[0] else (5_000, 20)
    generator = np.random.default_rng(1)
    labels = np.sort(generator.integers(0, k if name == MADE_UP[0] else k - 1, n))
    if name == MADE_UP[1]:
        labels[-3:] = k - 1
    logits = 4.0 - 3.5 * generator.standard_normal(n)
    truth = logits - 1.0 + 0.7 * generator.standard_normal(k)[labels]
    wrong = generator.uniform(size=n) > 1 / (1 + np.exp(-truth))
    ranking = 1 / (1 + np.exp(-logits))
    return Task(ranking, labels, wrong, ranking < 0.5, k)


def real(noise: str, cache_: Path, data: Path) -> Task:
    """CIFAR-10 with one of the noises, as the recommended preset ranks it."""
    names, true, columns = label_columns(data)
    labels = columns[noise]
    config = clipaudit.preset("recommended")
    index = clipaudit.select(cache_, labels=[names[k] for k in labels], prompts="cifar10", config=config)
    return Task(index.ranking(), labels.astype(np.int64), labels != true, index.in_doubt, len(names))


@cache
def stored(file: Path) -> Task:
    """A task that was kept."""
    with np.load(file) as kept:
        return Task(
            **{name: kept[name] for name in ("ranking", "labels", "wrong", "in_doubt")}, n_classes=int(kept["k"])
        )


def simulate(name: str, file: Path, budget: int, mistaken: float, seeds: int) -> Result:
    """Review a task with as many seeds, and compare what is found with the truth."""
    task = stored(file)
    nobody = np.zeros(len(task.ranking), bool)
    before = survey(task.ranking, Marks(nobody, nobody, nobody, nobody, nobody), np.random.default_rng(0))
    found = [_reviewed(task, before, budget, mistaken, seed) for seed in range(seeds)]
    classes = np.concatenate([one.pop("classes") for one in found])
    means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    width = means["half"] / means.pop("random")
    return Result(
        name,
        budget,
        mistaken,
        seeds,
        covered_classes=float(classes.mean()) if len(classes) else None,
        **{**means, "half": 100 * means["half"], "loss": 100 * means["loss"]},
        width=width,
    )


def _reviewed(task: Task, before: Surveyed, budget: int, mistaken: float, seed: int) -> dict[str, Any]:
    """One review."""
    generator, n = np.random.default_rng(seed), len(task.ranking)
    rows, _ = draw(before, np.arange(n), task.ranking, task.labels, task.n_classes, budget, generator)
    said = task.wrong[rows] ^ (generator.uniform(size=len(rows)) < mistaken)
    wrong, right, nobody = np.zeros((3, n), bool)
    wrong[rows[said]] = right[rows[~said]] = True
    found = survey(task.ranking, Marks(wrong, right, nobody, nobody, nobody), generator)
    inside = wrong_by_bin(found, task.in_doubt, generator)
    by_bin = inside + wrong_by_bin(found, ~task.in_doubt, generator)
    total, in_doubt = by_bin.sum(axis=1), inside.sum(axis=1)
    counted = interval(total)
    true_in_doubt = (task.wrong & task.in_doubt).sum()
    return {
        "covered": counted.low <= task.wrong.sum() <= counted.high,
        "covered_precision": _holds(in_doubt / task.in_doubt.sum(), true_in_doubt / task.in_doubt.sum()),
        "covered_recall": _holds(in_doubt / total, true_in_doubt / task.wrong.sum()),
        "half": (counted.high - counted.low) / 2 / n,
        "random": _exact(generator.binomial(budget, task.wrong.mean()), budget),
        "loss": _loss(task, found, best_f1(reach(by_bin, found.bins.size)).bin),
        "classes": _classes_covered(task, found, rows, generator),
    }


def _holds(draws: NDArray[np.float64], true: float) -> bool:
    found = interval(draws)
    return found.low <= true <= found.high


def _exact(successes: int, n: int) -> float:
    """Half the width of the 95 % interval of Clopper and Pearson (1934)."""
    low = beta.ppf(0.025, successes, n - successes + 1) if successes else 0.0
    high = beta.ppf(0.975, successes + 1, n - successes) if successes < n else 1.0
    return float(high - low) / 2


def _loss(task: Task, found: Surveyed, cut: int) -> float:
    _, best = best_threshold(task.ranking, ~task.wrong)
    noisy = found.bins.of < cut
    return best - 2 * float((noisy & task.wrong).sum()) / float(noisy.sum() + task.wrong.sum())


def _classes_covered(
    task: Task, found: Surveyed, rows: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Of the classes that an interval is given for, whether it holds the true number."""
    given = np.flatnonzero(np.bincount(task.labels[rows], minlength=task.n_classes) >= MARKS_FOR_A_CLASS)
    if not len(given):
        return np.zeros(0, bool)
    draws = wrong_by_class(found, task.labels, task.n_classes, generator)[:, given]
    true = np.bincount(task.labels[task.wrong], minlength=task.n_classes)[given]
    found_ = [interval(column) for column in draws.T]
    return np.array([one.low <= number <= one.high for one, number in zip(found_, true, strict=True)])


def tasks(cache_: Path, data: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """All tasks, each kept in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*MADE_UP, *HUMAN, *SYNTHETIC):
        file = folder / f"{name.replace(' ', '_')}.npz"
        if not file.exists():
            task = made_up(name) if name in MADE_UP else real(name, cache_, data)
            content = asdict(task)
            np.savez(file, k=content.pop("n_classes"), **content)
        yield name, file


def main() -> None:
    """Simulate what is not kept yet, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, required=True, help="embeddings of cifar10/train.parquet")
    parser.add_argument("--tasks", type=Path, default=Path("certainty-tasks"), help="folder that keeps the rankings")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "certainty")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    log = options.out.with_suffix(".jsonl")
    kept = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["task"], row["budget"], row["mistaken"]) for row in kept}
    with ProcessPoolExecutor(options.processes) as pool, log.open("a") as file:
        waiting = [
            pool.submit(simulate, name, task, budget, mistaken, options.seeds)
            for name, task in tasks(options.cache, options.data, options.tasks)
            for budget in BUDGETS
            for mistaken in MISTAKES
            if (name, budget, mistaken) not in done
        ]
        for future in as_completed(waiting):
            print(json.dumps(asdict(future.result())), file=file, flush=True)
    results = [Result(**json.loads(line)) for line in log.read_text().splitlines()]
    options.out.with_suffix(".md").write_text(table(results))
    figure(results, options.out.with_suffix(".svg"))


def table(results: list[Result]) -> str:
    """The page: a row a task and reviewer; a number that misses its goal is set in italics."""
    lines = [
        "# Certainty: all results",
        "",
        "`python -m benchmarks.certainty` wrote this page; [the measurements](benchmarks.md#certainty) describe it."
        f" Each row is a mean over {results[0].seeds} draws. In italics: less than {COVERAGE:.0%} covered; with right"
        f" answers, an interval wider than {WIDTH:.0%} of the exact binomial one of as many random marks, or an F1"
        " farther below the best than 1 point from 100 marks or 0.7 points from 200.",
        "",
        "| labels | answers wrong | marks | total covered | classes covered | precision, recall covered | ± points |"
        " width / random | F1 below best |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    order = [*HUMAN, *SYNTHETIC, *MADE_UP]
    for row in sorted(results, key=lambda row: (order.index(row.task), row.mistaken, row.budget)):
        star = " (set on)" if row.task in SET_ON else ""
        classes = (
            "-" if row.covered_classes is None else _marked(row.covered_classes, "%", row.covered_classes >= COVERAGE)
        )
        lines.append(
            f"| {row.task}{star} | {row.mistaken:.0%} | {row.budget}"
            f" | {_marked(row.covered, '%', row.covered >= COVERAGE)}"
            f" | {classes} | {_marked(row.covered_precision, '%', row.covered_precision >= COVERAGE)},"
            f" {_marked(row.covered_recall, '%', row.covered_recall >= COVERAGE)} | {row.half:.1f}"
            f" | {_marked(row.width, '', row.width <= WIDTH or row.mistaken > 0)}"
            f" | {_marked(row.loss, '', row.loss <= LOSS.get(row.budget, np.inf) or row.mistaken > 0)} |"
        )
    return "\n".join(lines) + "\n"


def _marked(value: float, unit: str, reached: bool) -> str:
    text = f"{value:.1%}" if unit else f"{value:.2f}"
    return text if reached else f"*{text}*"


def figure(results: list[Result], out: Path) -> None:
    """Interval widths and F1 losses by budget, a line a task."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "clipaudit", "svg.fonttype": "none"}
    panels, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name in (*HUMAN, *SYNTHETIC):
        rows = sorted((row for row in results if row.task == name and not row.mistaken), key=lambda row: row.budget)
        for axis, field in zip(axes, ("half", "loss"), strict=True):
            axis.plot([row.budget for row in rows], [getattr(row, field) for row in rows], marker="o", label=name)
    for axis, words in zip(axes, ("± points of the share of wrong labels", "F1 below the best, points"), strict=True):
        axis.set(xlabel="marks", ylabel=words, xscale="log", xticks=BUDGETS, xticklabels=BUDGETS, ylim=(0, None))
        axis.minorticks_off()
    axes[1].legend(fontsize=6, frameon=False)
    panels.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
