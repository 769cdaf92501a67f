"""The embeddings cache: a folder of Parquet parts that can be interrupted, resumed, shared and checked.

    photos-clip/
      cache.json                         the model, the source and the plan: which parts, in which order
      plan.parquet                       the samples of each part, so that nobody need scan the source again
      parts/<part>.<checksum>.parquet    about 2,000 samples each: id, label, ..., facts of the image, embedding
      text/<prompts>.<checksum>.npy      text embeddings of the prompts used so far

A part is named after what went into it (model; ids, labels, sizes and times of its samples) and after the checksum of
its bytes. So a part that exists under its planned name is done, whoever wrote it; a damaged one is recognised; and as
the ids themselves draw the borders between parts, an added, removed or changed file touches one part only.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clipaudit.cache.info import AGAIN, CacheInfo, json_digest
from clipaudit.cache.matrix import ChosenRows, Vectors, allocate
from clipaudit.cache.parts import (
    DELETE,
    FACTS,
    MAX_PART,
    ImageFacts,
    checksum,
    holds_unreadable,
    part_columns,
    read_part,
)
from clipaudit.cache.texts import read_texts, write_texts
from clipaudit.errors import CacheError
from clipaudit.files import read_bounded, remove_stale, require_file, write_atomically
from clipaudit.options.arguments import typed
from clipaudit.remote import to_path
from clipaudit.samples.base import NOT_OPENED, Sample
from clipaudit.samples.stamps import mapped

MIN_PART, MEAN_PART = 1024, 2048
# A larger file is none of ours.
MAX_PART_BYTES = 1 << 30

Key = tuple[str, int, int]
# What is known of samples, whichever part they were in.
Rows = dict[Key, tuple[Vectors, ImageFacts | None]]


@dataclass(frozen=True)
class Embeddings:
    """A whole cache in memory (or, where it is large, in a temporary file that the system pages in).

    Attributes:
        table: One row a sample in source order: `id` (string), `label` (string), `status` ("ok" or "unreadable"),
            `reason` (string or null), and the columns FACTS (null where they are not known).
        vectors: (n, d) float16, unit rows; zero where the image could not be read.
        info: The cache's metadata.
    """

    table: pa.Table
    vectors: Vectors
    info: CacheInfo

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(n,) bool: samples that have an embedding."""
        return np.asarray(pc.equal(self.table["status"], "ok").to_numpy())

    @property
    def readable_rows(self) -> NDArray[np.int64] | None:
        """(m,) int64, the readable samples' rows, ascending; None where all are, so that nobody looks rows up."""
        readable = self.readable
        return None if readable.all() else np.flatnonzero(readable)

    @property
    def readable_vectors(self) -> Vectors | ChosenRows:
        """(m, d) float16, those of the readable samples, looked up when they are asked for: nothing is copied."""
        rows = self.readable_rows
        return self.vectors if rows is None else ChosenRows(self.vectors, rows)

    def without_vectors(self) -> Embeddings:
        """The same samples with nothing but what is known about them, which takes little memory."""
        return replace(self, vectors=np.zeros((0, self.info.fingerprint.dimension), np.float16))

    def without_facts(self) -> Embeddings:
        """The same without the columns FACTS."""
        return replace(self, table=self.table.drop_columns(list(FACTS)))


