"""Commands that write: what they must not overwrite, what they leave where they fail, what reaches the terminal."""

from __future__ import annotations

import csv
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, write_class_folders
from test_files import small_disk

import clipaudit
from clipaudit import CleanIndex
from clipaudit.demo import MODEL, write_digits
from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.index.links import file_names
from clipaudit.text import printable

__all__ = ["small_disk"]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def index_file(noisy_index: CleanIndex, tmp_path: Path) -> Path:
    noisy_index.write(tmp_path / "x.parquet")
    return tmp_path / "x.parquet"


def relabelled(index: CleanIndex, **columns: list[str]) -> CleanIndex:
    """The first rows of an index with other ids, paths or labels, all of them clean."""
    n = len(next(iter(columns.values())))
    table = index.table.slice(0, n)
    for name, values in {"is_clean": [True] * n, **columns}.items():
        kind = pa.bool_() if name == "is_clean" else pa.string()
        table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
    return replace(index, table=table)


# ---- What a call needs is not overwritten.


@pytest.mark.parametrize(
    "words",
    [
        ("report", "x.parquet", "--out", "x.parquet"),
        ("report", "x.parquet", "--figure", "link.png"),
        ("report", "x.parquet", "--out", "same.png", "--figure", "same.png"),
        ("report", "x.parquet", "--truth", "m.csv:label", "--out", "m.csv"),
        ("apply", "x.parquet", "m.csv", "--out", "m.csv"),
        ("apply", "x.parquet", "m.csv", "--out", "link.png"),
        ("select", "cc", "--out", "cc/cache.json"),
        ("select", "cc", "--out", "a.parquet", "--export", "a.parquet"),
        ("select", "cc", "--out", "a.csv", "--export", "./a.csv"),
        ("select", "cc", "--labels", "m.csv:label", "--out", "m.csv"),
        ("select", "cc", "--export", "cc/parts/links"),
        ("select", "--from", "x.parquet", "--out", "x.parquet"),
        ("audit", "images", "--out", "cc/cache.json"),
        ("audit", "m.csv", "--out", "m.csv"),
        ("audit", "images", "--out", "a.parquet", "--report", "a.parquet"),
        ("corrupt", "m.csv", "--out", "m.csv"),
        ("corrupt", "images", "--map", "map.json", "--kind", "asymmetric", "--out", "map.json"),
        ("predict", "run", "m.csv", "--out", "m.csv"),
        ("predict", "run", "images", "--out", "run/best.safetensors"),
        ("import", "cifar10", "images", "--out", "cc/parts/a.parquet"),
        ("prompts", "new", "m.csv", "--out", "m.csv"),
        ("prompts", "generate", "m.csv", "--out", "cc/x.toml", "--llm", "nowhere"),
        ("train", "--index", "x.parquet", "--out", "cc/run"),
        ("embed", "images", "--cache", "images"),
        ("embed", "m.csv", "--cache", "cc/parts/more"),
    ],
)
def test_no_command_overwrites_what_it_needs(
    words: tuple[str, ...], index_file: Path, noisy_digits: tuple[Path, dict[str, str]], tmp_path: Path, run_cli: Cli
) -> None:
    (tmp_path / "m.csv").write_text("path,label\nimages/zero/1.png,zero\n")
    (tmp_path / "map.json").write_text("{}")
    (tmp_path / "link.png").symlink_to(index_file)
    (tmp_path / "images").symlink_to(noisy_digits[0])
    (tmp_path / "cc" / "parts").mkdir(parents=True)
    (tmp_path / "cc" / "cache.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "best.safetensors").write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run_cli(*words)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert any(part in result.stderr for part in ("the same file", "embeddings cache", "of the run", "exports end in"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_no_call_overwrites_what_it_needs(
    index_file: Path, noisy_digits: tuple[Path, dict[str, str]], noisy_cache: Path, tmp_path: Path
) -> None:
    index, image = clipaudit.read_index(index_file), next(noisy_digits[0].rglob("*.png"))
    before = image.read_bytes(), index_file.read_bytes()
    for write in (
        lambda: clipaudit.write_report(index, index_file),
        lambda: clipaudit.write_report(index, image),
        lambda: clipaudit.export(index, noisy_cache / "x.csv"),
        lambda: index.write(image),
        lambda: index.write(noisy_cache / "parts" / "x.parquet"),
        lambda: clipaudit.corrupt(noisy_digits[0], noisy_cache / "x.csv", kind="symmetric", rate=0.2),
    ):
        with pytest.raises(UsageError):
            write()
    assert (image.read_bytes(), index_file.read_bytes()) == before


