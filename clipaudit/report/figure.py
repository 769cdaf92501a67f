"""A static picture of an audit for papers: histograms of its scores, and what it suggests for which given label."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.errors import SourceError, UsageError
from clipaudit.files import write_atomically
from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.remote import to_path
from clipaudit.report.columns import Columns, read_columns, read_truth
from clipaudit.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What must not get into a file of each kind, so that the same audit gives the same bytes.
_METADATA: dict[str, dict[str, None]] = {
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
}
# Matplotlib's own defaults, whatever a user's matplotlibrc says, but for these. A class name may contain dollar signs,
# which are no formula. Journals want TrueType fonts in PDF. SVG has random ids unless they are salted.
_STYLE: Any = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "clipaudit",
}
_WIDTH, _HEIGHT = 7.2, 4.6
# Height of each more, where there are more histograms than of the score and of two estimates.
_MORE = 1.4
_DOTS_PER_INCH = 250
_BINS = 50
CLASSES_SHOWN = 20
# Up to so many classes, the cells have room for their numbers.
_CLASSES_WITH_NUMBERS = 12
_NAME_LENGTH = 20
# Blue and orange that colour-blind readers and grey printers tell apart.
_GOOD, _BAD = "#0072b2", "#e69f00"


@dataclass(frozen=True)
class _Audit:
    """The readable samples as the audit judged them, before any review.

    Attributes:
        scores: What is drawn: (title, (m,) values, upper end of the axis).
        good: (m,) bool: called clean, or, where the truth is known, with a right label.
        words: What `good` and its opposite are called.
        given, suggested: (m,) class indices.
        noisy: (m,) bool, called noisy.
        class_names: K names.
    """

    scores: list[tuple[str, NDArray[Any], float]]
    good: NDArray[np.bool_]
    words: tuple[str, str]
    given: NDArray[np.int64]
    suggested: NDArray[np.int64]
    noisy: NDArray[np.bool_]
    class_names: list[str]


@typed
def write_figure(index: CleanIndex, out: str | Path, *, truth: str | Path | None = None) -> None:
    """Draw an audit: score histograms, and given against suggested label of the samples called noisy.

    It shows the audit itself: of a reviewed index, the labels and verdicts before the review. The same input gives the
    same bytes with the same version of matplotlib. A character that matplotlib's own font lacks becomes a box.

    Args:
        index: A clean index.
        out: A file that ends in .png, .pdf or .svg.
        truth: True labels, `FILE[:COLUMN]`: the histograms then show correct and wrong labels separately.

    Raises:
        UsageError: another ending, a file that is needed or no file at all, or matplotlib is not installed.
        SourceError: the true labels do not fit, or there is no readable sample.
    """
    out = to_path(out)
    if out.suffix.lower() not in _METADATA:
        raise UsageError(f"{out}: figures end in {', '.join(_METADATA)}.")
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("figures need matplotlib: pip install 'clipaudit[figure]'") from None
    index.check_output(out, [index.file, truth])
    audit = _read(index, truth)
    buffer = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH, _HEIGHT + _MORE * max(0, len(audit.scores) - 3)), layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure, audit)
        kind = out.suffix.lower()
        figure.savefig(buffer, format=kind[1:], dpi=_DOTS_PER_INCH, metadata=_METADATA[kind])
    write_atomically(out, buffer.getvalue())


def _read(index: CleanIndex, truth: str | Path | None) -> _Audit:
    columns = read_columns(index)
    readable = columns.readable
    if not readable.any():
        raise SourceError("the index has no readable sample, so that there is nothing to draw.")
    clean = columns.audited_clean
    good, words = clean, ("called clean", "called noisy")
    if truth is not None:
        good = np.asarray(columns.class_names, object)[columns.scored] == read_truth(index, truth).names
        words = ("right label", "wrong label")
    return _Audit(
        scores=_scores(columns),
        good=good[readable],
        words=words,
        given=columns.scored[readable],
        suggested=columns.suggested[readable],
        noisy=~clean[readable],
        class_names=columns.class_names,
    )


def _scores(columns: Columns) -> list[tuple[str, NDArray[Any], float]]:
    scores: list[tuple[str, NDArray[Any], float]] = [("clean score", columns.score[columns.readable], 1.0)]
    for term in columns.index.config.estimates:
        loss = columns.loss[term.name][columns.readable]
        scores.append((f"loss, {term.title} (nats)", loss, max(float(loss.max(initial=0)), 1e-6)))
    return scores


def _draw(figure: Figure, audit: _Audit) -> None:
    grid = figure.add_gridspec(len(audit.scores), 2, width_ratios=(1, 1.75))
    for row, (title, values, end) in enumerate(audit.scores):
        axes = figure.add_subplot(grid[row, 0])
        _histogram(axes, values, audit.good, end)
        axes.set_xlabel(title)
        if row == 0:
            axes.axvline(0.5, color="0.4", linewidth=0.8, linestyle=":")
            handles, _ = axes.get_legend_handles_labels()
            counts = (int(audit.good.sum()), int((~audit.good).sum()))
            labels = [f"{word} ({count:,})" for word, count in zip(audit.words, counts, strict=True)]
            axes.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    figure.supylabel("samples (logarithmic)", fontsize=7)
    _confusion(figure, figure.add_subplot(grid[:, 1]), audit)


def _histogram(axes: Axes, values: NDArray[Any], good: NDArray[np.bool_], end: float) -> None:
    edges = np.linspace(0, end, _BINS + 1)
    for mine, colour, name in ((good, _GOOD, "good"), (~good, _BAD, "bad")):
        counts, _ = np.histogram(values[mine], edges)
        axes.stairs(counts, edges, baseline=0.5, fill=True, color=colour, alpha=0.55, label=name)
        axes.stairs(counts, edges, baseline=0.5, color=colour, linewidth=0.8)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(bottom=0.5)
    axes.set_xlim(0, end)


def _confusion(figure: Figure, axes: Axes, audit: _Audit) -> None:
    from matplotlib.ticker import MaxNLocator

    n_classes = len(audit.class_names)
    sizes = np.bincount(audit.given, minlength=n_classes)
    chosen = np.sort(np.lexsort((np.arange(n_classes), -sizes))[:CLASSES_SHOWN])
    position = np.full(n_classes, -1)
    position[chosen] = np.arange(len(chosen))
    named = audit.noisy & (audit.suggested >= 0)
    rows, columns = position[audit.given[named]], position[audit.suggested[named]]
    shown = (rows >= 0) & (columns >= 0)
    counts = np.zeros((len(chosen), len(chosen)), np.int64)
    np.add.at(counts, (rows[shown], columns[shown]), 1)
    # Cells as vectors, not as a picture, in PDF and SVG.
    mesh = axes.pcolormesh(counts, cmap="Blues", vmin=0, vmax=max(1, counts.max()), edgecolors="0.9", linewidth=0.3)
    bar = figure.colorbar(mesh, ax=axes, label="samples", shrink=0.6, pad=0.02, format=lambda value, _: f"{value:,.0f}")
    bar.locator = MaxNLocator(integer=True)
    names = [_short(audit.class_names[k]) for k in chosen]
    axes.set_xticks(np.arange(len(chosen)) + 0.5, labels=names, rotation=90)
    axes.set_yticks(np.arange(len(chosen)) + 0.5, labels=names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set_xlabel("suggested label")
    axes.set_ylabel("given label")
    title = f"Samples called noisy ({int(audit.noisy.sum()):,})"
    if len(chosen) < n_classes:
        title += f"\nthe {len(chosen)} largest of {n_classes:,} classes, with {int(shown.sum()):,} of these samples"
    axes.set_title(title)
    if len(chosen) <= _CLASSES_WITH_NUMBERS:
        _write_numbers(axes, counts)


def _write_numbers(axes: Axes, counts: NDArray[np.int64]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if count > counts.max() / 2 else "black"
            axes.text(column + 0.5, row + 0.5, f"{count:,}", ha="center", va="center", color=colour, fontsize=6)


def _short(name: str) -> str:
    """A class name on one line, with escapes for control and direction characters."""
    plain = printable(name)
    return plain if len(plain) <= _NAME_LENGTH else f"{plain[: _NAME_LENGTH - 1]}…"
