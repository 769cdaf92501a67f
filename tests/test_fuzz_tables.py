"""Mutated and generated tables: each call gives a result or a ClipAuditError, soon and within bounded memory."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import campaign, size

from clipaudit import CleanIndex
from clipaudit.calls.apply import apply_marks
from clipaudit.samples import ManifestSource, SourceOptions, open_source, read_column
from clipaudit.samples.parquet import ParquetSource

IDS = [f"{('cat', 'dog')[number % 2]}/{number}.jpg" for number in range(8)]
ROWS_READ = 2000
TEXTS = [
    *IDS,
    *[
        "cat",
        "dog",
        "",
        " ",
        "\0",
        "\t",
        '"',
        "'",
        "=1+1",
        "-",
        "?",
        "nan",
        "None",
        "²",
        "--5",
        "٣",
        "0.0",
        "7",
        "\ud800",
    ],
    *[
        "a" * 5000,
        "C:\\x\\1.jpg",
        "/dev/zero",
        "/proc/self/mem",
        "..",
        "/",
        "~",
        "cafe\u0301",
        "\u202e",
        "\ufeff",
        "\r\n",
    ],
    *["right", "relabel", "drop", "path,label", "9" * 5000, "http://x/1.jpg", ".", "x/" * 300, "NaT", "{}", "[1]"],
]
VALUES = [*TEXTS, None, True, 0, -1, 7, 10**30, 2**63, 0.0, 1.5, float("nan"), float("inf"), [1], {"a": 1}, [[]], {}]
COLUMNS = [
    "path",
    "label",
    "id",
    "mark",
    "image",
    "file_name",
    "Label ",
    " path",
    "",
    "note",
    "a;b",
    "x" * 300,
    "y",
    "c.d",
]


@dataclass(frozen=True)
class Case:
    """A file by ending and content, and which reader gets it."""

    ending: str
    content: bytes
    reader: str
    number: int

    def __repr__(self) -> str:
        return f"number {self.number}, {self.reader}, .{self.ending}, {self.content[:150]!r}"


def cases(n: int) -> Iterator[Case]:
    makers: list[tuple[str, Callable[[random.Random], bytes]]] = [
        ("csv", delimited),
        ("tsv", delimited),
        ("jsonl", json_lines),
        ("parquet", parquet),
    ]
    for number in range(n):
        generator = random.Random(number)
        ending, make = makers[number % len(makers)]
        content = make(generator)
        if generator.random() < 0.4:
            content = mutated(content, generator)
        yield Case(ending, content, generator.choice(["manifest", "source", "labels", "labels", "marks"]), number)


def table(generator: random.Random, values: list[Any]) -> tuple[list[str], list[list[Any]]]:
    kind = generator.random()
    if kind < 0.35:
        columns = ["id", "mark", "label"]
    elif kind < 0.7:
        columns = [
            generator.choice(["path", "id", "file_name", "Path "]),
            generator.choice(["label", "class", "LABEL"]),
        ]
    else:
        columns = [generator.choice(COLUMNS) for _ in range(generator.randint(0, 5))]
    n = generator.choice([0, 1, 8, 8, 8, 24])
    rows = [[plausible(column, number) for column in columns] for number in range(n)]
    generator.shuffle(rows)
    for _ in range(generator.choice([0, 0, 1, 3])):
        if rows and columns:
            generator.choice(rows)[generator.randrange(len(columns))] = generator.choice(values)
    return columns, rows


def plausible(column: str, number: int) -> str:
    sample_id = IDS[number % len(IDS)]
    if column.strip().lower() in ("path", "id", "file_name", "image"):
        return sample_id
    return "right" if column == "mark" else sample_id.split("/")[0]


def delimited(generator: random.Random) -> bytes:
    columns, rows = table(generator, TEXTS)
    file = io.StringIO()
    writer = csv.writer(
        file, delimiter=generator.choice(",,,;\t|"), lineterminator=generator.choice(["\n", "\r\n", "\r"])
    )
    writer.writerows([columns, *rows])
    encoding = generator.choice(["utf-8"] * 4 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
    return file.getvalue().encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")


def json_lines(generator: random.Random) -> bytes:
    columns, rows = table(generator, VALUES)
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    odd = [
        '{"a":' * 2000,
        "[" * 50_000,
        "7" * 5000,
        '{"label": ' + "7" * 5000 + "}",
        "null",
        "{}",
        '{"path": "\\ud800"}',
    ]
    for _ in range(generator.choice([0, 0, 1])):
        lines.insert(generator.randint(0, len(lines)), generator.choice(odd))
    return "\n".join(lines).encode()


def parquet(generator: random.Random) -> bytes:
    columns, rows = table(generator, [text for text in TEXTS if text != "\ud800"])
    n = len(rows)
    arrays = [
        odd_array(n, generator) if generator.random() < 0.15 else pa.array(column) for column in zip(*rows, strict=True)
    ]
    arrays = arrays if rows else [pa.array([], pa.string()) for _ in columns]
    made = pa.Table.from_arrays(arrays, names=columns)
    nested = b'{"info":' * generator.choice([1, 5000]) + b"1"
    made = made.replace_schema_metadata({generator.choice(["huggingface", "pandas", "x"]): nested})
    file = io.BytesIO()
    try:
        pq.write_table(
            made,
            file,
            compression=generator.choice(["none", "zstd", "snappy"]),
            use_dictionary=generator.random() < 0.5,
            store_schema=generator.random() < 0.7,
        )
    except pa.ArrowException:  # Not everything that Arrow knows can be written.
        return b"PAR1"
    return file.getvalue()


def odd_array(n: int, generator: random.Random) -> pa.Array:
    numbers = np.random.default_rng(generator.randrange(1 << 30)).integers(-(2**62), 2**62, n)
    raw = pa.py_buffer(bytes(generator.randrange(256) for _ in range(4 * n)))
    offsets = pa.py_buffer(np.arange(0, 4 * n + 1, 4, dtype=np.int32))
    makers: list[Callable[[], pa.Array]] = [
        lambda: pa.Array.from_buffers(pa.string(), n, [None, offsets, raw]),
        lambda: pa.Array.from_buffers(pa.binary(), n, [None, offsets, raw]),
        lambda: pa.array(numbers).cast(pa.int64()).view(pa.date64()),
        lambda: pa.array(numbers).view(pa.duration(generator.choice(["s", "ns"]))),
        lambda: pa.array(numbers).view(
            pa.timestamp(generator.choice(["ms", "us", "ns"]), generator.choice([None, "UTC", "No/Where"]))
        ),
        lambda: pa.array(numbers).view(pa.float64()),
        lambda: pa.array(numbers >> 32).cast(pa.int32()).view(pa.time32("ms")),
        lambda: pa.array([["x"]] * n),
        lambda: pa.array([{"bytes": b"x", "path": None}] * n),
        lambda: pa.nulls(n),
        lambda: pa.array([10**30] * n, pa.decimal128(38, 2)),
        lambda: pa.array([generator.choice(["cat", "dog", None]) for _ in range(n)]).dictionary_encode(),
        lambda: pa.array([generator.choice(IDS) for _ in range(n)], pa.large_string()),
        lambda: pa.array([generator.choice(IDS) for _ in range(n)], pa.string_view()),
        lambda: pa.array([b"\xff\xd8"] * n, pa.binary(2)),
        lambda: pa.array([True] * n),
        lambda: pa.array(np.arange(n), pa.float32()),
    ]
    return generator.choice(makers)()


def mutated(content: bytes, generator: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(generator.choice([1, 1, 3, 20])):
        place = generator.randint(0, len(data))
        length = generator.choice([1, 1, 4, 40])
        kind = generator.randrange(5)
        if kind == 0:
            data[place : place + length] = bytes(generator.randrange(256) for _ in range(length))
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length] * generator.choice([1, 50])
        elif kind == 3:
            data[place:place] = generator.choice(TEXTS).encode("utf-8", "replace")
        elif place < len(data):
            data[place] ^= 1 << generator.randrange(8)
    return bytes(data)


@pytest.fixture(scope="module")
def small_index(noisy_index: CleanIndex) -> CleanIndex:
    table = noisy_index.table.slice(0, len(IDS)).set_column(0, "id", pa.array(IDS))
    labels = pa.array(["cat", "dog"] * (len(IDS) // 2)).dictionary_encode()
    table = table.set_column(table.column_names.index("label"), "label", labels)
    return CleanIndex(table, replace(noisy_index.metadata, class_names=["cat", "dog"]))


def test_tables(small_index: CleanIndex, tmp_path: Path) -> None:
    def call(case: Case) -> None:
        path = tmp_path / f"t.{case.ending}"
        path.write_bytes(case.content)
        if case.reader == "labels":
            names = ["cat", "dog"] if case.number % 3 == 0 else None
            assert len(read_column(path, IDS, tmp_path, names=names).values) == len(IDS)
        elif case.reader == "marks":
            assert len(apply_marks(small_index, path)[0]) == len(IDS)
        else:
            opened = open_source(path) if case.reader == "source" else ManifestSource(path, SourceOptions())
            samples = list(opened.samples())
            assert all(sample.label.strip() and sample.id for sample in samples)
            if isinstance(opened, ParquetSource):
                opened.notes()

    campaign("tables", cases(size(400)), call, seconds=10)
