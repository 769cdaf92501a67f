"""Draw docs/method.svg: the losses of one class, its mixture (eq. 6), and its posterior, raw and monotone.

    clipaudit embed ../shared/data/cifar10/train.parquet --model benchmarks/reference_clip --cache cifar10-reference
    clipaudit select cifar10-reference --labels ../shared/data/cifar10/noise.parquet:label_instance_0.4
    python docs/method.py clean.parquet dog

The arguments are a clean index and a class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import clipaudit
from clipaudit.selectors.mixture import LossSplit, split_losses

PICTURE = Path(__file__).with_name("method.svg")
LOSS = "logistic_loss"
BINS, THETA_LOSS = 60, 0.5
# Share of the losses that the axis holds: the few highest would squeeze all others.
SHOWN = 0.99
# Okabe and Ito's colours, which colour-blind people can tell apart.
LOW, HIGH, GREY = "#0072b2", "#d55e00", "#999999"
# Text stays text, and ids are the same in every run.
STYLE = {"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "clipaudit", "axes.spines.right": False}


def main() -> None:
    """Draw the class that the command line names."""
    file, class_name = sys.argv[1:]
    index = clipaudit.read_index(file)
    losses = index.table[LOSS].to_numpy()[index.labels() == index.class_names.index(class_name)]
    split = split_losses(torch.from_numpy(losses), torch.zeros(len(losses), dtype=torch.int64), 1)
    with matplotlib.rc_context({**STYLE, "axes.spines.top": False, "legend.frameon": False}):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        above, below = figure.subplots(2, sharex=True)
        draw_losses(above, losses, split)
        draw_posteriors(below, losses, split)
        below.set_xlim(0, float(np.quantile(losses, SHOWN)))
        figure.savefig(PICTURE, metadata={"Date": None, "Creator": None})


def draw_losses(axes: Axes, losses: NDArray[np.float32], split: LossSplit) -> None:
    """A histogram of the losses, and how many each component expects in a bin."""
    counts, edges, _ = axes.hist(losses, BINS, color=GREY, alpha=0.5, label=f"{len(losses):,} samples")
    at = np.linspace(edges[0], edges[-1], 200)
    for number, (colour, name) in enumerate(((LOW, "low-loss component"), (HIGH, "high-loss component"))):
        weight, mean, deviation = (
            float(values[0, number]) for values in (split.weights, split.means, split.deviations)
        )
        density = weight * np.exp(-(((at - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
        axes.plot(at, len(losses) * (edges[1] - edges[0]) * density, color=colour, label=name)
    axes.set(ylabel="samples a bin", ylim=(0, 1.05 * counts.max()))
    axes.legend()


def draw_posteriors(axes: Axes, losses: NDArray[np.float32], split: LossSplit) -> None:
    """The posterior of the low-loss component, raw and monotone, at 200 of the losses."""
    at = np.argsort(losses)[np.linspace(0, len(losses) - 1, 200).astype(int)]
    raw, monotone = split.raw_posterior.numpy(), split.posterior.numpy()
    axes.axhline(THETA_LOSS, color=GREY, linewidth=0.8)
    axes.plot(losses[at], monotone[at], color=LOW, label="posterior, monotone")
    axes.plot(losses[at], raw[at], color=HIGH, linestyle="--", label="posterior, raw")
    axes.set(xlabel="loss in nats", ylabel="P(low loss)", ylim=(0, 1.05))
    axes.legend()


if __name__ == "__main__":
    main()
