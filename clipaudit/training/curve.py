"""The training curve as an SVG picture: loss and accuracy above, what eq. 7 did below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, PANEL, MARGIN, GAP = 760, 180, 56, 44
# Okabe and Ito's colours, which colour-blind people can tell apart.
SERIES = (
    (("test_accuracy", "#0072b2"), ("val_accuracy", "#56b4e9"), ("loss", "#d55e00")),
    (("absorbed", "#009e73"), ("relabelled", "#cc79a7"), ("dropped", "#999999")),
)


def training_curve(history: Sequence[Mapping[str, Any]]) -> str:
    """An SVG document with one line a series; each is scaled to the largest value of its panel, accuracies to 1."""
    panels, top = [], GAP
    for series in SERIES:
        present = [(name, colour) for name, colour in series if any(row.get(name) is not None for row in history)]
        if present:
            panels.append(_panel(history, present, top))
            top += PANEL + GAP
    text = 'font-family="system-ui, sans-serif" font-size="12"'
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    background = f'<rect width="{WIDTH}" height="{top}" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {text}>\n{background}\n{"".join(panels)}</svg>\n'


def _panel(history: Sequence[Mapping[str, Any]], series: Sequence[tuple[str, str]], top: int) -> str:
    bottom, right = top + PANEL, WIDTH - MARGIN
    values = {name: [row.get(name) for row in history] for name, _ in series}
    parts = [f'<path d="M{MARGIN} {top}V{bottom}H{right}" fill="none" stroke="#444"/>\n']
    left = MARGIN
    for name, colour in series:
        # An accuracy has its own natural scale; all counts of a panel share theirs, so that they can be compared.
        largest = max(1e-9, *(value for value in values[name] if value is not None))
        scale = 1.0 if name.endswith("accuracy") else largest if name == "loss" else _largest(values)
        points = " ".join(
            f"{MARGIN + (right - MARGIN) * number / max(1, len(history) - 1):.1f},{bottom - PANEL * value / scale:.1f}"
            for number, value in enumerate(values[name])
            if value is not None
        )
        label = f"{name.replace('_', ' ')} (to {scale:.3g})"
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>\n')
        parts.append(f'<text x="{left}" y="{top - 10}" fill="{colour}">{label}</text>\n')
        left += 200
    parts.append(f'<text x="{right}" y="{bottom + 16}" text-anchor="end">epoch {len(history)}</text>\n')
    return "".join(parts)


def _largest(values: Mapping[str, Sequence[float | None]]) -> float:
    return max(1.0, *(value for column in values.values() for value in column if value is not None))