def test_a_source_of_parquet_files_is_not_overwritten(tmp_path: Path) -> None:
    """A shard that only the ids name is an input, too."""
    write_class_folders(tmp_path / "images", 20)
    rows = [(path.read_bytes(), path.parent.name) for path in sorted((tmp_path / "images").rglob("*.png"))]
    (tmp_path / "shards").mkdir()
    table = pa.table({"image": [row[0] for row in rows], "label": [row[1] for row in rows]})
    pq.write_table(table, tmp_path / "shards" / "a.parquet")
    shard = tmp_path / "shards" / "b.parquet"
    pq.write_table(table, shard)
    cache = clipaudit.embed(tmp_path / "shards", cache=tmp_path / "c", encoder=DIGITS).cache
    before = shard.read_bytes()
    index = clipaudit.select(cache, device="cpu")
    for write in (
        lambda: index.write(shard),
        lambda: clipaudit.corrupt(tmp_path / "shards", shard, kind="symmetric", rate=0.5),
    ):
        with pytest.raises(UsageError, match="holds images"):
            write()
    assert shard.read_bytes() == before


@pytest.mark.parametrize("name", [".", "/", "", "node", "pipe", "dir", "x.parquet/a", "n" * 300])
def test_places_that_are_no_file(name: str, index_file: Path, tmp_path: Path, run_cli: Cli) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dir").mkdir()
    if name == "node":
        try:
            os.mknod(tmp_path / "node", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("a device cannot be made here")
    result = run_cli("select", "--from", index_file, "--out", name, timeout=60)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    if name == "node":
        assert stat.S_ISCHR((tmp_path / "node").stat().st_mode)


def test_links_and_modes_are_kept_by_commands(index_file: Path, tmp_path: Path, run_cli: Cli) -> None:
    target = tmp_path / "kept" / "private.parquet"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o600)
    (tmp_path / "link.parquet").symlink_to(target)
    result = run_cli("select", "--from", index_file, "--out", "link.parquet")
    assert result.returncode == 0, result.stderr
    assert len(clipaudit.read_index(target)) == 600
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert (tmp_path / "link.parquet").is_symlink()


# ---- Exports.


