"""Clean indexes and caches that were mutated: a result or an error that explains, and nothing that changes silently.

CLIPAUDIT_FUZZ=2000 tries 2,000 cases in each campaign.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, write_class_folders
from fuzzing import LostError, campaign, size

import clipaudit
from clipaudit import CleanIndex
from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.cache.parts import checksum
from clipaudit.calls.doubts import find_doubts
from clipaudit.calls.threshold import reviewed_threshold
from clipaudit.report import write_report

JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    7,
    10**30,
    0.5,
    float("nan"),
    1e999,
    "",
    "x",
    "\0",
    "\ud800",
    [],
    [None],
    {},
    {"a": 1},
]


@dataclass(frozen=True)
class Base:
    """An audit of few images, as files."""

    images: Path
    cache: Path
    indexes: list[Path]
    marks: Path
    truth: Path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    root = tmp_path_factory.mktemp("base")
    truth = write_class_folders(root / "images", 90, rate=0.2)
    for broken in sorted((root / "images").rglob("*.png"))[3::40]:
        broken.write_bytes(b"no image")
    clipaudit.embed(root / "images", cache=root / "cache", encoder=DIGITS)
    index = clipaudit.select(root / "cache", device="cpu")
    index.write(root / "clean.parquet")
    ids = index.table["id"].to_pylist()
    (root / "marks.csv").write_text(f"id,mark,label\n{ids[0]},right,\n{ids[5]},drop,\n{ids[9]},relabel,three\n")
    (root / "truth.csv").write_text("path,label\n" + "".join(f"{name},{label}\n" for name, label in truth.items()))
    clipaudit.apply_marks(index, root / "marks.csv")[0].write(root / "reviewed.parquet")
    queue = clipaudit.review(index, budget=60)
    lines = [f"{name},{'right' if name.split('/')[0] == truth[name] else 'drop'}," for name in queue.ids]
    (root / "queue.csv").write_text("\n".join(["id,mark,label", *lines]))
    clipaudit.apply_marks(queue.index, root / "queue.csv")[0].write(root / "surveyed.parquet")
    indexes = [root / "clean.parquet", root / "reviewed.parquet", root / "surveyed.parquet"]
    return Base(root / "images", root / "cache", indexes, root / "marks.csv", root / "truth.csv")


# --- Clean indexes ----------------------------------------------------------------------------------------------------

Content = tuple[pa.Table, dict[str, Any]]
Mutation = Callable[[np.random.Generator, pa.Table, dict[str, Any]], Content]


def _column(rng: np.random.Generator, table: pa.Table) -> str:
    return str(rng.choice(table.column_names))


def _put(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def drop_column(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    return table.drop_columns([_column(rng, table)]), metadata


def retype(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    name, n = _column(rng, table), len(table)
    others = [
        pa.array(np.arange(n)),
        pa.array(rng.random(n)),
        pa.array([str(k) for k in range(n)]),
        pa.array([b"\xff\xfe"] * n),
        pa.array([["a", "b"]] * n),
        pa.array([{"a": 1}] * n),
        pa.nulls(n),
        pa.array([True] * n),
        pa.array(np.arange(n), pa.timestamp("ns")),
        pa.array(["a"] * n).dictionary_encode(),
        pa.array([2**60] * n, pa.duration("s")),
        pa.Array.from_buffers(pa.string(), n, pa.array([b"\xff"] * n).buffers()),
    ]
    return _put(table, name, others[rng.integers(len(others))]), metadata


def same_in_another_type(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    name = _column(rng, table)
    values, kind = table[name], table.schema.field(name).type
    if pa.types.is_dictionary(kind):
        kinds = [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
        values = values.cast(pa.string())
    else:
        texts = [pa.large_string(), pa.dictionary(pa.uint32(), pa.large_string())]
        kinds = {pa.string(): texts, pa.float32(): [pa.float64()], pa.float64(): [pa.float32(), pa.float16()]}.get(
            kind, [kind]
        )
    wanted = kinds[rng.integers(len(kinds))]
    if pa.types.is_dictionary(wanted):
        return _put(table, name, values.cast(wanted.value_type).dictionary_encode()), metadata
    return _put(table, name, values.cast(wanted, safe=False)), metadata


def some_values(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    name = _column(rng, table)
    kind = table.schema.field(name).type
    odd: list[Any] = [None, "", "\0", "x" * 70_000, "../../x", "ok", "a\nb", "\u202e", "/", "#", "a#5", "é", "e\u0301"]
    if pa.types.is_floating(kind):
        odd = [None, float("nan"), float("inf"), -float("inf"), -1e-3, 1.001, 0.0, 1.0, 1e-45, 3e38, -0.0]
    elif pa.types.is_boolean(kind):
        odd = [None, True, False]
    values = table[name].cast(pa.string()).to_pylist() if pa.types.is_dictionary(kind) else table[name].to_pylist()
    chosen = odd[rng.integers(len(odd))]
    for row in rng.choice(len(values), int(rng.choice([1, 1, 3, len(values)])), replace=False):
        values[row] = chosen
    column = pa.array(values, pa.string() if pa.types.is_dictionary(kind) else kind)
    return _put(table, name, column), metadata


def repeated_rows(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    return table.take(pa.array(rng.integers(0, len(table), len(table)))), metadata


def other_rows(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    rows = rng.permutation(len(table))[: int(rng.choice([0, 1, 2, len(table)]))]
    return table.take(pa.array(rows, pa.int64())), metadata


def unreadable(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    """Few images could be read, or none."""
    scored = rng.random(len(table)) < rng.choice([0.0, 0.02, 0.5])
    readable = pa.array(scored & (np.asarray(table["status"]) == "ok"))
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_floating(kind) or pa.types.is_boolean(kind) or name == "suggested_label":
            absent = pa.scalar(False) if name == "is_clean" else pa.scalar(None, kind)
            table = _put(table, name, pa.compute.if_else(readable, table[name], absent))
    return _put(table, "status", pa.compute.if_else(readable, "ok", "unreadable")), metadata


def constant(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    """Every row of some columns is alike, so that a class, a side or a score is missing."""
    for _ in range(rng.integers(1, 6)):
        name = _column(rng, table.drop_columns(["id"]))
        table = _put(table, name, table[name].take(pa.array([int(rng.integers(len(table)))] * len(table))))
    return table, metadata


def extra_columns(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    n = len(table)
    extras = [pa.array([["a"]] * n), pa.array([b"\xff"] * n), pa.array([{"a": 1}] * n), pa.array([2**62] * n)]
    extras += [pa.array([2**62] * n, pa.timestamp("s")), pa.nulls(n), table["id"], pa.array([float("nan")] * n)]
    name = str(rng.choice(["mine", "id", "label", "truth", "=1+1", ""]))
    return table.append_column(name, extras[rng.integers(len(extras))]), metadata


def class_names(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    names = list(metadata["class_names"])
    kind = rng.integers(5)
    if kind == 0:
        names = names[: rng.integers(len(names))]
    elif kind == 1:
        names[rng.integers(len(names))] = JUNK[rng.integers(len(JUNK))]
    elif kind == 2:
        names[0] = names[1]
    elif kind == 3:
        names = [names[k] for k in rng.permutation(len(names))]
    else:
        more = int(rng.choice([1, 3000]))
        names += [f"more {k}" for k in range(more)]
        for mixture in metadata["mixtures"].values():
            for field in ("weights", "means", "deviations"):
                mixture[field] += [[None, None]] * more
            mixture["abstained"] += [True] * more
    return table, metadata | {"class_names": names}


def metadata_junk(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    """Some value at any depth becomes something else, or is left out."""
    place: Any = metadata
    while True:
        key = rng.choice(sorted(place)) if isinstance(place, dict) else int(rng.integers(len(place)))
        key = str(key) if isinstance(place, dict) else key
        if not (isinstance(place[key], dict | list) and place[key]) or rng.random() < 0.3:
            break
        place = place[key]
    if rng.random() < 0.25:
        del place[key]
    else:
        place[key] = JUNK[rng.integers(len(JUNK))]
    return table, metadata


def config_junk(rng: np.random.Generator, table: pa.Table, metadata: dict[str, Any]) -> Content:
    values = [
        *JUNK,
        "joint",
        "neighbours",
        "union",
        "2-of-4",
        "٣-of-4",
        "1" * 5000 + "-of-4",
        [["a"]],
        ["logistic_loss"],
    ]
    metadata["config"][str(rng.choice(sorted(metadata["config"])))] = values[rng.integers(len(values))]
    return table, metadata


MUTATIONS: tuple[Mutation, ...] = (
    drop_column,
    retype,
    same_in_another_type,
    some_values,
    repeated_rows,
    other_rows,
    unreadable,
    constant,
    extra_columns,
    class_names,
    metadata_junk,
    config_junk,
)


def _show(index: CleanIndex, base: Base, out: Path) -> None:
    find_doubts(index, top=5)
    find_doubts(index, class_name="three", top=5)


def _reselect(index: CleanIndex, base: Base, out: Path) -> None:
    changed = index.config.with_changes(theta_loss=0.9, combine="union", ranking="probability", threshold=0.7)
    clipaudit.reselect(index, changed).write(out / "again.parquet")
    clipaudit.read_index(out / "again.parquet")
    reviewed_threshold(index)


def _apply(index: CleanIndex, base: Base, out: Path) -> None:
    clipaudit.apply_marks(index, base.marks)[0].write(out / "reviewed.parquet")
    clipaudit.read_index(out / "reviewed.parquet")


def _review(index: CleanIndex, base: Base, out: Path) -> None:
    queue = clipaudit.review(index, budget=10)
    queue.index.write(out / "drawn.parquet")
    clipaudit.read_index(out / "drawn.parquet")
    queue.write(out / "review")


def _export(index: CleanIndex, base: Base, out: Path) -> None:
    for name in ("e.jsonl", "e.npy", "e.txt", "e.csv", "links"):
        clipaudit.export(index, out / name)


CALLS: dict[str, Callable[[CleanIndex, Base, Path], object]] = {
    "show": _show,
    "report": lambda index, base, out: write_report(index, out / "r.html", top=5),
    "report with truth": lambda index, base, out: write_report(index, out / "r.html", top=5, truth=base.truth),
    "select --from": _reselect,
    "apply": _apply,
    "evaluate": lambda index, base, out: clipaudit.evaluate(index, base.truth),
    "export": _export,
    "review": _review,
    "estimate": lambda index, base, out: clipaudit.estimate(index),
}


def _mutated(base: Base, number: int) -> tuple[pa.Table, dict[bytes, bytes]]:
    """A table and its schema's metadata, made from a fixed seed."""
    rng = np.random.default_rng(number)
    table = pq.read_table(base.indexes[rng.integers(len(base.indexes))])
    found = dict(table.schema.metadata)
    content = json.loads(found[b"clipaudit"])
    names = []
    for _ in range(int(rng.choice([1, 1, 2]))):
        mutation = MUTATIONS[(number if not names else int(rng.integers(99))) % len(MUTATIONS)]
        names.append(mutation.__name__)
        table, content = mutation(rng, table, content)
    text = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
    # Without a digest, as other software (or an older clipaudit) writes it, so that the rules themselves are tried.
    return table, {b"clipaudit": text}


