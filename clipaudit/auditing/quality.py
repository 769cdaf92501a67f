"""What is odd about the quality of embedded images, and how much, in words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipaudit.cache.embeddings import Embeddings
from clipaudit.errors import UsageError
from clipaudit.images.quality import ISSUES, MEASURES, QualityIssues, quality_issues


def quality_of(embeddings: Embeddings) -> tuple[QualityIssues | None, str | None]:
    """The issues of the readable images and a summary; None and why where they are not known; twice None unasked."""
    if embeddings.table["quality"].null_count == len(embeddings.table):
        return None, None
    table = embeddings.table.select(["quality"]).filter(pa.array(embeddings.readable))
    measures = {name: np.asarray(pc.struct_field(table["quality"], name).to_numpy(), np.float64) for name in MEASURES}
    measured = np.asarray(np.isfinite(np.stack(list(measures.values()))).all(axis=0))
    if not measured.any():
        return None, None
    try:
        issues = quality_issues(measures, measured)
    except UsageError as error:
        return None, f"measured, but not judged: {error}"
    counts = [f"{int(issues.found[name].sum()):,} {name.replace('_', ' ')}" for name in ISSUES]
    of = "" if measured.all() else f" (of {int(measured.sum()):,} images that were measured)"
    return issues, f"{', '.join(counts)}{of}: reasons to look, which decide nothing"
