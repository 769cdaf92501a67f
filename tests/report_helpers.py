"""What the tests of the report share: indices made by hand, and a page's parts without a browser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import clipaudit
from clipaudit.auditing.config import AuditConfig
from clipaudit.auditing.method import EstimateScores, Mixtures, decide
from clipaudit.calls.select import _plain
from clipaudit.index.clean_index import build_table


@dataclass(frozen=True)
class Row:
    """One sample: its id and label, and of each estimate the best class, its probability and that of the label."""

    id: str
    label: str
    zero_shot: tuple[str, float, float]
    induced: tuple[str, float, float]
    posteriors: tuple[float, float] = (1.0, 1.0)
    reason: str | None = None


def index_of(
    rows: Sequence[Row], root: Path, *, config: AuditConfig | None = None, names: Sequence[str] = ()
) -> clipaudit.CleanIndex:
    """A clean index of these samples; a reason makes one unreadable. No class has a mixture."""
    config = config or AuditConfig()
    named = {name for row in rows for name in (row.label, row.zero_shot[0], row.induced[0])}
    names = list(names) or sorted(named)
    read = [row for row in rows if row.reason is None]
    labels = np.array([names.index(row.label) for row in rows], np.int64)
    read_labels = np.array([names.index(row.label) for row in read], np.int64)
    estimates = {
        "zero_shot": _scores([(*row.zero_shot, row.posteriors[0]) for row in read], names),
        "induced": _scores([(*row.induced, row.posteriors[1]) for row in read], names),
    }
    decision = decide(estimates, read_labels, len(names), config)
    samples = pa.table(
        {
            "id": [row.id for row in rows],
            "status": ["ok" if row.reason is None else "unreadable" for row in rows],
            "reason": pa.array([row.reason for row in rows], pa.string()),
        }
    )
    suggestion = (estimates["zero_shot"].prediction, estimates["zero_shot"].p_max)
    table = build_table(samples, str(root), labels, names, estimates, suggestion, decision)
    return clipaudit.CleanIndex(table, _metadata(root, names, config))


def _scores(rows: Sequence[tuple[str, float, float, float]], names: Sequence[str]) -> EstimateScores:
    p_max, p_label = (np.array([row[k] for row in rows], np.float32) for k in (1, 2))
    posterior = np.array([row[3] for row in rows], np.float64)
    return EstimateScores(
        p_label=p_label,
        p_max=p_max,
        prediction=np.array([names.index(row[0]) for row in rows], np.int64),
        consistency=p_label.astype(np.float64) / p_max,
        loss=-np.log(p_label),
        posterior=posterior,
        raw_posterior=posterior,
    )


def _metadata(root: Path, names: Sequence[str], config: AuditConfig) -> dict[str, Any]:
    none = np.full((len(names), 2), np.nan)
    every = np.ones(len(names), bool)
    mixture = Mixtures(none, none, none, every, every)
    plain = {name: _plain(values) for name, values in vars(mixture).items()}
    return {
        "clipaudit": clipaudit.__version__,
        "config": config.to_dict(),
        "class_names": list(names),
        "declared_classes": False,
        "model": {"model": "m", "revision": "", "weights": "w", "precision": "float32", "dimension": 2},
        "source": str(root),
        "root": str(root),
        "image_column": None,
        "labels": None,
        "prompts": {"source": "plain templates", "texts": [], "owners": []},
        "mixtures": {"zero_shot": plain, "induced": plain},
        "warnings": [],
    }


@dataclass
class Page(HTMLParser):
    """The parts of a report as an HTML parser sees them."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> Page:
        """Parse a file."""
        page = cls()
        HTMLParser.__init__(page)
        page._inside = ""
        page.feed(path.read_bytes().decode())
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        kind = {"script": self.scripts, "style": self.styles}.get(self._inside, self.texts)
        kind.append(data)

    @property
    def text(self) -> str:
        """All that is read, in one line."""
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self) -> Any:
        """The JSON block."""
        return json.loads(next(script for script in self.scripts if script.startswith("{")))
