"""Draw docs/consistency.svg: the consistency selector (eq. 5) on the demo's digits: `python docs/consistency.py`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import clipaudit
from clipaudit.demo import MODEL, write_digits
from clipaudit.index.truth import match_truth

PICTURE = Path(__file__).with_name("consistency.svg")
# An estimate of the index, and the thresholds of --preset paper and --preset cifar.
ESTIMATE, THRESHOLDS = "logistic", {1.0: "solid", 0.8: "dashed"}
# Okabe and Ito's colours, which colour-blind people can tell apart.
RIGHT, WRONG, GREY = "#0072b2", "#d55e00", "#777777"
# Text stays text, and ids are the same in every run.
STYLE = {"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "clipaudit", "legend.frameon": False}


def main() -> None:
    """Audit the digits, and draw the label's probability beside the highest one."""
    index, right = audit()
    p_label, p_max = (index.table[f"{ESTIMATE}_{name}"].to_numpy() for name in ("p_label", "p_max"))
    with matplotlib.rc_context({**STYLE, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        axes = figure.subplots()
        for threshold, line in THRESHOLDS.items():
            name = f"θc = {threshold:g}"
            axes.plot([0, 1], [0, threshold], color=GREY, linestyle=line, linewidth=0.8, label=name, zorder=0)
        for name, mine, colour in (("correct label", right, RIGHT), ("label error", ~right, WRONG)):
            axes.scatter(p_max[mine], p_label[mine], s=8, color=colour, alpha=0.6, linewidths=0, label=name)
        axes.set(xlabel="highest probability", ylabel="probability of the label", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left")
        figure.savefig(PICTURE, metadata={"Date": None, "Creator": None})


def audit() -> tuple[clipaudit.CleanIndex, NDArray[np.bool_]]:
    """The demo's clean index, and (n,) whether each label is correct."""
    with TemporaryDirectory() as name:
        files = write_digits(Path(name) / "demo", rate=0.2, seed=0)
        encoder = clipaudit.EncoderOptions(str(MODEL), device="cpu", precision="float32")
        cache = clipaudit.embed(files.images, cache=Path(name) / "cache", encoder=encoder).cache
        index = clipaudit.select(cache)
        truth = match_truth(index, files.truth).values
    return index, truth == np.asarray(index.table["label"].to_pylist(), object)


if __name__ == "__main__":
    main()
