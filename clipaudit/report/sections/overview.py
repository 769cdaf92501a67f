"""How many labels are in doubt, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipaudit.auditing.method import ESTIMATES
from clipaudit.report.columns import Columns, Truth
from clipaudit.report.sections.base import Material
from clipaudit.report.wording import INDUCED_IN_WORDS
from clipaudit.selectors.combine import SELECTORS


@dataclass(frozen=True)
class Known:
    """What the truth adds: wrong labels among the readable samples, and the share of them that the audit found."""

    n_wrong: int
    found: float | None


@dataclass(frozen=True)
class Overview:
    """How many labels are in doubt, and how sure we are.

    Attributes:
        source: Name of what was audited.
        n, n_readable, n_clean, n_in_doubt, n_rescued, n_reviewed, n_classes: Counts.
        induced: What the second estimate is called.
        independent: It does not contain the first.
        voting: The selectors that decided, in words where they were not all four.
        failed: Of the samples in doubt, how many fail 0, 1, 2, 3 and 4 of the selectors.
        n_agreed: In doubt, with both estimates naming the same other class.
        known: None where the truth is not.
        warnings: Of the audit.
    """

    source: str
    n: int
    n_readable: int
    n_clean: int
    n_in_doubt: int
    n_rescued: int
    n_reviewed: int
    n_classes: int
    induced: str
    independent: bool
    voting: str
    failed: Sequence[int]
    n_agreed: int
    known: Known | None
    warnings: Sequence[str]

    @property
    def n_unreadable(self) -> int:
        """Samples without scores."""
        return self.n - self.n_readable

    @property
    def noise_rate(self) -> float:
        """Share of the readable samples that is in doubt."""
        return self.n_in_doubt / self.n_readable if self.n_readable else 0.0

    @property
    def agreed_share(self) -> float | None:
        """Share of the samples in doubt for which both estimates name the same other class."""
        return self.n_agreed / self.n_in_doubt if self.n_in_doubt else None


def overview(material: Material) -> Overview:
    """The first lines of the report."""
    columns = material.columns
    doubt = columns.in_doubt
    zero_shot, induced = (columns.predicted[name] for name in ESTIMATES)
    agreed = doubt & (zero_shot == induced) & (zero_shot != columns.scored)
    votes = columns.failed[:, doubt].sum(axis=0)
    metadata, config = columns.index.metadata, columns.index.config
    all_voted = len(config.selectors) == len(SELECTORS) and config.combine == "intersection"
    return Overview(
        source=Path(metadata["source"]).name,
        n=len(columns),
        n_readable=int(columns.readable.sum()),
        n_clean=int(columns.is_clean.sum()),
        n_in_doubt=int(doubt.sum()),
        n_rescued=int((columns.fallback & ~columns.reviewed).sum()),
        n_reviewed=int(columns.reviewed.sum()),
        n_classes=len(columns.class_names),
        induced=f"the {INDUCED_IN_WORDS[config.induced][0]}",
        independent=config.induced != "joint",
        voting="" if all_voted else f"{', '.join(config.selectors).replace('_', ' ')} ({config.combine})",
        failed=np.bincount(votes, minlength=len(SELECTORS) + 1).tolist(),
        n_agreed=int(agreed.sum()),
        known=_known(columns, material.truth) if material.truth else None,
        warnings=metadata["warnings"],
    )


def _known(columns: Columns, truth: Truth) -> Known:
    wrong = columns.readable & ~truth.right_scored
    n_wrong = int(wrong.sum())
    return Known(n_wrong, float((wrong & ~columns.audited_clean).sum() / n_wrong) if n_wrong else None)
