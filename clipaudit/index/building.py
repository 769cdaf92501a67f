"""The table of a clean index: how an audit fills it, and how other thresholds or marks change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clipaudit.auditing.method import Decision, EstimateScores, mean_probability
from clipaudit.config import AuditConfig
from clipaudit.copies.groups import CopyGroups
from clipaudit.images.quality import ISSUES, QualityIssues, flag_column, score_column
from clipaudit.index.check import (
    DUPLICATE_CONFLICT,
    DUPLICATE_GROUP,
    DUPLICATE_KIND,
    EXACT,
    LOOKS_LIKE,
    NEAR,
    OFF_TOPIC_SCORE,
    P_WRONG,
)
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.marks import overrule
from clipaudit.selectors.base import evidence
from clipaudit.vocabulary import OFF_TOPIC, SCORES, Verdict, verdicts_of


@dataclass(frozen=True)
class Strangers:
    """What shows none of the classes, among m samples.

    Attributes:
        score: (m,) float32, P(none of the classes | x).
        noun: (m,) int64, what they look like, a number in `nouns`.
        nouns: The words.
        background: The class that they belong to; -1 where there is none.
    """

    score: NDArray[np.float32]
    noun: NDArray[np.int64]
    nouns: Sequence[str]
    background: int

    @property
    def is_off_topic(self) -> NDArray[np.bool_]:
        """(m,) bool: rather none of the classes than any."""
        return self.score > OFF_TOPIC

    def misplaced(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(m,) bool: it shows none of the classes, and its one of the (m,) labels is not the background class."""
        return np.asarray(self.is_off_topic & (labels != self.background))

    def overruling(
        self, suggested: NDArray[np.int64], probability: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(m,) suggested classes, -1 for none, and their probabilities, where an image may show none of the classes."""
        is_off_topic = self.is_off_topic
        return np.where(is_off_topic, self.background, suggested), np.where(is_off_topic, self.score, probability)


@dataclass(frozen=True)
class Beside:
    """What an audit found beside the labels, among m readable samples; None where it could not, or nobody asked.

    Attributes:
        strangers: What shows none of the classes.
        copies: The groups of copies.
        quality: What is odd about the images themselves.
    """

    strangers: Strangers | None = None
    copies: CopyGroups | None = None
    quality: QualityIssues | None = None


def deciding_column(verdict: Verdict, config: AuditConfig) -> str:
    """The column of an index that this verdict's threshold is put on."""
    return verdict.estimate.column(evidence(verdict.selector, config))


def build_table(
    samples: pa.Table,
    root: str,
    labels: NDArray[np.int64],
    class_names: list[str],
    estimates: Mapping[str, EstimateScores],
    suggestion: tuple[NDArray[np.int64], NDArray[np.float32]],
    beside: Beside,
    decision: Decision,
    config: AuditConfig,
) -> pa.Table:
    """The index's table.

    Args:
        samples: `id`, `status` and `reason` of all n samples.
        root: What the ids are relative to.
        labels: (n,) class indices, of all samples.
        class_names: K names.
        estimates: Scores of the m readable samples, by name.
        suggestion: For these, the suggested class and its probability.
        beside: What else is known of these.
        decision: For these, the flags.
        config: What decided.
    """
    terms = config.estimates
    readable = np.asarray(pc.equal(samples["status"], "ok").to_numpy())

    def spread(values: NDArray[Any]) -> pa.Array:
        return _column(values, readable)

    def named(classes: NDArray[np.int64]) -> pa.Array:
        return class_column(_full(classes, readable), class_names, ~readable)

    suggested, probability = suggestion if beside.strangers is None else beside.strangers.overruling(*suggestion)
    known = _full(suggested, readable) >= 0
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "id": samples["id"],
        "path": pc.if_else(
            pc.starts_with(samples["id"], "/"), samples["id"], pc.binary_join_element_wise(root, samples["id"], "/")
        ),
        "label": class_column(labels, class_names),
        "is_clean": pa.array(_full(decision.is_clean, readable)),
        "clean_score": spread(decision.clean_score),
        P_WRONG: spread((1 - mean_probability(estimates, config)).astype(np.float32)),
        "suggested_label": class_column(_full(suggested, readable), class_names, ~(readable & known)),
        "suggested_probability": pa.array(_full(probability, readable), mask=~(readable & known)),
        **{verdict.column: spread(decision.verdicts[verdict.name]) for verdict in verdicts_of(terms)},
        "fallback": spread(decision.fallback),
    }
    for term in terms:
        found = estimates[term.name]
        columns[term.column("label")] = named(found.prediction)
        for score in SCORES:
            columns[term.column(score.name)] = spread(found[score.name])
    columns |= _beside_columns(beside, samples["id"], labels, readable)
    return pa.table({**columns, "status": samples["status"], "reason": samples["reason"]})


