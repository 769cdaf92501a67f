"""The clean index: one row a sample, with every score, every verdict and the configuration that produced them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clipaudit.auditing.method import EstimateScores, decide
from clipaudit.config import AuditConfig
from clipaudit.copies.groups import first_rows
from clipaudit.errors import IndexFileError, UsageError
from clipaudit.files import check_images, check_output, write_atomically
from clipaudit.index.check import (
    OFF_TOPIC_SCORE,
    REVIEW_CHANCE,
    checked_table,
    columns_of,
    content_digest,
    is_number_type,
)
from clipaudit.index.copies import copies_in
from clipaudit.index.document import FORMAT, parsed_metadata, renamed, without_metadata
from clipaudit.index.file import REMEDY, read_table
from clipaudit.index.format1 import former_columns
from clipaudit.index.huggingface import KEY, features, with_indices, without_indices
from clipaudit.index.marks import settled_by
from clipaudit.index.metadata import IndexMetadata
from clipaudit.index.views import Predicate, class_numbers, data_frame, filtered, in_html, in_words, part_of
from clipaudit.options.arguments import typed
from clipaudit.remote import to_path
from clipaudit.spelling import Spellings
from clipaudit.vocabulary import OFF_TOPIC, SCORES

if TYPE_CHECKING:
    import pandas as pd

CLASSES_IN_A_MESSAGE = 10
# Whoever reads a file of many samples has room for these.
ROWS_A_GROUP = 1 << 17
_METADATA_KEY, _DIGEST_KEY = b"clipaudit", b"clipaudit.digest"


@typed
@dataclass(frozen=True, repr=False)
class CleanIndex:
    """An audit's result.

    Attributes:
        table: One row a sample in source order; docs/clean-index.md describes the columns.
        metadata: Everything that is needed to trace and repeat the audit.
        file: Where `read_index` read it, so that no report or export replaces it.
    """

    table: pa.Table
    metadata: IndexMetadata
    file: Path | None = field(default=None, compare=False)

    def __len__(self) -> int:
        """Number of samples, unreadable ones included."""
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"CleanIndex({in_words(self)}; source={self.metadata.source!r})"

    def _repr_html_(self) -> str:
        return in_html(self)

    @property
    def config(self) -> AuditConfig:
        """The configuration that decided."""
        return self.metadata.config

    @property
    def class_names(self) -> list[str]:
        """All K classes, in their order."""
        return list(self.metadata.class_names)

    @property
    def is_clean(self) -> NDArray[np.bool_]:
        """(n,) bool; False where the image could not be read."""
        return self._bools("is_clean")

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(n,) bool: the image was read, so that there are scores."""
        return np.asarray(pc.equal(self.table["status"], "ok").to_numpy())

    @property
    def clean_indices(self) -> NDArray[np.int64]:
        """Row numbers of the clean samples, ascending: what `torch.utils.data.Subset` takes."""
        return np.flatnonzero(self.is_clean)

    @property
    def reviewed(self) -> NDArray[np.bool_]:
        """(n,) bool: a person has marked the sample."""
        if not self.has_reviews:
            return np.zeros(len(self), bool)
        return np.asarray(pc.is_valid(self.table["reviewed"]).to_numpy())

    @property
    def settled(self) -> NDArray[np.bool_]:
        """(n,) bool: a person has decided about the sample; those who could not tell have not."""
        return settled_by(self.table["reviewed"]) if self.has_reviews else np.zeros(len(self), bool)

    @property
    def selected(self) -> NDArray[np.bool_]:
        """(n,) bool: what the selectors decided, before any review."""
        scores = pc.fill_null(self.table["clean_score"], 0.0).to_numpy()
        return np.asarray((scores >= 0.5) | self._bools("fallback"))

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """(n,) bool: `review` has drawn the sample."""
        if REVIEW_CHANCE not in self.table.column_names:
            return np.zeros(len(self), bool)
        return np.asarray(pc.fill_null(pc.greater(self.table[REVIEW_CHANCE], 0), False).to_numpy())

    @property
    def off_topic(self) -> NDArray[np.bool_]:
        """(n,) bool: the image shows rather none of the classes than any."""
        if OFF_TOPIC_SCORE not in self.table.column_names:
            return np.zeros(len(self), bool)
        return np.asarray(pc.fill_null(pc.greater(self.table[OFF_TOPIC_SCORE], OFF_TOPIC), False).to_numpy())

    @property
    def first_copies(self) -> NDArray[np.int64] | None:
        """(m,) of each of the m readable samples the first of them with the same image; None where nobody looked."""
        copies = copies_in(self.table)
        return None if copies is None else first_rows(copies.group[self.readable])

    @property
    def in_doubt(self) -> NDArray[np.bool_]:
        """(n,) bool: read, not called clean, and not settled by a person."""
        return self.readable & ~self.is_clean & ~self.settled

    @property
    def noise_rate(self) -> float:
        """Share of the readable samples whose label is in doubt, in [0, 1]."""
        readable = self.readable
        return float(self.in_doubt[readable].mean()) if readable.any() else 0.0

    @property
    def has_reviews(self) -> bool:
        """A person's marks were applied: there are the columns `reviewed` and `label_given`."""
        return "reviewed" in self.table.column_names

    @typed
    def class_index(self, name: str) -> int:
        """The number of a class, by its name or by another spelling of it that could mean no other class.

        Raises:
            UsageError: there is no such class.
        """
        number = self._spellings.find(name)
        if number is None:
            names = self.class_names
            listed = ", ".join(names[:CLASSES_IN_A_MESSAGE]) + (", ..." if len(names) > CLASSES_IN_A_MESSAGE else "")
            raise UsageError(f"the index has no class {name!r}. Its classes: {listed}.")
        return number

    @cached_property
    def _spellings(self) -> Spellings:
        return Spellings(self.class_names)

    def labels(self) -> NDArray[np.int64]:
        """(n,) class index of each label, as a review left it."""
        return self._class_indices("label")

    def scored_labels(self) -> NDArray[np.int64]:
        """(n,) class index of the label that the scores are about: the given one, before any review."""
        return self._class_indices("label_given" if self.has_reviews else "label")

    def suggested_labels(self) -> NDArray[np.int64]:
        """(n,) class index of each suggested label; -1 where there is none."""
        return self._class_indices("suggested_label")

    def ranking(self) -> NDArray[np.float64]:
        """(m,) scores in [0, 1] of the m readable samples, higher where the label looks cleaner.

        It is `clean_score` without regard to the threshold, which is a number on this scale.
        """
        if self.config.threshold == AuditConfig.threshold:
            return np.asarray(self.table["clean_score"].filter(pa.array(self.readable)).to_numpy())
        undecided = replace(self.config, threshold=AuditConfig.threshold)
        labels = self.scored_labels()[self.readable]
        return decide(self.estimates(), labels, len(self.class_names), undecided).clean_score

    def estimates(self) -> dict[str, EstimateScores]:
        """The scores of the readable samples, as `decide` takes them."""
        rows = self.table.filter(pc.equal(self.table["status"], "ok"))
        index = CleanIndex(rows, self.metadata)
        result = {}
        for term in self.config.estimates:
            scores = {score.name: rows[term.column(score.name)].to_numpy() for score in SCORES}
            result[term.name] = EstimateScores(index._class_indices(term.column("label")), scores)
        return result

    def to_pandas(self) -> pd.DataFrame:
        """All rows and columns as a data frame; class columns are categories, in the order of the classes.

        Raises:
            UsageError: pandas is not installed.
        """
        return data_frame(self)

    def filter(self, condition: Sequence[bool] | NDArray[np.bool_] | pc.Expression | Predicate) -> CleanIndex:
        """An index of those samples that a condition holds for, in the same order; nothing is decided again.

        Args:
            condition: (n,) True or False for each sample; an expression such as `pc.field("p_wrong") > 0.9`; or a
                function that is given each row as a dictionary. Where it says null, the sample is left out.

        Raises:
            UsageError: it is none of these, or of another length.
        """
        return replace(self, table=filtered(self.table, condition))

    def subset(self, dataset: Any) -> Any:
        """The clean part of the data set that was audited.

        Args:
            dataset: One item a sample, in the order of the index: a data set of Hugging Face `datasets`, or anything
                with a length and numbered items, such as a data set of PyTorch.

        Returns:
            A `datasets.Dataset`, or a `torch.utils.data.Subset`.

        Raises:
            UsageError: it has another number of items, or none.
        """
        return part_of(dataset, self.clean_indices, len(self))

    @typed
    def check_output(self, path: str | Path, inputs: Iterable[str | Path | None] = ()) -> None:
        """Refuse a file that cannot be written, or that would replace an input, the source or an image of the index.

        Raises:
            UsageError, ClipAuditError: as `clipaudit.files.check_output`.
        """
        check_output(path, [*inputs, self.metadata.source])
        ids = (sample_id for chunk in self.table["id"].chunks for sample_id in chunk.to_pylist())
        check_images(path, ids, self.metadata.root)

    @typed
    def write(self, path: str | Path) -> None:
        """Write the index as Parquet; the file appears whole or not at all.

        Raises:
            UsageError, ClipAuditError: as `check_output`, the disk is full, or the table has a column of its own by a
                name that the file needs.
        """
        self.check_output(path)
        content = {"format": FORMAT, **self.metadata.to_dict()}
        document = json.dumps(content, ensure_ascii=False, sort_keys=True).encode()
        digest = content_digest(self.table, columns_of(self.config.estimates), document).encode()
        table = with_indices(self.table, self.class_names)
        said = {_METADATA_KEY: document, _DIGEST_KEY: digest, KEY: features(table, self.class_names)}
        table = table.replace_schema_metadata(said)
        # Numbers hardly repeat: a dictionary of them would make the file larger.
        repeated = [field.name for field in table.schema if not is_number_type(field.type)]
        how: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": repeated}
        write_atomically(to_path(path), lambda file: pq.write_table(table, file, ROWS_A_GROUP, **how))

    def _bools(self, column: str) -> NDArray[np.bool_]:
        return np.asarray(pc.fill_null(self.table[column], False).to_numpy())

    def _class_indices(self, column: str) -> NDArray[np.int64]:
        return class_numbers(self.table[column].cast(pa.string()), self.class_names)