def test_formulas_are_escaped_and_come_back(noisy_index: CleanIndex, tmp_path: Path) -> None:
    names = ["=HYPERLINK(1)", "'=x", "+1", "-1", "@a", "\tx", "\r=x", "''@y", "plain", "'plain", "a=b"]
    escaped = [f"'{name}" for name in names[:8]] + names[8:]
    index = relabelled(noisy_index, id=[f"{name}/1.png" for name in names], label=names)
    clipaudit.export(index, tmp_path / "e.csv")
    clipaudit.export(index, tmp_path / "raw.csv", raw=True)
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == escaped
    assert [row["id"] for row in rows] == [f"{name}/1.png" for name in escaped]
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    with (tmp_path / "raw.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == names
    with pytest.raises(UsageError, match="csv alone"):
        clipaudit.export(index, tmp_path / "e.jsonl", raw=True)


def test_links_have_distinct_short_names(noisy_index: CleanIndex, tmp_path: Path) -> None:
    image = noisy_index.table["path"][0].as_py()
    long = "/".join(["d" * 120] * 3)
    labels = ["a/b", "a__b", ".hidden", "hidden", "_hidden", "x", "x", "x", "x", "x", "n" * 300, "", "..", "."]
    ids = [f"{number}.png" for number in range(5)]
    ids += ["x/y/1.jpg", "x__y/1.jpg", "x/1.jpg", "1.jpg", f"{long}/1.png", "11.png", "12.png", "13.png", "14.png"]
    index = relabelled(noisy_index, id=ids, label=labels, path=[image] * len(ids))
    assert clipaudit.export(index, tmp_path / "links") == []
    classes = [path for path in (tmp_path / "links").iterdir() if path.is_dir() and not path.is_symlink()]
    assert len(classes) == len(set(labels))
    links = [path for folder in classes for path in folder.iterdir()]
    assert len(links) == len(ids)
    assert all(path.is_symlink() and path.exists() for path in links)
    assert all(not path.name.startswith(".") and len(path.name) <= 255 for path in [*classes, *links])
    assert {"a__b", "hidden", "_hidden", "x"} <= {path.name for path in classes}
    assert {path.suffix for path in links} == {".png", ".jpg"}


def test_file_names_are_unique_whatever_they_are() -> None:
    first = file_names({"a/b": "a/b", "a__b": "a__b"})
    # A name that is made to collide with the hashed one.
    wanted = {name: name for name in ("a/b", "a__b", first["a/b"], "a\\b", "a__b\0", "con\n", "ä" * 200)}
    names = file_names(wanted)
    assert len(set(names.values())) == len(wanted)
    assert names["a__b"] == "a__b"
    assert names[first["a/b"]] == first["a/b"]
    assert all(len(name.encode()) <= 255 and name.isprintable() and "/" not in name for name in names.values())


def test_images_that_are_gone_are_noted(noisy_index: CleanIndex, tmp_path: Path) -> None:
    image = noisy_index.table["path"][0].as_py()
    index = relabelled(noisy_index, path=[image, "/nowhere/a.png", "/nowhere/b.png"])
    notes = clipaudit.export(index, tmp_path / "links")
    assert len(notes) == 1
    assert "2 clean images do not exist" in notes[0]
    assert "/nowhere/a.png" in notes[0]
    assert len([path for path in (tmp_path / "links").rglob("*") if path.is_symlink()]) == 1
    with pytest.raises(ClipAuditError, match="none of the 1 clean images exists"):
        clipaudit.export(relabelled(noisy_index, path=["/nowhere/a.png"]), tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_a_link_that_fails_is_named(noisy_index: CleanIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(ClipAuditError, match=r"\.png cannot be linked as \w+/\d+\.png: Function not implemented"):
        clipaudit.export(noisy_index, tmp_path / "links")
    assert list(tmp_path.iterdir()) == []


def test_exports_on_the_command_line(index_file: Path, noisy_index: CleanIndex, tmp_path: Path, run_cli: Cli) -> None:
    column = noisy_index.table["path"].to_pylist()
    gone = next(row for row, clean in enumerate(noisy_index.is_clean) if clean)
    moved = pa.array([*column[:gone], "/nowhere/a\nNext: b.png", *column[gone + 1 :]])
    table = noisy_index.table.set_column(noisy_index.table.column_names.index("path"), "path", moved)
    replace(noisy_index, table=table).write(index_file)
    result = run_cli("select", "--from", index_file, "--out", "y.parquet", "--export", "links", "--export", "e.csv")
    assert result.returncode == 0, result.stderr
    assert (
        r"note 1 clean images do not exist and have no link, the first being /nowhere/a\nNext: b.png." in result.stdout
    )
    assert not [line for line in result.stdout.splitlines() if line.startswith("Next:")]
    result = run_cli("select", "--from", index_file, "--out", "z.parquet", "--raw-csv")
    assert result.returncode == 2
    assert not (tmp_path / "z.parquet").exists()


def test_a_full_disk(index_file: Path, small_disk: Path, run_cli: Cli) -> None:
    for words in (
        ("report", index_file, "--out", small_disk / "r.html"),
        ("select", "--from", index_file, "--out", small_disk / "y.parquet", "--export", small_disk / "e.csv"),
        ("demo", small_disk / "demo"),
    ):
        result = run_cli(*words)
        assert result.returncode == 1
        assert result.stderr.startswith(f"clipaudit: {small_disk}")
        assert "No space left on device. Free some space" in result.stderr
        assert result.stderr.count("\n") == 1
    assert {path.name for path in small_disk.iterdir()} <= {"y.parquet"}


# ---- The demo.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": float("nan")}, "rate"),
        ({"rate": -1.0}, "rate"),
        ({"rate": 0.0}, "rate"),
        ({"rate": 1.0}, "rate"),
        ({"rate": float("inf")}, "rate"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 10**100}, "seed"),
    ],
)
def test_the_demos_options_have_ranges(options: dict[str, float], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        write_digits(tmp_path / "d", **{"rate": 0.2, "seed": 0, **options})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_where_the_demo_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, message in (
        ("", "Give a name"),
        ("file", "exists already"),
        ("file/demo", "file is a file"),
        ("dangling", "exists already"),
        ("d" * 300, "255 bytes"),
    ):
        with pytest.raises(ClipAuditError, match=message):
            write_digits(Path(name), rate=0.2, seed=0)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "dangling"}
    assert write_digits(Path("deep/d"), rate=0.001, seed=2**63 - 1).n_wrong == 2


