"""Charts as the numbers of inline SVG: paths and positions in the chart's own units, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

BINS = 40
WIDTH, HEIGHT = 320.0, 110.0
ROC_EDGE = 240.0
ROC_POINTS = 150
# Of curves in one chart, as SVG has them: the first is drawn through.
DASHES = ("none", "6 2", "2 2", "6 2 2 2", "12 3", "1 3", "12 3 2 3", "6 2 2 2 2 2", "12 3 6 3")
_ERF = np.vectorize(erf, otypes=[np.float64])

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians in units of the loss, the low-loss one first."""

    weights: Sequence[float]
    means: Sequence[float]
    deviations: Sequence[float]


@dataclass(frozen=True)
class Histogram:
    """A loss histogram. Counts are drawn on a square-root scale, so that the few high losses are seen beside the many
    low ones.

    Attributes:
        kept, doubted: SVG paths of the bars on either side of the loss selector's verdict.
        components: SVG paths of the expected counts of both components; none where the class was not split.
        threshold: Position of the loss that separates the sides, and the loss itself; None where none does.
        low, high: Losses at the edges.
        highest: Samples in the fullest bin.
        n_doubted, n: Samples that the selector doubts, and all.
    """

    kept: str
    doubted: str
    components: Sequence[str]
    threshold: tuple[float, float] | None
    low: float
    high: float
    highest: int
    n_doubted: int
    n: int

    @property
    def summary(self) -> str:
        """The chart in words, for who cannot see it."""
        text = f"{self.n:,} losses from {self.low:.2f} to {self.high:.2f} nats"
        if self.threshold:
            return f"{text}; the {self.n_doubted:,} above {self.threshold[1]:.2f} are in doubt"
        return f"{text}; {self.n_doubted:,} are in doubt" if self.n_doubted else f"{text}; all are kept"


def histogram(losses: NDArray[np.float32], failed: NDArray[np.bool_], mixture: Mixture | None) -> Histogram:
    """Draw the losses of one class.

    Args:
        losses: (n,) of the class's readable samples, n >= 1.
        failed: (n,) the loss selector doubts the label.
        mixture: The class's fit, None where it was not split.
    """
    values = losses.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts, _ = np.histogram(values, edges)
    kept, _ = np.histogram(values[~failed], edges)
    expected = _expected(mixture, edges, len(values)) if mixture else []
    highest = max(float(counts.max()), *(float(curve.max()) for _, curve in expected), 1.0)

    def y(amounts: Floats) -> Floats:
        return HEIGHT * (1 - np.sqrt(np.maximum(amounts, 0) / highest))

    def x(loss: Floats | float) -> Floats:
        return np.asarray((np.asarray(loss) - edges[0]) / (edges[-1] - edges[0]) * WIDTH)

    border = _border(values, failed)
    return Histogram(
        kept=_bars(x(edges), y(kept)),
        doubted=_bars(x(edges), np.where(counts > kept, y(counts), HEIGHT)),
        components=[_line(x(at), y(curve)) for at, curve in expected],
        threshold=None if border is None else (round(float(x(border)), 1), border),
        low=float(edges[0]),
        high=float(edges[-1]),
        highest=round(highest),
        n_doubted=int(failed.sum()),
        n=len(values),
    )


def _border(values: Floats, failed: NDArray[np.bool_]) -> float | None:
    """The loss between both sides; None where one is empty or they overlap (a raw posterior need not be monotone)."""
    if failed.all() or not failed.any():
        return None
    last, first = float(values[~failed].max()), float(values[failed].min())
    return (last + first) / 2 if last <= first else None


def _expected(mixture: Mixture, edges: Floats, n: int) -> list[tuple[Floats, Floats]]:
    """Of both components, samples that a bin around each of many losses would hold: it stays finite for any width."""
    half = (edges[1] - edges[0]) / 2
    at = np.linspace(edges[0], edges[-1], 2 * BINS + 1)
    curves = []
    for weight, mean, deviation in zip(mixture.weights, mixture.means, mixture.deviations, strict=True):
        above, below = ((at + sign * half - mean) / (deviation * sqrt(2)) for sign in (1, -1))
        curves.append((at, n * weight * (_ERF(above) - _ERF(below)) / 2))
    return curves


def _bars(x: Floats, tops: Floats) -> str:
    """One path for all bars that are not empty."""
    width = x[1] - x[0]
    return "".join(
        f"M{left:.1f} {HEIGHT:g}V{top:.1f}h{max(width - 1, 0.5):.1f}V{HEIGHT:g}z"
        for left, top in zip(x[:-1].tolist(), tops.tolist(), strict=True)
        if top < HEIGHT
    )


def _line(x: Floats, y: Floats) -> str:
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return "M" + "L".join(points)


def roc(right: NDArray[np.bool_], scores: Floats) -> str:
    """The ROC curve of finding wrong labels, as an SVG path in a square of ROC_EDGE.

    Args:
        right: (n,) the given label is the true one; both kinds occur.
        scores: (n,) higher is cleaner.
    """
    from sklearn.metrics import roc_curve

    false_alarms, found, _ = roc_curve(~right, -scores)
    # Equal steps along the curve's length, so that the steep beginning keeps its shape.
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(false_alarms)) + np.abs(np.diff(found)))])
    at = np.unique(np.searchsorted(length, np.linspace(0, length[-1], ROC_POINTS)).clip(0, len(length) - 1))
    return _line(ROC_EDGE * false_alarms[at], ROC_EDGE * (1 - found[at]))