@pytest.mark.parametrize("call", CALLS)
def test_mutated_indexes(base: Base, tmp_path: Path, call: str) -> None:
    def run(number: int) -> None:
        out = tmp_path / str(number)
        out.mkdir()
        try:
            try:
                table, metadata = _mutated(base, number)
                pq.write_table(table.replace_schema_metadata(metadata), out / "i.parquet")
            except (pa.ArrowException, ValueError, TypeError, KeyError, IndexError, AttributeError):
                return  # Nothing that a file could hold.
            CALLS[call](clipaudit.read_index(out / "i.parquet"), base, out)
        finally:
            shutil.rmtree(out)

    campaign(f"clean indexes: {call}", range(size(60)), run)


def test_flipped_bits_of_an_index_change_nothing_silently(base: Base, tmp_path: Path) -> None:
    held = [(path.read_bytes(), clipaudit.read_index(path)) for path in base.indexes]
    rng = np.random.default_rng(14)

    def run(number: int) -> None:
        data, expected = held[number % 2]
        footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        # Half of them in the footer, which no page checksum covers.
        bit = int(rng.integers(8 * footer if number % 4 < 2 else 0, 8 * len(data)))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "i.parquet").write_bytes(flipped)
        found = clipaudit.read_index(tmp_path / "i.parquet")
        if not (found.table.equals(expected.table) and found.metadata == expected.metadata):
            raise LostError(f"bit {bit} changed the content")

    campaign("clean indexes: bit flips", range(size(400)), run)


