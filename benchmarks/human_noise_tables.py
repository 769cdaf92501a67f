"""The tables and the figure of `benchmarks.human_noise`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
HEADER = (
    "| noise | wrong | used for "
    "| contender | AUROC | clean precision | clean recall | noisy precision | noisy recall | noisy F1 "
    "| called clean | seconds | peak MB |\n|---|---:|---|---|" + "---:|" * 9
)
# What README.md and docs/benchmarks.md show.
SHORT = (
    "clipaudit (the paper's default)",
    "clipaudit --preset recommended",
    "clipaudit --preset recommended --threshold 0.5",
    "clipaudit --preset recommended, threshold from 2,500 known labels",
    "zero-shot disagreement",
    "cleanlab",
    "SimiFeat",
    "LEMoN, threshold from 2,500 known labels",
    "LEMoN, fitted to 2,500 known labels",
)


def markdown(rows: Sequence[Row]) -> str:
    """The short tables, and all results."""
    parts = [
        "# Known label noise: all results",
        "Written by `python -m benchmarks.human_noise`; [how it was measured](benchmarks.md).",
        "## AUROC / F1 of label errors, on published labels",
        published(rows),
        "## Means over the columns that options were chosen on, and over those that confirm them",
        halves(rows),
        "## Everything",
        everything(rows),
    ]
    return "\n\n".join(parts) + "\n"


def published(rows: Sequence[Row]) -> str:
    """The label columns of the data set, which others have measured on as well."""
    noises = {row["noise"]: row["noise_rate"] for row in rows if row["noise"].startswith("label_")}
    titles = [f"{noise.removeprefix('label_').replace('_', ' ')} ({rate:.0%} wrong)" for noise, rate in noises.items()]
    lines = ["| contender | " + " | ".join([*titles, "seconds"]) + " |", "|---|" + "---:|" * (len(noises) + 1)]
    for contender in SHORT:
        held = {row["noise"]: row for row in rows if row["contender"] == contender}
        cells = [f"{held[noise]['auroc']:.3f} / {held[noise]['noisy_f1']:.0%}" for noise in noises]
        seconds = np.mean([held[noise]["seconds"] for noise in noises])
        lines.append(f"| {contender} | " + " | ".join([*cells, f"{seconds:.1f}"]) + " |")
    return "\n".join(lines)


def halves(rows: Sequence[Row]) -> str:
    """Means over the choice's columns and over the confirmation's."""
    keys = {"auroc": "AUROC", "noisy_f1": "F1 of label errors", "clean_precision": "clean precision",
            "clean_recall": "clean recall"}  # fmt: skip
    titles = [f"{half}: {title}" for half in ("chosen on", "confirmed on") for title in keys.values()]
    lines = ["| contender | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for contender in SHORT:
        cells = []
        for chosen in (True, False):
            held = [row for row in rows if row["contender"] == contender and row["chosen_on"] == chosen]
            means = {key: float(np.mean([row[key] for row in held])) for key in keys}
            cells += [f"{mean:.4f}" if key == "auroc" else f"{mean:.1%}" for key, mean in means.items()]
        lines.append(f"| {contender} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def everything(rows: Sequence[Row]) -> str:
    """All results as one table."""
    lines = [
        f"| {row['noise']} | {row['noise_rate']:.1%} | {'choice' if row['chosen_on'] else 'confirmation'} "
        f"| {row['contender']} | {number(row['auroc'], '.4f')} "
        f"| {percent(row['clean_precision'])} | {percent(row['clean_recall'])} | {percent(row['noisy_precision'])} "
        f"| {percent(row['noisy_recall'])} | {percent(row['noisy_f1'])} | {row['clean_size']:,} "
        f"| {row['seconds']:.1f} | {row['peak_mb']:,} |"
        for row in sorted(rows, key=order(rows))
    ]
    return "\n".join([HEADER, *lines])


def order(rows: Sequence[Row]) -> Any:
    """By noise, then by contender, both as they came."""
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    return lambda row: (noises.index(row["noise"]), contenders.index(row["contender"]))


def percent(value: float | None) -> str:
    """A share with one decimal."""
    return number(value, ".1%")


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def figure(rows: Sequence[Row], out: Path, peers: Sequence[str]) -> None:
    """AUROC and F1 of the wrong labels, a mark a contender, a place a noise; single selectors are left out."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    noises = list(dict.fromkeys(row["noise"] for row in rows))
    named = dict.fromkeys(row["contender"] for row in rows)
    contenders = [name for name in named if name.startswith("clipaudit") or name in peers]
    page = Figure(figsize=(10, 9), layout="constrained")
    FigureCanvasSVG(page)
    for place, (key, title) in enumerate((("auroc", "AUROC"), ("noisy_f1", "F1 of the wrong labels"))):
        axes = page.add_subplot(2, 1, place + 1)
        axes.set_prop_cycle(color=colormaps["tab20"].colors)
        for shift, contender in zip(np.linspace(-0.3, 0.3, len(contenders)), contenders, strict=True):
            values = {row["noise"]: row[key] for row in rows if row["contender"] == contender}
            heights = [np.nan if values[noise] is None else values[noise] for noise in noises]
            axes.plot(np.arange(len(noises)) + shift, heights, "x" if contender in peers else "o", label=contender)
        axes.set_xticks(
            range(len(noises)), [noise.replace("label_", "").replace("_", " ") for noise in noises], rotation=20
        )
        axes.set_title(title)
        axes.grid(axis="y", alpha=0.3)
    page.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=8, ncols=2)
    page.savefig(out, metadata={"Date": None})
