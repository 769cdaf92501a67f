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
from clipaudit.auditing.method import EstimateScores, decide
from clipaudit.cache.info import Fingerprint
from clipaudit.config import AuditConfig
from clipaudit.index.building import Beside, Strangers, build_table
from clipaudit.index.metadata import IndexMetadata, MixtureFit, PromptsUsed
from clipaudit.selectors.base import Mixtures
from clipaudit.vocabulary import ZERO_SHOT

# What an estimate says about a sample: the best class, its probability, and that of the label.
Seen = tuple[str, float, float]


@dataclass(frozen=True)
class Row:
    """One sample: its id and label, and what each estimate says; `others` are the induced ones beyond the first."""

    id: str
    label: str
    zero_shot: Seen
    induced: Seen
    posteriors: tuple[float, ...] = (1.0, 1.0, 1.0)
    reason: str | None = None
    others: tuple[Seen, ...] = ()
    off_topic: float = 0.0

    @property
    def seen(self) -> tuple[Seen, ...]:
        return self.zero_shot, self.induced, *self.others


def index_of(
    rows: Sequence[Row],
    root: Path,
    *,
    config: AuditConfig | None = None,
    names: Sequence[str] = (),
    background: str | None = None,
) -> clipaudit.CleanIndex:
    """A clean index of these samples; a reason makes one unreadable. No class has a mixture."""
    config = config or AuditConfig()
    named = {name for row in rows for name in (row.label, *(seen[0] for seen in row.seen))}
    names = list(names) or sorted(named)
    read = [row for row in rows if row.reason is None]
    labels = np.array([names.index(row.label) for row in rows], np.int64)
    read_labels = np.array([names.index(row.label) for row in read], np.int64)
    estimates = {
        term.name: _scores([(*row.seen[k], row.posteriors[k]) for row in read], names)
        for k, term in enumerate(config.estimates)
    }
    decision = decide(estimates, read_labels, len(names), config)
    samples = pa.table(
        {
            "id": [row.id for row in rows],
            "status": ["ok" if row.reason is None else "unreadable" for row in rows],
            "reason": pa.array([row.reason for row in rows], pa.string()),
        }
    )
    suggestion = (estimates[ZERO_SHOT.name].prediction, estimates[ZERO_SHOT.name]["p_max"])
    strangers = None
    if any(row.off_topic for row in rows):
        scores = np.array([row.off_topic for row in read], np.float32)
        noun, number = np.zeros(len(read), np.int64), names.index(background) if background else -1
        strangers = Strangers(scores, noun, ["guitar"], number)
    table = build_table(samples, str(root), labels, names, estimates, suggestion, Beside(strangers), decision, config)
    return clipaudit.CleanIndex(table, _metadata(root, names, config))


def _scores(rows: Sequence[tuple[str, float, float, float]], names: Sequence[str]) -> EstimateScores:
    p_max, p_label = (np.array([row[k] for row in rows], np.float32) for k in (1, 2))
    posterior = np.array([row[3] for row in rows], np.float64)
    scores = {
        "p_label": p_label,
        "p_max": p_max,
        "consistency": p_label.astype(np.float64) / p_max,
        "loss": -np.log(p_label),
        "posterior": posterior,
        "raw_posterior": posterior,
    }
    return EstimateScores(np.array([names.index(row[0]) for row in rows], np.int64), scores)


def _metadata(root: Path, names: Sequence[str], config: AuditConfig) -> IndexMetadata:
    none, every = np.full((len(names), 2), np.nan), np.ones(len(names), bool)
    unsplit = MixtureFit.of(Mixtures(none, none, none, every, every))
    return IndexMetadata(
        config=config,
        class_names=list(names),
        declared_classes=False,
        model=Fingerprint("m", "", "w", {}, "float32", 2),
        source=str(root),
        root=str(root),
        prompts=PromptsUsed("plain templates", [], []),
        mixtures={term.name: unsplit for term in config.estimates},
    )


def three_estimates(root: Path) -> clipaudit.CleanIndex:
    """Three samples, judged by zero-shot, logistic regression and neighbours; the first label is in doubt."""
    doubted, fine = ("lynx", 0.8, 0.1), ("cat", 0.9, 0.9)
    rows = [
        Row("a.png", "cat", doubted, fine, posteriors=(1.0, 1.0, 0.2), others=(("lynx", 0.6, 0.3),)),
        Row("b.png", "cat", fine, fine, others=(fine,)),
        Row("c.png", "lynx", *[("lynx", 0.9, 0.9)] * 2, others=(("lynx", 0.9, 0.9),)),
    ]
    return index_of(rows, root, config=AuditConfig(induced="logistic,neighbours"))


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