def _beside_columns(
    beside: Beside, ids: pa.ChunkedArray, labels: NDArray[np.int64], readable: NDArray[np.bool_]
) -> dict[str, pa.Array]:
    """The columns of what was found beside the labels."""

    def spread(values: NDArray[Any], known: NDArray[np.bool_] | None = None) -> pa.Array:
        return _column(values, readable, known)

    columns: dict[str, pa.Array] = {}
    if (strangers := beside.strangers) is not None:
        columns[OFF_TOPIC_SCORE] = spread(strangers.score)
        missing = ~_full(strangers.is_off_topic, readable)
        nouns = class_column(_full(strangers.noun, readable), strangers.nouns, missing)
        columns[LOOKS_LIKE] = nouns.cast(pa.string())
    if (copies := beside.copies) is not None:
        rows, is_copy = np.flatnonzero(readable), copies.is_copy
        groups, kinds = np.full((2, len(is_copy)), None, object)
        groups[is_copy] = ids.take(pa.array(rows[copies.first[is_copy]])).to_pylist()
        kinds[is_copy] = np.where(copies.near[is_copy], NEAR, EXACT)
        columns[DUPLICATE_GROUP] = spread(groups, is_copy).cast(pa.string())
        columns[DUPLICATE_KIND] = spread(kinds, is_copy).cast(pa.string())
        columns[DUPLICATE_CONFLICT] = spread(copies.conflicting(labels[readable]))
    if (quality := beside.quality) is not None:
        for issue in ISSUES:
            columns[flag_column(issue)] = spread(quality.found[issue], quality.measured)
            columns[score_column(issue)] = spread(quality.score[issue], quality.measured)
    return columns


def replace_decision(index: CleanIndex, decision: Decision, config: AuditConfig) -> CleanIndex:
    """The same scores with other flags; what a review said stays."""
    readable, table = index.readable, index.table
    decided: dict[str, NDArray[Any]] = {
        verdict.column: decision.verdicts[verdict.name] for verdict in verdicts_of(config.estimates)
    }
    decided |= {"clean_score": decision.clean_score, "fallback": decision.fallback}
    for name, values in decided.items():
        table = with_column(table, name, pa.array(_full(values, readable), mask=~readable))
    is_clean = _full(decision.is_clean, readable)
    if index.has_reviews:
        is_clean = overrule(is_clean, table["reviewed"], readable)
    table = with_column(table, "is_clean", pa.array(is_clean))
    return CleanIndex(table, replace(index.metadata, config=config))


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """The table with a column replaced in its place, or appended."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


def class_column(
    classes: NDArray[np.int64], class_names: Sequence[str], missing: NDArray[np.bool_] | None = None
) -> pa.DictionaryArray:
    """(n,) class indices as a column of names; null where a sample is `missing`."""
    indices = pa.array(classes.astype(np.int32), mask=missing)
    return pa.DictionaryArray.from_arrays(indices, pa.array(class_names, pa.string()))


def _column(values: NDArray[Any], readable: NDArray[np.bool_], known: NDArray[np.bool_] | None = None) -> pa.Array:
    """m values onto n rows, null where the image could not be read or the value is not known; a copy if there are."""
    if known is None and readable.all():
        return pa.array(values)
    return pa.array(_full(values, readable), mask=~(readable if known is None else _full(known, readable)))


def _full(values: NDArray[Any], readable: NDArray[np.bool_]) -> NDArray[Any]:
    """m values of the readable samples onto all n rows, zero elsewhere; the same array where all are readable."""
    if readable.all():
        return values
    full = np.zeros(len(readable), values.dtype)
    full[readable] = values
    return full