@typed
def read_index(path: str | Path) -> CleanIndex:
    """Read a clean index, after a check of everything in it.

    Raises:
        IndexFileError: there is no such file, `clipaudit select` did not write it, it is damaged, or other software
            changed it; the message names the column and row.
    """
    path = to_path(path)
    table = read_table(path)
    found = table.schema.metadata or {}
    if _METADATA_KEY not in found:
        raise IndexFileError(without_metadata(path, table))
    document = found[_METADATA_KEY]
    number, metadata = parsed_metadata(path, document)
    estimates = metadata.config.estimates
    columns = former_columns(estimates) if number == 1 else columns_of(estimates)
    checked = checked_table(table.replace_schema_metadata(None), columns, metadata.class_names)
    if isinstance(checked, str):
        raise IndexFileError(f"{path} is no valid clean index: {checked}. {REMEDY}")
    if _DIGEST_KEY in found and content_digest(checked, columns, document) != found[_DIGEST_KEY].decode(
        errors="replace"
    ):
        raise IndexFileError(
            f"{path} is not as clipaudit wrote it: it is damaged, or other software changed it. {REMEDY}"
            " To change an index yourself, use clipaudit.CleanIndex(table, metadata).write(path)."
        )
    checked = without_indices(checked, metadata.class_names, found)
    if isinstance(checked, str):
        raise IndexFileError(f"{path} is not as clipaudit wrote it: {checked}. {REMEDY}")
    return CleanIndex(renamed(path, checked, estimates) if number == 1 else checked, metadata, path)