def test_cut_and_garbled_indexes(base: Base, tmp_path: Path) -> None:
    data, rng = base.indexes[0].read_bytes(), np.random.default_rng(15)
    expected = clipaudit.read_index(base.indexes[0])

    def run(number: int) -> None:
        start, end = sorted(rng.integers(0, len(data), 2).tolist())
        garbled = [data[:start], data[:start] + data[end:], data[:start] + rng.bytes(end - start) + data[end:]]
        (tmp_path / "i.parquet").write_bytes(garbled[number % 3])
        found = clipaudit.read_index(tmp_path / "i.parquet")
        if not (found.table.equals(expected.table) and found.metadata == expected.metadata):
            raise LostError(f"bytes {start} to {end} changed the content")

    campaign("clean indexes: cut and garbled", range(size(60)), run)


# --- Caches -----------------------------------------------------------------------------------------------------------


def _copy(base: Base, out: Path) -> Path:
    shutil.copytree(base.cache, out)
    return out


def test_mutated_cache_json(base: Base, tmp_path: Path) -> None:
    expected = EmbeddingsCache.open(base.cache).read()

    def run(number: int) -> None:
        rng, cache = np.random.default_rng(number), _copy(base, tmp_path / str(number))
        content = json.loads((cache / "cache.json").read_bytes())
        _, content = metadata_junk(rng, expected.table, content)
        if number % 5 == 0 and isinstance(content.get("plan"), list):
            content["plan"] *= 2
        if number % 2:
            content.pop("checksum", None)
        text = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
        (cache / "cache.json").write_bytes(text)
        found = EmbeddingsCache.open(cache).read()
        if not found.table.equals(expected.table):
            raise LostError("other rows")
        clipaudit.select(cache, device="cpu")

    campaign("caches: cache.json", range(size(60)), run)