@typed
class EmbeddingsCache:
    """One cache folder. Opening it reads nothing but `cache.json`."""

    def __init__(self, path: Path, info: CacheInfo) -> None:
        self.path, self.info = path, info

    @classmethod
    @typed
    def open(cls, path: str | Path) -> EmbeddingsCache:
        """Open an existing cache.

        Raises:
            UnusableCacheError: no cache there, or its `cache.json` is damaged.
            CacheError: it may not be opened, or another version of clipaudit wrote it.
        """
        return cls(to_path(path), CacheInfo.read(to_path(path)))

    def save(self) -> None:
        """Write `cache.json`, and remove what killed runs left."""
        self.info.write(self.path)
        for folder in (self.path, self.path / "parts", self.path / "text"):
            remove_stale(folder)

    def part_name(self, samples: Sequence[Sample]) -> str:
        """The name of the part that holds these samples, embedded by this cache's model."""
        rows = [(sample.id, sample.label, sample.size, sample.modified) for sample in samples]
        return json_digest([self.info.fingerprint.digest, rows])

    def part_files(self) -> dict[str, Path]:
        """The files of all parts, by name."""
        return {file.name.split(".")[0]: file for file in self.files()}

    def files(self) -> list[Path]:
        """The files of all parts, in order of their names."""
        folder = self.path / "parts"
        try:
            files = sorted(folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CacheError(f"{folder} cannot be opened: {error.strerror}. Check its permissions.") from None
        return [file for file in files if fnmatchcase(file.name, "?*.?*.parquet")]

    def verified_parts(self) -> tuple[dict[str, Path], list[Path]]:
        """All parts whose checksum is right, by name, and the files of the damaged ones."""
        parts, damaged = {}, []
        for name, file in self.part_files().items():
            # Another run may have replaced it meanwhile.
            with suppress(FileNotFoundError):
                if file.name.split(".")[1] == checksum(read_bounded(file, MAX_PART_BYTES, CacheError)):
                    parts[name] = file
                else:
                    damaged.append(file)
        return parts, damaged

    def whole_parts(self, parts: Mapping[str, Path]) -> tuple[dict[str, bool], list[Path]]:
        """Of each of some parts, whether it holds unreadable images; and the files of those that are cut short.

        The ends of the files are read, not all bytes of them as by `verified_parts`.
        """
        found: dict[str, bool] = {}
        broken = []
        for (name, file), unreadable in zip(parts.items(), mapped(_unreadable_or_broken, parts.values()), strict=True):
            if unreadable is None:
                broken.append(file)
            else:
                found[name] = unreadable
        return found, broken

    def write_part(
        self,
        name: str,
        samples: Sequence[Sample],
        vectors: Vectors,
        reasons: Sequence[str | None],
        facts: Sequence[ImageFacts | None],
    ) -> None:
        """Write one part; afterwards it exists whole, or not at all.

        Args:
            name: What `part_name(samples)` gave.
            samples: n samples.
            vectors: (n, d) float16; zero rows where the image could not be read.
            reasons: Why an image could not be read, None where it could.
            facts: Of each image; None where it could not be read, or nobody knows.
        """
        dimension = self.info.fingerprint.dimension
        columns = {
            "id": pa.array([sample.id for sample in samples]),
            "label": pa.array([sample.label for sample in samples]),
            "size": pa.array([sample.size for sample in samples], pa.int64()),
            "modified": pa.array([sample.modified for sample in samples], pa.int64()),
            "status": pa.array(["ok" if reason is None else "unreadable" for reason in reasons]),
            "reason": pa.array(list(reasons), pa.string()),
            **{
                column: pa.array([known and known.value(column) for known in facts], kind)
                for column, kind in FACTS.items()
            },
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension),
        }
        table = pa.table(columns).replace_schema_metadata({"clipaudit.model": self.info.fingerprint.digest})
        buffer = io.BytesIO()
        # Half-precision mantissas have no repetitions: a dictionary of them would only cost time.
        pq.write_table(table, buffer, compression="zstd", use_dictionary=["label", "status", "reason"])
        data = buffer.getvalue()
        write_atomically(self.path / "parts" / f"{name}.{checksum(data)}.parquet", data)

    def remove_replaced(self, files: Iterable[Path]) -> None:
        """Remove files of parts of which another file has been written since."""
        old = set(files)
        there = {file.name.split(".")[0] for file in self.files() if file not in old} if old else set()
        for file in old:
            if file.name.split(".")[0] in there:
                file.unlink(missing_ok=True)

    def read_texts(self, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """(P, d) float32 unit rows, the embeddings of P texts by the cache's model; None where they are not kept."""
        shape = (len(texts), self.info.fingerprint.dimension)
        return read_texts(self.path / "text", self._texts_name(texts), shape)

    def write_texts(self, texts: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        """Keep what the cache's model made of P texts, (P, d) float32 unit rows, for `read_texts`."""
        write_texts(self.path / "text", self._texts_name(texts), embeddings)

    def _texts_name(self, texts: Sequence[str]) -> str:
        content = "\0".join([self.info.fingerprint.digest, *texts])
        return blake2b(content.encode(), digest_size=16).hexdigest()

    def rows_of(self, files: Iterable[Path]) -> Rows:
        """Embeddings and facts of samples from parts that are no longer planned, by (id, size, modified)."""
        rows: Rows = {}
        columns = self._columns("id", "size", "modified", "status", *FACTS, "embedding")
        for file in files:
            # Another run may have removed it meanwhile.
            with suppress(FileNotFoundError):
                if (table := read_part(file, columns, self.info.fingerprint.digest)) is not None:
                    table = table.filter(pc.equal(table["status"], "ok"))
                    keys = zip(*(table[name].to_pylist() for name in ("id", "size", "modified")), strict=True)
                    rows.update(zip(keys, zip(_vectors(table), _facts(table), strict=True), strict=True))
        return rows

    def unreadable(self, files: Iterable[Path]) -> list[tuple[str, str]]:
        """(id, reason) of the samples in these parts whose image could not be read."""
        found: list[tuple[str, str]] = []
        for file in files:
            # The end of a file says that there are none.
            if _unreadable_or_broken(file) is False:
                continue
            table = self._read_part(file, self._columns("id", "status", "reason"))
            if table is not None:
                table = table.filter(pc.not_equal(table["status"], "ok"))
                found.extend(zip(table["id"].to_pylist(), table["reason"].to_pylist(), strict=True))
        return found

    def not_opened(self, parts: Mapping[str, Path]) -> set[str]:
        """Names of the parts with an image that was there but could not be opened, so that it may be readable now."""
        names = set()
        for name, file in parts.items():
            table = self._read_part(file, self._columns("size", "reason"))
            if table is None:
                continue
            failed = pc.and_(pc.greater_equal(table["size"], 0), pc.match_substring(table["reason"], NOT_OPENED))
            if pc.any(failed).as_py():
                names.add(name)
        return names

    def without_quality(self, parts: Mapping[str, Path]) -> set[str]:
        """Names of the parts with an image that could be read, but whose quality nobody measured."""
        names = set()
        for name, file in parts.items():
            table = self._read_part(file, self._columns("status", "quality"))
            if table is not None and table.filter(pc.equal(table["status"], "ok"))["quality"].null_count:
                names.add(name)
        return names

    def read(self) -> Embeddings:
        """The whole cache as one array, in source order.

        Raises:
            CacheError: parts are missing (an interrupted run, other shards) or damaged.
        """
        parts, damaged = self.verified_parts()
        missing = sum(name not in parts for name, _ in self.info.plan)
        if missing:
            why = (
                f"{len(damaged)} of them damaged"
                if damaged
                else "embed was interrupted, or other shards still have to run"
            )
            command = self.info.command + (" --verify" if damaged and not self.info.fingerprint.is_own else "")
            raise CacheError(
                f"{self.path} is incomplete: {missing} of {len(self.info.plan)} parts are missing ({why})."
                f" Run the same command again; it goes on where it stopped: {command}"
            )
        vectors = allocate(self.info.n_samples, self.info.fingerprint.dimension, self.path)
        tables, start = [], 0
        columns = self._columns("id", "label", "status", "reason", *FACTS, "embedding")
        for name, count in self.info.plan:
            table = self._read_part(parts[name], columns)
            if table is None or len(table) != count:
                held = "embeddings of another model" if table is None else f"{len(table):,} samples, not {count:,}"
                raise CacheError(f"{parts[name]} holds {held}. {DELETE}")
            vectors[start : start + count] = _vectors(table)
            tables.append(table.drop_columns(["embedding"]))
            start += count
        return Embeddings(pa.concat_tables(tables).replace_schema_metadata(None), vectors, self.info)

    def _columns(self, *names: str) -> dict[str, pa.DataType]:
        columns = part_columns(self.info.fingerprint.dimension)
        return {name: columns[name] for name in names}

    def _read_part(self, file: Path, columns: Mapping[str, pa.DataType]) -> pa.Table | None:
        try:
            return read_part(file, columns, self.info.fingerprint.digest)
        except FileNotFoundError:
            raise CacheError(f"{file} is gone: another run changes this cache. {AGAIN}") from None


def split_into_parts(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Cut a stream of samples into parts, at borders that depend on the ids around them and not on what came before."""
    part: list[Sample] = []
    for sample in samples:
        part.append(sample)
        if len(part) == MAX_PART or (len(part) >= MIN_PART and _is_border(sample.id)):
            yield part
            part = []
    if part:
        yield part


def _is_border(sample_id: str) -> bool:
    digest = blake2b(sample_id.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % (MEAN_PART - MIN_PART) == 0


def _unreadable_or_broken(file: Path) -> bool | None:
    """See `holds_unreadable`; None of a broken file, or of one that is gone. CacheError where it may not be opened."""
    try:
        require_file(file, CacheError)
        return holds_unreadable(file)
    except (OSError, ValueError, pa.ArrowException):
        return None


def _facts(table: pa.Table) -> list[ImageFacts | None]:
    return [ImageFacts.of(row) for row in table.select(list(FACTS)).to_pylist()]


def _vectors(table: pa.Table) -> Vectors:
    column = table["embedding"].combine_chunks()
    dimension = column.type.list_size
    values: Vectors = column.values.to_numpy().reshape(-1, dimension)
    return values[column.offset : column.offset + len(column)]
