"""`reselect`: from a clean index to another, by other thresholds on the same scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from clipaudit.auditing.method import decide
from clipaudit.auditing.plausibility import decision_warnings
from clipaudit.config import DECISION_FIELDS, AuditConfig
from clipaudit.errors import SourceError, UsageError
from clipaudit.index.building import replace_decision
from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.reviews.survey import calibrated


@typed
def reselect(index: CleanIndex, config: AuditConfig) -> CleanIndex:
    """Decide again on the scores of an index, with other thresholds, selectors or combination.

    What a review said stays: `apply_marks` before or after `reselect` gives the same rows.

    Raises:
        UsageError: the configuration differs in something that the scores depend on.
        SourceError: no label is selected.
    """
    held = index.config
    config = with_number(config, index.metadata.model_temperature)
    wanted, fixed = config.to_dict(), held.to_dict()
    if changed := [name for name in fixed if name not in DECISION_FIELDS and wanted[name] != fixed[name]]:
        raise UsageError(
            f"{', '.join(changed)} decided about the scores and cannot be changed now"
            f" ({', '.join(str(fixed[name]) for name in changed)} in the index)."
            " Run select on the embeddings cache again."
        )
    given = index.scored_labels()[index.readable]
    decision = decide(index.estimates(), given, len(index.class_names), config, index.first_copies)
    decided = replace_decision(index, decision, config)
    # Other selectors rank otherwise, and `p_wrong` follows the ranking.
    return with_warnings(calibrated(decided))


def with_number(config: AuditConfig, own: float | None) -> AuditConfig:
    """The configuration with the model's own temperature `own` where it says "model"."""
    if config.temperature != "model":
        return config
    if own is None:
        raise UsageError(
            "the index does not say which temperature is the model's own: an earlier clipaudit wrote it. Give the"
            " temperature as a number, or run select on the embeddings cache again."
        )
    return replace(config, temperature=own)


def with_warnings(index: CleanIndex) -> CleanIndex:
    """An index with the warnings about its scores and its verdicts; SourceError where nothing was selected at all."""
    readable, metadata = index.readable, index.metadata
    rescued = np.asarray(index.table["fallback"].filter(pa.array(readable)).to_numpy())
    is_clean = index.is_clean[readable]
    # An index of an earlier clipaudit has no warnings but those about its scores.
    about_scores = metadata.warnings if metadata.score_warnings is None else metadata.score_warnings
    if not (is_clean & ~rescued).any():
        raise SourceError(
            "; ".join([f"not one of {len(is_clean):,} labels was selected as clean", *about_scores])
            + ". Lower the thresholds, or look at labels, prompts and model."
        )
    about_verdicts = decision_warnings(
        index.class_names, index.labels()[readable], is_clean | index.settled[readable], rescued
    )
    return CleanIndex(index.table, replace(metadata, warnings=[*about_scores, *about_verdicts]))