def test_flipped_bits_of_a_cache_change_nothing_silently(base: Base, tmp_path: Path) -> None:
    cache = _copy(base, tmp_path / "c")
    files = [cache / "cache.json", *(cache / "parts").iterdir(), *(cache / "text").iterdir()]
    held = EmbeddingsCache.open(cache)
    expected, index = held.read(), clipaudit.select(cache, device="cpu")
    rng = np.random.default_rng(16)

    def run(number: int) -> None:
        file = files[number % 3]
        data = file.read_bytes()
        bit = int(rng.integers(8 * len(data)))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            store = EmbeddingsCache.open(cache)
            same = store.info == held.info and np.array_equal(store.read().vectors, expected.vectors)
            if number % 3 == 2:
                # Damaged text embeddings are made again.
                same &= clipaudit.select(cache, device="cpu").table.equals(index.table)
            if not same:
                raise LostError(f"bit {bit} of {file.name} changed the content")
        finally:
            file.write_bytes(data)

    campaign("caches: bit flips", range(size(60)), run)


def test_mutated_parts(base: Base, tmp_path: Path) -> None:
    """With a checksum that is right: what a part holds is checked, too."""
    expected = EmbeddingsCache.open(base.cache).read()

    def run(number: int) -> None:
        rng, cache = np.random.default_rng(number), _copy(base, tmp_path / str(number))
        (file,) = (cache / "parts").iterdir()
        table = pq.read_table(file)
        metadata = table.schema.metadata
        mutation = (drop_column, retype, some_values, repeated_rows, other_rows, extra_columns)[number % 6]
        if mutation is some_values:
            table = table.drop_columns(["embedding"]).append_column("embedding", table["embedding"])
            if number % 4 == 0:
                vectors = np.full((len(table), 64), rng.choice([np.nan, np.inf, 0.0]), np.float16)
                table = _put(table, "embedding", pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 64))
        try:
            table, _ = mutation(rng, table, {})
            pq.write_table(table.replace_schema_metadata(metadata), file)
        except (pa.ArrowException, ValueError, TypeError):
            return  # Nothing that a file could hold.
        file.rename(file.with_name(f"{file.name.split('.')[0]}.{checksum(file.read_bytes())}.parquet"))
        found = EmbeddingsCache.open(cache).read()
        if len(found.table) != len(expected.table):
            raise LostError("other rows")
        clipaudit.select(cache, device="cpu")
        clipaudit.embed(base.images, cache=cache, encoder=DIGITS)

    campaign("caches: parts", range(size(36)), run)


def test_caches_and_indexes_of_earlier_versions_are_read(base: Base, tmp_path: Path) -> None:
    """Without digests and checksums, and with text embeddings under their old name."""
    cache = _copy(base, tmp_path / "c")
    content = json.loads((cache / "cache.json").read_bytes())
    for name in ("checksum", "decided", "notes"):
        del content[name]
    content["fingerprint"]["model"] = "/nowhere"
    (cache / "cache.json").write_text(json.dumps(content), encoding="utf-8")
    for texts in list((cache / "text").iterdir()):
        texts.rename(texts.with_name(f"{texts.name.split('.')[0]}.npy"))
    table = pq.read_table(base.indexes[0])
    metadata = {b"clipaudit": table.schema.metadata[b"clipaudit"]}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "i.parquet")
    held = clipaudit.read_index(tmp_path / "i.parquet")
    assert clipaudit.select(cache, device="cpu").table.equals(held.table)
    assert held.table.equals(clipaudit.read_index(base.indexes[0]).table)
