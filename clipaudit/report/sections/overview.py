"""How many labels are in doubt, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipaudit.config import AuditConfig
from clipaudit.report.columns import Columns, Truth
from clipaudit.report.sections.base import Material
from clipaudit.report.wording import failing, listed
from clipaudit.reviews.estimate import Estimate, estimate
from clipaudit.reviews.survey import has_estimate
from clipaudit.vocabulary import EstimateTerm, verdicts_of


@dataclass(frozen=True)
class Known:
    """What the truth adds: wrong labels among the readable samples, and the share of them that the audit found."""

    n_wrong: int
    found: float | None


@dataclass(frozen=True)
class Failing:
    """Labels in doubt that fail this many verdicts.

    Attributes:
        n_verdicts: How many they fail.
        words: The same in words.
        share: Of all verdicts.
        count: Labels.
    """

    n_verdicts: int
    words: str
    share: float
    count: int


@dataclass(frozen=True)
class Overview:
    """How many labels are in doubt, and how sure we are.

    Attributes:
        source: Name of what was audited.
        n, n_readable, n_clean, n_in_doubt, n_rescued, n_reviewed, n_off_topic, n_classes: Counts.
        n_verdicts: Verdicts about each label.
        voting: Those that decided, in words, where it was not all of them together.
        failing: The samples in doubt by the number of verdicts that they fail, most first.
        agreeing: The estimates that are made independently, in words; empty where there are not two.
        n_agreed: In doubt, with all of these naming the same other class.
        estimate: How many labels are wrong, where a review says so.
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
    n_off_topic: int
    n_classes: int
    n_verdicts: int
    voting: str
    failing: Sequence[Failing]
    agreeing: str
    n_agreed: int
    estimate: Estimate | None
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
        """Share of the samples in doubt for which these estimates name the same other class."""
        return self.n_agreed / self.n_in_doubt if self.n_in_doubt else None


def overview(material: Material) -> Overview:
    """The first lines of the report."""
    columns = material.columns
    doubt, config, metadata = columns.in_doubt, columns.index.config, columns.index.metadata
    # An estimate that is made of others agrees with them anyway.
    independent = [term for term in config.estimates if not term.parts]
    return Overview(
        source=Path(metadata.source).name,
        n=len(columns),
        n_readable=int(columns.readable.sum()),
        n_clean=int(columns.is_clean.sum()),
        n_in_doubt=int(doubt.sum()),
        n_rescued=int((columns.fallback & ~columns.settled).sum()),
        n_reviewed=int(columns.reviewed.sum()),
        n_off_topic=int((columns.is_off_topic & ~columns.settled).sum()),
        n_classes=len(columns.class_names),
        n_verdicts=len(columns.failed),
        voting=_voting(config),
        failing=_failing(columns.failed[:, doubt]),
        agreeing=listed([_named(term) for term in independent]) if len(independent) > 1 else "",
        n_agreed=int((doubt & _agreed(columns, independent)).sum()),
        estimate=estimate(columns.index) if has_estimate(columns.index) else None,
        known=_known(columns, material.truth) if material.truth else None,
        warnings=metadata.warnings,
    )


def _voting(config: AuditConfig) -> str:
    if len(config.voting) == len(verdicts_of(config.estimates)) and config.combine == "intersection":
        return ""
    return f"{', '.join(verdict.title for verdict in config.voting)} ({config.combine})"


def _failing(failed: NDArray[np.bool_]) -> list[Failing]:
    n_verdicts = len(failed)
    counts = np.bincount(failed.sum(axis=0), minlength=n_verdicts + 1).tolist()
    return [Failing(n, words, n / n_verdicts, counts[n]) for n, words in failing(n_verdicts) if counts[n]]


def _named(term: EstimateTerm) -> str:
    return f"the {term.title}" if term.induced else term.title


def _agreed(columns: Columns, terms: Sequence[EstimateTerm]) -> NDArray[np.bool_]:
    """(n,) bool: all of these estimates name the same class, and not the label."""
    classes = np.stack([columns.predicted[term.name] for term in terms])
    return np.asarray((classes == classes[0]).all(axis=0) & (classes[0] != columns.scored))


def _known(columns: Columns, truth: Truth) -> Known:
    wrong = columns.readable & ~truth.right_scored
    n_wrong = int(wrong.sum())
    return Known(n_wrong, float((wrong & ~columns.audited_clean).sum() / n_wrong) if n_wrong else None)
