"""The shown samples as the page's script reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.index.fingerprints import labels_fingerprint
from clipaudit.report.choice import Choice
from clipaudit.report.columns import Columns, Truth
from clipaudit.report.thumbnails import Thumbnail
from clipaudit.report.wording import all_of, reasons
from clipaudit.vocabulary import EstimateTerm, verdicts_of

Sample = dict[str, Any]


def samples(columns: Columns, rows: NDArray[np.int64], images: list[Thumbnail], truth: Truth | None) -> list[Sample]:
    """One record a shown sample; templates/data.js tells what its keys mean.

    Args:
        columns: All samples.
        rows: Those shown.
        images: Their thumbnails.
        truth: Adds the true label and the kind of error.
    """
    failed = [np.flatnonzero(verdicts).tolist() for verdicts in columns.failed[:, rows].T]
    ids, whys = columns.strings("id", rows), reasons(columns, rows)
    records = []
    for row, sample_id, image, numbers, why in zip(rows.tolist(), ids, images, failed, whys, strict=True):
        record: Sample = {
            "id": sample_id,
            "given": int(columns.labels[row]),
            "suggested": int(columns.suggested[row]),
            "stranger": bool(columns.is_off_topic[row]),
            "offTopic": round(float(columns.off_topic[row]), 4),
            "probability": round(float(columns.probability[row]), 4),
            "score": round(float(columns.score[row]), 4),
            "clean": bool(columns.is_clean[row]),
            "rescued": bool(columns.fallback[row]),
            "settled": bool(columns.settled[row]),
            "failed": numbers,
            "why": why,
            "image": image.uri,
            "size": [image.width, image.height],
            "missing": image.reason,
        }
        if truth is not None:
            record["truth"], record["wrong"] = truth.names[row], not truth.right[row]
        records.append(record)
    return records


def payload(columns: Columns, choice: Choice, records: list[Sample]) -> dict[str, Any]:
    """Everything that the script needs."""
    number = {row: position for position, row in enumerate(choice.rows.tolist())}
    pairs, n_classes, estimates = choice.confusion, len(columns.class_names), columns.index.config.estimates
    in_doubt = columns.in_doubt[choice.rows].tolist()
    doubted = (record for record, doubt in zip(records, in_doubt, strict=True) if doubt and record["suggested"] >= 0)
    shown = sorted({(record["given"], record["suggested"]) for record in doubted})
    keys = pairs.given * n_classes + pairs.suggested
    place = np.argsort(keys)
    found = place[np.searchsorted(keys, [given * n_classes + other for given, other in shown], sorter=place)]
    counts = pairs.counts[found].tolist()
    return {
        "key": labels_fingerprint(columns.index),
        "inDoubt": int(columns.in_doubt.sum()),
        "classes": columns.class_names,
        "verdicts": [[verdict.estimate.title, verdict.selector.title] for verdict in verdicts_of(estimates)],
        "probability": f"probability, {_whose(estimates)}",
        "samples": records,
        "copies": [[number[row] for row in rows.tolist()] for rows in choice.conflicts],
        "odd": {issue: [number[row] for row in rows.tolist()] for issue, rows in choice.odd.items()},
        "cells": [[*pair, count] for pair, count in zip(shown, counts, strict=True)],
        "examples": {
            str(k): [[number[row] for row in side.tolist()] for side in sides] for k, sides in choice.examples.items()
        },
    }


def _whose(estimates: Sequence[EstimateTerm]) -> str:
    """Whose probability the suggested label has, in words."""
    if len(estimates) == 1:
        return f"by {estimates[0].title}"
    return f"the mean of {all_of(len(estimates))} estimates"
