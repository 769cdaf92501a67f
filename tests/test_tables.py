"""One reader of tables: separators, encodings, columns, types, limits."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipaudit.errors import SourceError, UsageError
from clipaudit.samples import ManifestSource, SourceOptions, read_column
from clipaudit.samples.labels import LabelReader
from clipaudit.samples.tables import open_table, pick_column
from clipaudit.samples.text_tables import MAX_LINE
from clipaudit.spelling import looks_missing

ROWS = [("cat/1.png", "cat"), ("dog/2.png", "dog"), ("Käse/3.png", "Käse")]


def labels_of(path: Path, **options: object) -> list[tuple[str, str]]:
    return [(sample.id, sample.label) for sample in ManifestSource(path, SourceOptions(**options)).samples()]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_encodings_are_recognised_and_said(
    tmp_path: Path, separator: str, ending: str, encoding: str
) -> None:
    path = tmp_path / f"m.{ending}"
    path.write_text("".join(f"{a}{separator}{b}\r\n" for a, b in [("path", "label"), *ROWS]), encoding=encoding)
    assert labels_of(path) == ROWS
    words = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}[separator]
    said = ManifestSource(path, SourceOptions()).decided()["source"]
    assert f"m.{ending}, separated by {words}" in said
    assert ("UTF-16" in said) == (encoding == "utf-16")


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\npath;label\ncat/1.png;cat\n",  # What Excel writes where the comma is a decimal sign.
        "Path , LABEL\ncat/1.png,cat\n,\n",  # Blanks and case in the header; a row of empty cells below.
        "path,label,,\ncat/1.png,cat,,\n",  # Columns that have no name.
        "path,label\rcat/1.png,cat\r",  # Line ends of an old Mac.
        'path,label,"a;b|c"\ncat/1.png,cat,1;2\n',  # Other separators inside of quotes.
        "path;label;width,height\ncat/1.png;cat;3,4,5\n",  # Only the semicolon gives every row as many fields.
        "path,label\ncat/1.png,cat,,\n",  # More empty cells than columns.
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.csv").write_text(content, newline="")
    assert labels_of(tmp_path / "m.csv") == [("cat/1.png", "cat")]


BAD = {
    "two.csv": (b"path;label,x\na;b,c\n", "line 1: the columns may be separated by commas or semicolons"),
    "blank.csv": (b"path label\na b\n", "Columns are separated by , ; | or tabs"),
    "latin.csv": ("path,label\na.png,cat\nb.png,Käse\n".encode("latin-1"), "line 3: not UTF-8"),
    "utf32.csv": ("path,label\n".encode("utf-32"), "UTF-32"),
    "nobom.csv": ("path,label\na,b\n".encode("utf-16-le"), "zero bytes"),
    "odd.csv": ("path,label\na,b\n".encode("utf-16") + b"\0", "not UTF-16 text"),
    "long.csv": (b"path,label\n" + b"a" * MAX_LINE, "line 2: longer than"),
    "twice.csv": (b"path, Label,label \na,b,c\n", "two columns have the same name"),
    "few.csv": (b"path,label,x\na.png\n", "line 2: 1 fields where the header has 3, separated by commas"),
    "surrogate.jsonl": (b'{"path": "a", "label": "\\ud800"}\n', "line 1: the label is not valid Unicode"),
    "surrogate_path.jsonl": (b'{"path": "\\udc41", "label": "a"}\n', "line 1: the path is not valid Unicode"),
    "digits.jsonl": (b'{"path": "a", "label": ' + b"7" * 5000 + b"}\n", "line 1: not valid JSON"),
    "deep.jsonl": (b'{"path": "a", "label": ' + b"[" * 10**5 + b"\n", "line 1: not valid JSON"),
    "key.jsonl": (
        b'{"path": "a", "label": "b", "label": "c"}\n',
        "line 1: not valid JSON (the key 'label' comes twice)",
    ),
    "later.jsonl": (b'{"path": "a", "label": "b"}\n{"path": "c", "labels": "d"}\n', "line 2: no field 'label'"),
    "list.jsonl": (b'{"path": "a", "label": [0]}\n', "line 1: the label is [0] (list)"),
    "dict.jsonl": (b'{"path": "a", "label": {"name": "cat"}}\n', "line 1: the label is {'name': 'cat'} (dict)"),
    "infinite.jsonl": (b'{"path": "a", "label": Infinity}\n', "line 1: the label is inf (float)"),
    "huge.jsonl": (b'{"path": "a", "label": "' + b"x" * 10**6 + b'"}\n', "the label has 1,000,000 characters"),
}


@pytest.mark.parametrize("name", BAD)
def test_faults_of_text_name_file_and_row(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=name) as caught:
        labels_of(tmp_path / name)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_only_regular_files_are_opened(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"folder.{ending}").mkdir()
    (tmp_path / f"zero.{ending}").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a named pipe"), ("folder", "a folder"), ("zero", "a device"), ("none", "exist")):
        with pytest.raises(SourceError, match=kind):
            open_table(tmp_path / f"{name}.{ending}")
    with pytest.raises(SourceError, match="a device"):
        read_column(f"{tmp_path / f'zero.{ending}'}:label", ["a"], tmp_path)


def parquet(file: Path, /, **columns: object) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pa.array([b"cat", b"dog"]), ["cat", "dog"]),
        (pa.array(["cat", "dog"]).dictionary_encode(), ["cat", "dog"]),
        (pa.array(["cat", "dog"], pa.large_string()), ["cat", "dog"]),
        (pa.array(["cat", "dog"], pa.string_view()), ["cat", "dog"]),
        (pa.array(["cat ", " dog"]), ["cat", "dog"]),
        (pa.array(["cafe\u0301", "caf\u00e9"]), ["café", "café"]),
        (pa.array([0, 7], pa.int8()), ["0", "7"]),
        (pa.array([0.0, 7.0]), ["0", "7"]),
        (pa.array([0.0, 7.0], pa.float16()), ["0", "7"]),
        (pa.array([Decimal("0.00"), Decimal("7.00")]), ["0", "7"]),
        (pa.array([True, False]), ["True", "False"]),
        (pa.array([datetime.date(2026, 1, 2), datetime.date(1, 1, 1)]), ["2026-01-02", "0001-01-01"]),
        (pa.array([1, 2], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:00.000000002"]),
        (pa.array([0, 86_400_000], pa.date64()), ["1970-01-01", "1970-01-02"]),
    ],
)
def test_types_of_parquet(tmp_path: Path, labels: pa.Array, names: list[str]) -> None:
    path = parquet(tmp_path / "m.parquet", path=pa.array(["a.png", "b.png"]), label=labels)
    assert [label for _, label in labels_of(path)] == names


def not_utf8() -> pa.Array:
    return pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")]
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array([[0], [1]]), r"row 0: column 'label' holds list<.*, not text or numbers"),
        (pa.array([{"name": "cat"}, None]), r"row 0: column 'label' holds struct<"),
        (pa.array([b"cat", b"\xff\xd8" + b"\0" * 10**6]), r"row 1: the label is .* \(1,000,002 bytes\) \(bytes\)"),
        (not_utf8(), "row 1: column 'label' has no valid value"),
        (pa.array([1, 2], pa.duration("ns")), r"row 0: column 'label' holds duration\[ns\]"),
        (pa.array([0, 2**62], pa.timestamp("ms")), "row 1: "),
        (pa.array(["cat", None]), "row 1: the label is missing"),
        (pa.array([1.0, float("nan")]), "row 1: the label is missing"),
    ],
)
def test_values_of_parquet_that_are_no_labels(tmp_path: Path, labels: pa.Array, message: str) -> None:
    path = parquet(tmp_path / "m.parquet", path=pa.array(["a.png", "b.png"]), label=labels)
    with pytest.raises(SourceError, match=r"m\.parquet, " + message) as caught:
        labels_of(path)
    assert len(str(caught.value)) < 400


def test_a_kilobyte_may_not_become_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 3_000_000
    path = pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int8()), ["a.png"])
    long = parquet(tmp_path / "long.parquet", path=path, label=pa.array([7] * n, pa.int8()))
    assert long.stat().st_size < 10**5
    monkeypatch.setenv("CLIPAUDIT_MAX_TABLE_GB", "0.05")
    message = r"3,000,000 rows that take 0\.1 GB in the columns path, label, over .* CLIPAUDIT_MAX_TABLE_GB=1"
    with pytest.raises(SourceError, match=message):
        labels_of(long)
    monkeypatch.setenv("CLIPAUDIT_MAX_TABLE_GB", "much")
    with pytest.raises(UsageError, match="not a number of gigabytes"):
        labels_of(long)


def test_a_wide_value_is_read_once_however_often_it_comes(tmp_path: Path) -> None:
    path = pa.DictionaryArray.from_arrays(pa.array([0] * 6000, pa.int32()), ["y" * 500_000])
    table = pa.table({"path": path, "label": pa.array([1] * 6000)})
    pq.write_table(table, tmp_path / "wide.parquet", store_schema=False)
    assert (tmp_path / "wide.parquet").stat().st_size < 10**6
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(SourceError, match="row 0: the path has 500,000 characters"):
        labels_of(tmp_path / "wide.parquet")
    assert pa.default_memory_pool().max_memory() - before < 10**8


def test_columns_are_found_without_case_and_blanks(tmp_path: Path) -> None:
    columns = [" File Name", "LABEL ", "Extra"]
    assert pick_column(tmp_path, columns, None, ("label",), "label") == "LABEL "
    assert pick_column(tmp_path, columns, "file_name", (), "path") == " File Name"
    assert pick_column(tmp_path, ["Label", "label"], "label", (), "label") == "label"
    with pytest.raises(SourceError, match="two columns"):
        pick_column(tmp_path, ["Label", "LABEL"], "label", (), "label")
    with pytest.raises(SourceError, match=r"Its columns: .*\.\.\.\.") as caught:
        pick_column(tmp_path, ["x" * 1000] * 1000, None, ("label",), "label")
    assert len(str(caught.value)) < 2000


def test_a_manifest_whose_id_is_a_number_takes_the_file_name(tmp_path: Path) -> None:
    lines = [{"id": number, "filename": path, "label": label} for number, (path, label) in enumerate(ROWS)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert labels_of(tmp_path / "m.jsonl") == ROWS
    (tmp_path / "n.jsonl").write_text('{"id": 7, "label": "cat"}\n')
    with pytest.raises(SourceError, match=r"line 1: the path is not a path: 7\. Name the column: --path-column"):
        labels_of(tmp_path / "n.jsonl")


@pytest.mark.parametrize("value", [None, float("nan"), "", "  ", "nan", "NaN", "NaT", "<NA>", Decimal("nan")])
def test_missing_labels_are_refused_with_their_row(value: object) -> None:
    with pytest.raises(SourceError, match=r"t\.csv, line 2: the label is missing"):
        LabelReader().read(value, "t.csv, line 2")


@pytest.mark.parametrize("value", ["None", "NA", "N/A", "null", "?", "-"])
def test_labels_that_look_missing_are_kept_for_a_warning(value: str) -> None:
    assert LabelReader().read(value, "here") == value
    assert looks_missing(value)
    assert looks_missing(f" {value.lower()} ")


def test_a_class_that_is_really_called_nan_can_be_named() -> None:
    assert not looks_missing("naan")
    assert LabelReader(["nan", "pitta"]).read("nan", "here") == "nan"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("0", "cat"),
        ("1.0", "dog"),
        (1, "dog"),
        (1.0, "dog"),
        (True, "dog"),
        (b"1", "dog"),
        ("dog", "dog"),
        (" Dog", "dog"),
        ("DOG", "dog"),
        ("'=x", "=x"),
        ("+1", "dog"),
    ],
)
def test_names_map_indices_and_other_spellings(value: object, name: str) -> None:
    assert LabelReader(["cat", "dog", "=x"]).read(value, "here") == name


@pytest.mark.parametrize("value", ["²", "--5", "٣", "zebra", "1.5", "1e0", "9" * 5000, 0.5, [0]])
def test_labels_that_are_no_class_are_explained(value: object) -> None:
    with pytest.raises(SourceError, match=r"m\.csv, line 2: ") as caught:
        LabelReader(["cat", "dog"]).read(value, "m.csv, line 2")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", ["7", "-1", 7, "9" * 18])
def test_indices_out_of_range_are_explained(value: object) -> None:
    with pytest.raises(SourceError, match=r"out of range: there are 2 class names \(0 to 1\)"):
        LabelReader(["cat", "dog"]).read(value, "m.csv, line 2")


def test_paths_in_other_spellings_are_found_and_said(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in ("1.png", "2.png", "cafe\u0301.png"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / "m.csv").write_text("path,label\ncat\\1.png,cat\ncat/2.png ,cat\ncat/caf\u00e9.png,cat\n")
    source = ManifestSource(tmp_path / "m.csv", SourceOptions())
    assert [sample.id for sample in source.samples()] == ["cat/1.png", "cat/2.png", "cat/cafe\u0301.png"]
    (note,) = source.notes()
    assert note.startswith("3 path(s) differ from their files in blanks, backslashes or Unicode form: 'cat\\\\1.png'")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("path,label\n" + "a.png,0.0\nb.png,1.0\n"),
        lambda path: parquet(path.with_suffix(".parquet"), path=["a.png", "b.png"], label=[0.0, 1.0]),
        lambda path: path.with_suffix(".jsonl").write_text(
            '{"path": "a.png", "label": 0.0}\n{"path": "b.png", "label": 1}\n'
        ),
    ],
)
def test_whole_numbers_are_integers_in_every_table(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path / "m.csv")
    (path,) = tmp_path.iterdir()
    assert [label for _, label in labels_of(path)] == ["0", "1"]
