"""The saved plan of a cache: `plan.parquet`, with the samples of each part in a row group of its own.

Whoever embeds a part reads its row group and scans no source. A row group is checked by the name of its part, which is
a hash of its rows; all else in the file by a checksum. A damaged plan is none: it is made again. The file's time is
that of the beginning of the scan.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from clipaudit.cache.embeddings import EmbeddingsCache, split_into_parts
from clipaudit.cache.info import json_digest
from clipaudit.cache.parts import MAX_PART
from clipaudit.files import write_atomically
from clipaudit.remote import is_remote, library_input
from clipaudit.samples.base import CROPS, FILES, FaultySample, Sample, Source
from clipaudit.samples.stamps import Stamp, Stamped, mapped, same_images, settled, stamp

NAME = "plan.parquet"
# In the metadata of the schema, by which clipaudit knows its own files; and in those of the file, where facts fit that
# are known last.
_MARK, _FACTS = b"clipaudit.plan", b"clipaudit.plan.facts"
_SCHEMA = pa.schema(
    {"id": pa.string(), "label": pa.string(), "size": pa.int64(), "modified": pa.int64(), "fault": pa.string()},
    {_MARK: b"1"},
)
_FORM = {"compression": "zstd", "write_page_checksum": True, "write_statistics": False}


@dataclass(frozen=True)
class PlanFacts:
    """What a plan says beside its samples.

    Attributes:
        key: A hash of what was read, how, and for which model.
        parts: Names and numbers of samples, in source order.
        classes: Number of samples of each class.
        decided, notes: What the source said of itself.
        stamps: What the samples depend on beside the files of the images; see `clipaudit.samples.stamps`.
    """

    key: str
    parts: list[tuple[str, int]]
    classes: dict[str, int]
    decided: dict[str, str]
    notes: list[str]
    stamps: dict[str, Stamp]


class SavedPlan:
    """A plan on disk, of a cache's model and folder."""

    def __init__(self, store: EmbeddingsCache, facts: PlanFacts) -> None:
        self._store, self.facts = store, facts
        self.file = store.path / NAME

    @classmethod
    def read(cls, store: EmbeddingsCache) -> SavedPlan | None:
        """The plan in a cache; None where there is none, or a damaged one, or one of another version."""
        try:
            content = json.loads(pq.read_metadata(library_input(store.path / NAME)).metadata[_FACTS])
            if content.pop("checksum") != json_digest(content):
                return None
            content["parts"] = [(name, count) for name, count in content["parts"]]
            content["stamps"] = {path: (size, changed) for path, (size, changed) in content["stamps"].items()}
            return cls(store, PlanFacts(**content))
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
            return None

    def parts(self, names: Collection[str]) -> Iterator[tuple[str, list[Sample]]]:
        """Name and samples of each of some parts, in the plan's order.

        It ends early, and removes the plan, where that is damaged; or was replaced by another run.
        """
        try:
            with pq.ParquetFile(library_input(self.file), page_checksum_verification=True) as file:
                for number, (name, _) in enumerate(self.facts.parts):
                    if name in names:
                        samples = _samples(file.read_row_group(number))
                        if self._store.part_name(samples) != name:
                            raise ValueError("other samples than the part's name says")
                        yield name, samples
        except (OSError, ValueError, pa.ArrowException):
            self.file.unlink(missing_ok=True)

    def unchanged_parts(self, names: Collection[str]) -> Iterator[tuple[str, list[Sample]]]:
        """The same, without those of images that have changed since."""
        info = self._store.info
        for name, samples in self.parts(names):
            # What a store has changed is seen when it is listed at the next start.
            if is_remote(info.root_path) or same_images(info.root_path, info.access or "", samples):
                yield name, samples

    def is_current(self) -> bool:
        """Whether everything that its samples depend on is as it was, but for the files of the images."""
        stamps = self.facts.stamps
        return all(now == then for now, then in zip(mapped(stamp, stamps), stamps.values(), strict=True))

    def is_of(self, source: Source, key: str) -> bool:
        """Whether the source, just opened, would give the same samples, but for images that have changed."""
        # Which files a source has is found out when it is opened; which folders, when they are read.
        opened = dict(source.stamps) if isinstance(source, Stamped) else {}
        return (
            self.facts.key == key
            and bool(self.facts.stamps)
            and settled(self.facts.stamps, stamp(self.file)[1])
            and (not opened or opened == self.facts.stamps)
            and self.is_current()
        )


def write_plan(
    store: EmbeddingsCache,
    source: Source,
    key: str,
    scanned: Callable[[int], None],
    accept: Callable[[set[str]], None],
) -> SavedPlan:
    """Scan a source once, and save the plan in the cache, whole or not at all.

    Args:
        store: The cache; its model names the parts.
        source: What is scanned.
        key: See `PlanFacts`.
        scanned: Called with the number of samples so far.
        accept: Called with the names of all parts before anything is replaced; it may raise.

    Raises:
        SourceError: the source has a fault.
        ClipAuditError: the cache's folder cannot be written.
    """
    began = time.time_ns()
    made: list[SavedPlan] = []

    def write(file: BinaryIO) -> None:
        parts, classes = [], Counter[str]()
        with pq.ParquetWriter(file, _SCHEMA, **_FORM) as to:
            for part in split_into_parts(source.samples()):
                parts.append((store.part_name(part), len(part)))
                classes.update(sample.label for sample in part)
                to.write_table(_table(part), row_group_size=MAX_PART)
                scanned(classes.total())
            accept({name for name, _ in parts})
            stamps = dict(source.stamps) if isinstance(source, Stamped) else {}
            # To look at each image of a store would be to list it, without what is new there; and a file there does not
            # keep the time that it is given.
            is_far = is_remote(store.path) or (is_remote(source.root) and source.access in (FILES, CROPS))
            known = {} if is_far else stamps
            facts = PlanFacts(key, parts, dict(classes), source.decided(), source.notes(), known)
            to.add_key_value_metadata({_FACTS: _json(facts)})
        # Which stamps are settled depends on when the scan began. In the file, that would make other bytes each time.
        file.flush()
        os.utime(file.name, ns=(began, began))
        made.append(SavedPlan(store, facts))

    write_atomically(store.path / NAME, write)
    return made[0]


def _json(facts: PlanFacts) -> str:
    content: dict[str, Any] = json.loads(json.dumps(asdict(facts)))
    return json.dumps({**content, "checksum": json_digest(content)}, ensure_ascii=False)


def _table(samples: list[Sample]) -> pa.Table:
    columns: Mapping[str, list[Any]] = {
        **{name: [getattr(sample, name) for sample in samples] for name in ("id", "label", "size", "modified")},
        "fault": [sample.reason if isinstance(sample, FaultySample) else None for sample in samples],
    }
    return pa.table(columns, _SCHEMA)


def _samples(table: pa.Table) -> list[Sample]:
    rows = zip(*(table[name].to_pylist() for name in _SCHEMA.names), strict=True)
    return [Sample(*row[:-1]) if row[-1] is None else FaultySample(*row) for row in rows]