# ---- Streams.


def test_nobody_reads_to_the_end(index_file: Path, tmp_path: Path) -> None:
    """As `| head -1`: the reader leaves, the work is done."""
    command = [sys.executable, "-m", "clipaudit", "select", "--from", index_file, "--out", "y.parquet"]
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=120, check=False
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(clipaudit.read_index(tmp_path / "y.parquet")) == 600


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_cannot_be_written(index_file: Path, tmp_path: Path, run_cli: Cli) -> None:
    with Path("/dev/full").open("w") as full:
        words = ("select", "--from", index_file, "--out", "y.parquet")
        result = run_cli(*words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert result.returncode == 1
        assert result.stderr == (
            "clipaudit: standard output is incomplete: No space left on device. Files that were written are whole.\n"
        )
        assert len(clipaudit.read_index(tmp_path / "y.parquet")) == 600
        for words, code in ((("show", "none.parquet"), 1), (("frobnicate",), 2), (("--version",), 1)):
            assert run_cli(*words, capture_output=False, stdout=full, stderr=full).returncode == code


def test_closed_streams(index_file: Path, tmp_path: Path) -> None:
    command = f"exec '{sys.executable}' -m clipaudit select --from x.parquet --out y.parquet"
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        result = subprocess.run(
            ["sh", "-c", f"{command} {closed}"], capture_output=True, cwd=tmp_path, timeout=120, check=False
        )
        assert (result.returncode, result.stderr) == (0, b"")
        assert len(clipaudit.read_index(tmp_path / "y.parquet")) == 600
        (tmp_path / "y.parquet").unlink()


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "en_US.ISO-8859-1", "LANG": "en_US.ISO-8859-1", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_output_degrades_with_the_encoding(
    environment: dict[str, str], noisy_index: CleanIndex, tmp_path: Path, run_cli: Cli
) -> None:
    """Every class in every encoding; 'Brötchen' and 'ねこ' are in no ASCII."""
    names = {"zero": "Käse", "one": "Brötchen", "two": "ねこ"}
    renamed = [names.get(name, name) for name in noisy_index.class_names]
    table = noisy_index.table
    for number, column in enumerate(table.column_names):
        if pa.types.is_dictionary(table.schema.field(column).type):
            values = [names.get(value, value) for value in table[column].to_pylist()]
            codes = pa.DictionaryArray.from_arrays(pa.array(map_to(values, renamed), pa.int32()), pa.array(renamed))
            table = table.set_column(number, column, codes)
    CleanIndex(table, replace(noisy_index.metadata, class_names=renamed)).write(tmp_path / "umlauts.parquet")
    settings = {"env": {**os.environ, **environment}, "text": False}
    shown = run_cli("show", "umlauts.parquet", **settings)
    again = run_cli("select", "--from", "umlauts.parquet", "--out", "ö.parquet", "--export", "e.csv", **settings)
    evaluated = run_cli("evaluate", "umlauts.parquet", "--truth", "umlauts.parquet:label", "--json", **settings)
    for result in (shown, again, evaluated):
        assert (result.returncode, result.stderr) == (0, b"")
    assert b"Br\\xf6tchen" in shown.stdout or "Brötchen".encode("latin-1") in shown.stdout
    assert b"\\u306d" in shown.stdout
    assert "Brötchen" in (tmp_path / "e.csv").read_text(encoding="utf-8")
    assert set(clipaudit.read_index(tmp_path / "umlauts.parquet").class_names) == set(renamed)


def map_to(values: list[str | None], names: list[str]) -> list[int | None]:
    return [None if value is None else names.index(value) for value in values]


def test_names_that_are_not_utf8(index_file: Path, tmp_path: Path, run_cli: Cli) -> None:
    odd = os.fsdecode(b"caf\xe9")
    result = run_cli("select", "--from", index_file, "--out", f"{odd}.parquet", "--export", f"{odd}.csv")
    assert result.returncode == 0, result.stderr
    assert r"Written: caf\udce9.parquet, caf\udce9.csv" in result.stdout
    assert (tmp_path / f"{odd}.csv").exists()
    shutil.copy(index_file, tmp_path / f"{odd}.parquet")
    for words in (
        ("report", f"{odd}.parquet", "--out", f"{odd}.html"),
        ("show", f"{odd}.none"),
        ("show", index_file, "--class", odd),
        ("embed", odd),
        ("embed", index_file.parent / odd, "--model", odd),
        ("evaluate", index_file, "--truth", f"{odd}.csv:{odd}"),
        ("select", odd),
        ("select", "--from", index_file, "--out", f"{odd}/{odd}/a.parquet"),
    ):
        result = run_cli(*words)
        assert "Traceback" not in result.stderr, result.stderr
        assert result.returncode in (0, 1, 2)
        assert odd not in result.stdout + result.stderr


# ---- What reaches the terminal.


def test_messages_are_one_line(tmp_path: Path, run_cli: Cli) -> None:
    hostile = "a\nNext: rm -rf ~\x1b[2J\u202e\x9b31m\u2028"
    (tmp_path / f"{hostile}.csv").write_text("path,label\n")
    for words in (
        ("show", hostile),
        ("select", hostile),
        ("embed", hostile),
        ("embed", f"{hostile}.csv", "--model", MODEL),
        ("evaluate", hostile, "--truth", hostile),
        ("select", "--preset", hostile),
        ("demo", f"{hostile}.csv"),
        ("prompts", "show", hostile),
        ("predict", hostile, hostile),
        ("train", "--index", hostile, "--out", "run"),
    ):
        result = run_cli(*words)
        assert result.returncode in (1, 2)
        assert result.stderr.count("\n") == 1
        assert result.stderr[:-1].isprintable()
        assert result.stderr.startswith("clipaudit: ")


def test_a_list_of_ours_keeps_its_lines(tmp_path: Path, run_cli: Cli) -> None:
    for name in ("a", "b\nclipaudit: done"):
        (tmp_path / ".clipaudit" / name).mkdir(parents=True)
        (tmp_path / ".clipaudit" / name / "cache.json").touch()
    result = run_cli("select")
    assert result.returncode == 2
    assert result.stderr == (
        "clipaudit: there are several embeddings caches. Name one:\n"
        "  clipaudit select .clipaudit/a\n"
        "  clipaudit select .clipaudit/b\\nclipaudit: done\n"
    )


@pytest.mark.parametrize("text", ["\n", "\r", "\t", "\x1b[2J", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\udcff"])
def test_what_could_mislead_is_an_escape(text: str) -> None:
    shown = printable(f"a{text}b")
    assert shown.isprintable()
    assert shown.isascii()
    assert shown != f"a{text}b"
    assert printable("Brötchen ねこ 🐈") == "Brötchen ねこ 🐈"


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        ("OSError(5, 'Input/output error', 'a\\nb')", 1, r"clipaudit: [Errno 5] Input/output error: 'a\nb'. Check"),
        ("MemoryError()", 1, "clipaudit: there is too little memory."),
        ("KeyboardInterrupt()", 130, "clipaudit: interrupted."),
        ("'\\udcff'.encode()", 1, r"is not valid UTF-8. Rename it"),
        ("ZeroDivisionError('\\x1b[2J')", 1, "Please report it"),
    ],
)
def test_the_last_guard(raised: str, code: int, message: str) -> None:
    """Whatever a command lets through is explained; a fault of clipaudit is shown whole."""
    program = (
        "import clipaudit.cli.app, clipaudit.cli, sys\n"
        "def app(prog_name):\n"
        f"    raise {raised}\n"
        "clipaudit.cli.app.app = app\n"
        "clipaudit.cli.main()\n"
    )
    if raised.endswith("encode()"):
        program = program.replace("raise ", "")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code
    assert message in result.stderr
    assert "\x1b" not in result.stderr
    assert ("Traceback" in result.stderr) == ("ZeroDivision" in raised)
