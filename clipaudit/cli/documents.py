"""The parts of JSON documents that several commands have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from clipaudit.calls.doubts import Doubts
    from clipaudit.calls.embed import EmbedSummary
    from clipaudit.index.clean_index import CleanIndex


def embedding(summary: EmbedSummary) -> dict[str, Any]:
    """What `embed` decided and did."""
    unreadable = [{"id": sample_id, "reason": reason} for sample_id, reason in summary.unreadable]
    return {**vars(summary), "unreadable": unreadable}


def selection(index: CleanIndex, file: Path, doubts: Doubts) -> dict[str, Any]:
    """What is in doubt: all that the terminal shows of an index, and each class."""
    return {
        "index": file,
        "source": index.metadata.source,
        "class": doubts.class_name,
        "counts": doubts.counts,
        "share_in_doubt": doubts.share_in_doubt,
        "wrong_labels": _wrong_labels(index),
        "copies": _copies(index),
        "classes": doubts.classes,
        "confusions": [{"given": given, "suggested": suggested, "n": n} for given, suggested, n in doubts.confusions],
        "decided": index.metadata.decided,
        "warnings": index.metadata.warnings,
    }


def _wrong_labels(index: CleanIndex) -> Any:
    """With its interval; None before a review."""
    from clipaudit.reviews.estimate import estimate
    from clipaudit.reviews.survey import has_estimate

    return estimate(index).wrong_labels if has_estimate(index) else None


def _copies(index: CleanIndex) -> dict[str, int] | None:
    """None where nobody looked for copies."""
    from clipaudit.index.copies import copies_in

    copies = copies_in(index.table)
    if copies is None:
        return None
    return {
        "n_samples": copies.n_samples,
        "n_groups": copies.n_groups,
        "n_in_conflict": int(copies.in_conflict.sum()),
        "n_conflicts": copies.n_conflicts,
    }
