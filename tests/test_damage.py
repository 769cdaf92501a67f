"""Damaged, foreign and hostile caches and indexes: each fault is named in one sentence, and nothing else is lost."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, without_rights, write_class_folders

import clipaudit
from clipaudit import CleanIndex, EmbeddingsCache
from clipaudit.cache.info import json_digest
from clipaudit.errors import CacheError, IndexFileError
from clipaudit.files import read_bounded, remove_stale, temporary

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cache(small_images: Path, tmp_path: Path) -> Path:
    return clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS).cache


@pytest.fixture
def index_file(noisy_index: CleanIndex, tmp_path: Path) -> Path:
    noisy_index.write(tmp_path / "i.parquet")
    return tmp_path / "i.parquet"


# --- The index --------------------------------------------------------------------------------------------------------


def rewritten(path: Path, table: pa.Table, *, digest: bool = False) -> Path:
    """As other software writes it: with the metadata, but without (or with) the digest."""
    metadata = dict(pq.read_schema(path).metadata)
    if not digest:
        metadata.pop(b"clipaudit.digest", None)
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")
    return path


def described(path: Path, **changes: Any) -> Path:
    """The same index with other metadata."""
    table = pq.read_table(path)
    content = json.loads(table.schema.metadata[b"clipaudit"]) | changes
    pq.write_table(table.replace_schema_metadata({"clipaudit": json.dumps(content)}), path)
    return path


def put(table: pa.Table, name: str, change: Callable[[list[Any]], object], kind: pa.DataType | None = None) -> pa.Table:
    held = table.schema.field(name).type
    values = table[name].cast(pa.string() if pa.types.is_dictionary(held) else held).to_pylist()
    change(values)
    if kind is None:
        kind = pa.string() if pa.types.is_dictionary(held) else held
    return table.set_column(table.column_names.index(name), name, pa.array(values, kind))


FAULTS: dict[str, tuple[str, Callable[[list[Any]], object], str]] = {
    "score out of range": ("clean_score", lambda v: v.__setitem__(7, 1.5), "'clean_score' has 1.5 in row 7"),
    "NaN": ("logistic_p_max", lambda v: v.__setitem__(3, float("nan")), "'logistic_p_max' has no value in row 3"),
    "null": ("zero_shot_loss", lambda v: v.__setitem__(5, None), "'zero_shot_loss' has no value in row 5"),
    "infinite": ("zero_shot_loss", lambda v: v.__setitem__(5, float("inf")), "'zero_shot_loss' has inf in row 5"),
    "class": ("label", lambda v: v.__setitem__(9, "ten"), "'label' has 'ten' in row 9"),
    "no label": ("label", lambda v: v.__setitem__(9, None), "'label' has no value in row 9"),
    "status": ("status", lambda v: v.__setitem__(0, "fine"), "'status' has 'fine' in row 0"),
    "NUL": ("path", lambda v: v.__setitem__(2, "a\0b"), "'path' has the character NUL in row 2"),
    "repeated": ("id", lambda v: v.__setitem__(8, v[4]), "'id' has .* in row 8 and in an earlier one"),
    "unreadable": ("status", lambda v: v.__setitem__(np.s_[:], ["unreadable"] * len(v)), "'is_clean' is true in row"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_column_and_the_row_of_a_fault_are_named(index_file: Path, fault: str) -> None:
    name, change, words = FAULTS[fault]
    rewritten(index_file, put(pq.read_table(index_file), name, change))
    with pytest.raises(IndexFileError, match=words) as caught:
        clipaudit.read_index(index_file)
    assert str(index_file) in str(caught.value)
    assert "clipaudit select" in str(caught.value)


def test_an_index_that_other_software_wrote_is_read_where_its_values_are_right(index_file: Path) -> None:
    expected, table = clipaudit.read_index(index_file), pq.read_table(index_file)
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(number, field.name, table[field.name].cast(pa.string()).cast(pa.large_string()))
        elif field.type == pa.string():
            table = table.set_column(number, field.name, table[field.name].dictionary_encode())
        elif field.type == pa.float32():
            table = table.set_column(number, field.name, table[field.name].cast(pa.float64()))
    table = table.append_column("mine", pa.array(range(len(table))))
    # The digest holds: it is about the values, not about how they are stored.
    found = clipaudit.read_index(rewritten(index_file, table, digest=True))
    assert found.table.drop_columns(["mine"]).equals(expected.table)
    assert found.metadata == expected.metadata
    CleanIndex(table, found.metadata).write(index_file)
    assert clipaudit.read_index(index_file).table.equals(found.table)


def test_what_other_software_lost_or_changed_is_said(index_file: Path, noisy_index: CleanIndex) -> None:
    table = pq.read_table(index_file)
    rewritten(index_file, table.drop_columns(["logistic_loss", "fallback"]))
    with pytest.raises(IndexFileError, match="it has no column 'fallback' and 1 more"):
        clipaudit.read_index(index_file)
    rewritten(index_file, table.append_column("reviewed", pa.nulls(len(table), pa.string())))
    with pytest.raises(IndexFileError, match="no column 'label_given', though it was reviewed"):
        clipaudit.read_index(index_file)
    pq.write_table(table.replace_schema_metadata(None), index_file)
    with pytest.raises(IndexFileError, match="lost its metadata, which pandas"):
        clipaudit.read_index(index_file)
    noisy_index.write(index_file)
    rewritten(index_file, table.slice(1), digest=True)
    with pytest.raises(IndexFileError, match="other software changed it"):
        clipaudit.read_index(index_file)
    # Who means it uses the library.
    CleanIndex(noisy_index.table.slice(1), noisy_index.metadata).write(index_file)
    assert len(clipaudit.read_index(index_file)) == len(table) - 1


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("class_names", ["one"], "'class_names' must be a list of at least two"),
        ("class_names", ["one", "one"], "different names"),
        ("warnings", "none", "'warnings' must be a list of texts"),
        ("decided", {"source": 1}, "'decided' must be texts by name"),
        ("config", {"c": "big"}, "no valid 'c'"),
        ("config", {"theta_loss": 2.0}, "theta_loss must"),
        ("config", {"combine": "5-of-4"}, "does not fit"),
        ("mixtures", {}, "'mixtures'"),
        ("root", "a\0b", "'root' must be text"),
        ("prompts", {"source": "x", "texts": ["a"], "owners": [99]}, "'prompts' must name one of the classes"),
    ],
)
def test_metadata_is_checked(index_file: Path, key: str, value: Any, words: str) -> None:
    with pytest.raises(IndexFileError, match=words):
        clipaudit.read_index(described(index_file, **{key: value}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"open_set": []}, r"'open_set' in its metadata.*Update clipaudit"),
        ({"config": {"theta_open": 0.5}}, r"'config.theta_open' in its metadata.*Update clipaudit"),
        ({"format": 3}, r"format 3, and this clipaudit .* reads 1 to 2.*Update clipaudit"),
    ],
)
def test_what_a_newer_version_wrote_is_refused_and_not_dropped(
    index_file: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(IndexFileError, match=words):
        clipaudit.read_index(described(index_file, **changes))


def test_a_small_file_that_stands_for_gigabytes_is_refused(
    index_file: Path, noisy_index: CleanIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = len(noisy_index)
    wide = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["x" * 20_000_000]))
    table = pq.read_table(index_file)
    rewritten(index_file, table.set_column(table.column_names.index("reason"), "reason", wide))
    assert index_file.stat().st_size < 200_000
    with pytest.raises(IndexFileError, match=r"over the limit of 8 GB.*CLIPAUDIT_MAX_TABLE_GB"):
        clipaudit.read_index(index_file)
    noisy_index.write(index_file)
    monkeypatch.setenv("CLIPAUDIT_MAX_TABLE_GB", "1e-6")
    with pytest.raises(IndexFileError, match="over the limit of"):
        clipaudit.read_index(index_file)
    monkeypatch.setenv("CLIPAUDIT_MAX_TABLE_GB", "1")
    assert len(clipaudit.read_index(index_file)) == n


def test_only_regular_files_are_opened(cache: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IndexFileError, match="named pipe"):
        clipaudit.read_index(tmp_path / "pipe")
    with pytest.raises(IndexFileError, match="a folder"):
        clipaudit.read_index(tmp_path)
    with pytest.raises(IndexFileError, match="a device"):
        clipaudit.read_index("/dev/zero")
    (part,) = (cache / "parts").iterdir()
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(CacheError, match="named pipe"):
        EmbeddingsCache.open(cache).read()
    (cache / "cache.json").unlink()
    os.mkfifo(cache / "cache.json")
    with pytest.raises(CacheError, match="named pipe"):
        clipaudit.select(cache)


# --- The cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logit_scale", 0),
        ("logit_scale", "14"),
        ("class_names", ["a", "a"]),
        ("class_names", [1]),
        ("source", None),
        ("root", "a\0b"),
        ("fingerprint", {}),
        ("notes", [1]),
        ("plan", [["a", -1]]),
        ("plan", [["a", 1 << 62]]),
        ("plan", None),
    ],
)
def test_every_field_of_cache_json_is_checked(cache: Path, key: str, value: Any, checksum: bool) -> None:
    file = cache / "cache.json"
    content = json.loads(file.read_bytes())
    content[key] = value
    if not checksum:
        del content["checksum"]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CacheError, match=r"cache\.json is damaged"):
        EmbeddingsCache.open(cache)


NEWER: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "another format": lambda content: {**content, "format": 2},
    "a new field": lambda content: {**content, "tiles": 3},
    "a new field of the model": lambda content: {**content, "fingerprint": {**content["fingerprint"], "adapter": "x"}},
}


@pytest.mark.parametrize("name", NEWER)
def test_a_cache_of_a_newer_version_is_left_as_it_is(small_images: Path, cache: Path, name: str) -> None:
    file = cache / "cache.json"
    content = json.loads(file.read_bytes())
    del content["checksum"]
    content = NEWER[name](content)
    file.write_text(json.dumps({**content, "checksum": json_digest(content)}), encoding="utf-8")
    held = file.read_bytes()
    with pytest.raises(CacheError, match="was written by a newer clipaudit"):
        clipaudit.select(cache, device="cpu")
    with pytest.raises(CacheError, match="was written by a newer clipaudit"):
        clipaudit.embed(small_images, cache=cache, encoder=DIGITS)
    assert file.read_bytes() == held


def test_a_plan_that_is_not_the_parts_is_refused(cache: Path) -> None:
    file = cache / "cache.json"
    content = json.loads(file.read_bytes())
    del content["checksum"]
    ((name, count),) = content["plan"]
    for plan, words in (([[name, count]] * 2, "'plan' must be"), ([[name, count - 1]], "holds 24 samples, not 23")):
        file.write_text(json.dumps(content | {"plan": plan}), encoding="utf-8")
        with pytest.raises(CacheError, match=words):
            clipaudit.select(cache)
    content["fingerprint"]["dimension"] = 32
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CacheError, match="another model"):
        clipaudit.select(cache)


def test_permissions_are_named_and_nothing_is_overwritten() -> None:
    # Below a folder that others may enter, unlike those of pytest.
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        write_class_folders(folder / "work" / "images", 12)
        cache = clipaudit.embed(folder / "work" / "images", cache=folder / "work" / "c", encoder=DIGITS).cache
        (part,) = (cache / "parts").iterdir()
        held = (cache / "cache.json").read_bytes()
        if os.geteuid() == 0:
            for path in folder.rglob("*"):
                shutil.chown(path, 65534)
        with without_rights():
            for closed, mode in ((cache / "cache.json", 0o644), (part, 0o644), (cache / "parts", 0o755)):
                closed.chmod(0)
                for call in (
                    lambda: clipaudit.select(cache, device="cpu"),
                    lambda: clipaudit.embed(folder / "work" / "images", cache=cache, encoder=DIGITS),
                ):
                    with pytest.raises(CacheError, match=f"{closed.name} cannot be opened: Permission denied"):
                        call()
                closed.chmod(mode)
        assert (cache / "cache.json").read_bytes() == held
        assert part.exists()
    finally:
        shutil.rmtree(folder)


def test_class_names_survive_a_machine_without_utf_8(small_images: Path, tmp_path: Path, run_cli: Cli) -> None:
    names = ["Käse", "Brötchen", "Öl"]
    files = sorted(path.relative_to(small_images).as_posix() for path in small_images.rglob("*.png"))
    rows = "".join(f"{file},{names[number % 3]}\n" for number, file in enumerate(files))
    (small_images / "m.csv").write_text("path,label\n" + rows, encoding="utf-8")
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "utf-8"}
    clipaudit.embed(small_images / "m.csv", cache=tmp_path / "c", encoder=DIGITS)
    done = run_cli("select", "c", "--prompts", "none", "--out", "i.parquet", env=plain)
    assert done.returncode == 0, done.stderr
    assert clipaudit.read_index(tmp_path / "i.parquet").class_names == sorted(names)


def test_every_text_file_is_opened_with_an_encoding() -> None:
    package = Path(clipaudit.__file__).parent
    for file in package.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute | ast.Name):
                name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
                words = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
                binary = name == "open" and any("b" in str(word) for word in words)
                opens = name in ("read_text", "write_text") or (name == "open" and isinstance(call.func, ast.Name))
                if (opens or (name == "open" and {"r", "w", "a"} & set(map(str, words)))) and not binary:
                    assert any(keyword.arg == "encoding" for keyword in call.keywords), f"{file}:{call.lineno}"


# --- Killed and side by side ------------------------------------------------------------------------------------------


def test_temporary_files_go_by_owner_and_age(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    mine = temporary(tmp_path / "part.parquet").name
    gone = mine.replace(f".{os.getpid()}.", f".{child.pid}.")
    alive = mine.replace(f".{os.getpid()}.", f".{os.getppid()}.")
    host = mine.split(".")[2]
    elsewhere, old, unnamed = mine.replace(host, "elsewhere"), mine.replace(host, "faraway"), "x.12.tmp"
    for name in (mine, gone, alive, elsewhere, old, unnamed, "no.parquet"):
        (tmp_path / name).touch()
    os.utime(tmp_path / old, (time.time() - 90_000,) * 2)
    remove_stale(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {mine, alive, elsewhere, unnamed, "no.parquet"}


def test_bounds_take_no_memory_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"123")
    assert read_bounded(tmp_path / "x", 1 << 50, CacheError) == b"123"
    assert read_bounded(tmp_path / "x", 3, CacheError) == b"123"
    with pytest.raises(CacheError, match="larger than 2 bytes"):
        read_bounded(tmp_path / "x", 2, CacheError)


def start_embed(images: Path, cache: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "clipaudit", "embed", images, "--model", DIGITS.model, "--cache", cache]
    command += ["--device", "cpu", "--precision", "float32", "--workers", "1", *words]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def content_of(cache: Path) -> dict[str, bytes]:
    return {file.relative_to(cache).as_posix(): file.read_bytes() for file in cache.rglob("*") if file.is_file()}


def test_two_runs_fill_one_cache_at_once(small_images: Path, tmp_path: Path) -> None:
    # What a killed run left goes; what the other run is writing stays.
    host = temporary(tmp_path / "x").name.split(".")[1]
    (tmp_path / "c" / "parts").mkdir(parents=True)
    (tmp_path / "c" / "parts" / f"a.b.parquet.{host}.{2**22 + 1}.tmp").write_bytes(b"half")
    runs = [start_embed(small_images, tmp_path / "c") for _ in range(2)]
    for run in runs:
        out, _ = run.communicate(timeout=300)
        assert run.returncode == 0, out.decode()
    clipaudit.embed(small_images, cache=tmp_path / "alone", encoder=DIGITS, workers=1)
    assert content_of(tmp_path / "c") == content_of(tmp_path / "alone")


def test_runs_killed_at_any_time_end_like_an_undisturbed_one(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "images", 3000)
    began = time.monotonic()
    clipaudit.embed(tmp_path / "images", cache=tmp_path / "whole", encoder=DIGITS, workers=1)
    seconds, rng = time.monotonic() - began, np.random.default_rng(37)
    for _ in range(3):
        run = start_embed(tmp_path / "images", tmp_path / "c")
        while run.poll() is None and not (tmp_path / "c" / "cache.json").exists():
            time.sleep(0.005)
        time.sleep(seconds * rng.uniform(0, 0.6))
        run.send_signal(signal.SIGKILL)
        run.wait()
    # A kill between the writing of a file and its renaming is rare: such a file is put there.
    (tmp_path / "c" / "parts").mkdir(parents=True, exist_ok=True)
    half = temporary(tmp_path / "c" / "parts" / "a.b.parquet")
    half.with_name(half.name.replace(f".{os.getpid()}.", f".{run.pid}.")).write_bytes(b"half")
    clipaudit.embed(tmp_path / "images", cache=tmp_path / "c", encoder=DIGITS, workers=1)
    whole, resumed = (clipaudit.select(tmp_path / name, device="cpu") for name in ("whole", "c"))
    assert whole.table.equals(resumed.table)
    assert content_of(tmp_path / "c") == content_of(tmp_path / "whole")
    assert len(list((tmp_path / "c" / "parts").iterdir())) > 1
