"""Every reader of labelled images, with good and with bad input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import any_image, write_class_folders
from hypothesis import given
from hypothesis import strategies as st

from clipaudit.cache.embeddings import MAX_PART, MIN_PART, split_into_parts
from clipaudit.errors import ClipAuditError, ImageError, SourceError, UsageError
from clipaudit.samples import FaultySample, Sample, SourceOptions, open_source, read_column, read_names


def ids_and_labels(path: Path, **options: object) -> list[tuple[str, str]]:
    return [(sample.id, sample.label) for sample in open_source(path, SourceOptions(**options)).samples()]


def write_manifests(folder: Path, rows: list[tuple[str, str]]) -> list[Path]:
    """The same table as CSV, TSV, JSONL and Parquet."""
    csv, tsv, jsonl, parquet = (folder / f"manifest.{ending}" for ending in ("csv", "tsv", "jsonl", "parquet"))
    csv.write_text("path,label\n" + "".join(f'"{path}",{label}\n' for path, label in rows))
    tsv.write_text("path\tlabel\n" + "".join(f"{path}\t{label}\n" for path, label in rows))
    jsonl.write_text("".join(json.dumps({"path": path, "label": label}) + "\n" for path, label in rows))
    pq.write_table(pa.table({"path": [row[0] for row in rows], "label": [row[1] for row in rows]}), parquet)
    return [csv, tsv, jsonl, parquet]


def test_all_forms_of_a_source_give_the_same_samples(small_images: Path) -> None:
    expected = ids_and_labels(small_images)
    assert len(expected) == 24
    for manifest in write_manifests(small_images, expected):
        source = open_source(manifest)
        assert [(sample.id, sample.label) for sample in source.samples()] == expected
        assert source.read(expected[5][0]) == (small_images / expected[5][0]).read_bytes()


def test_folders_nest_and_other_files_are_counted(tmp_path: Path) -> None:
    for path in ("cat/deep/er/a.PNG", "cat/b.png", "dog/c.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        any_image().save(tmp_path / path)
    for path in ("cat/notes.txt", "stray.png", ".hidden", "dog/.DS_Store"):
        (tmp_path / path).write_text("x")
    (tmp_path / "dog" / "loop").symlink_to(tmp_path / "dog")
    source = open_source(tmp_path)
    assert [sample.id for sample in source.samples()] == ["cat/b.png", "cat/deep/er/a.PNG", "dog/c.png"]
    assert len(source.notes()) == 3
    assert "1 file(s) with the ending '.txt' passed over" in source.notes()


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_with_images(small_images: Path, tmp_path: Path, as_struct: bool) -> None:
    samples = ids_and_labels(small_images)
    data = [(small_images / name).read_bytes() for name, _ in samples]
    images = [{"bytes": content, "path": None} for content in data] if as_struct else data
    (tmp_path / "data").mkdir()
    for number, part in enumerate((slice(0, 10), slice(10, 24))):
        table = pa.table({"image": images[part], "label": [label for _, label in samples[part]]})
        pq.write_table(table, tmp_path / "data" / f"train-{number}.parquet", row_group_size=4)
    source = open_source(tmp_path / "data")
    found = list(source.samples())
    assert [sample.label for sample in found] == [label for _, label in samples]
    assert found[11].id == "train-1.parquet#1"
    for row in (23, 0, 12, 9, 10):
        assert source.read(found[row].id) == data[row]


def test_class_indices_become_names(small_images: Path, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text('{"0": "cat", "1": "dog"}')
    assert read_names(tmp_path / "names.json") == ["cat", "dog"]
    (tmp_path / "m.csv").write_text("file,y\na.png,1\nb.png,0\nc.png,cat\n")
    assert ids_and_labels(tmp_path / "m.csv", names=["cat", "dog"]) == [
        ("a.png", "dog"),
        ("b.png", "cat"),
        ("c.png", "cat"),
    ]


def test_hub_class_names_are_read_from_the_schema(tmp_path: Path) -> None:
    feature = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": [b"x", b"y"], "label": [1, 0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(feature)}), tmp_path / "t.parquet")
    assert ids_and_labels(tmp_path / "t.parquet") == [("t.parquet#0", "dog"), ("t.parquet#1", "cat")]


def test_a_missing_image_is_a_sample_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label\nnone.png,cat\n")
    (sample,) = open_source(tmp_path / "m.csv").samples()
    assert isinstance(sample, FaultySample)
    assert "No such file" in sample.reason


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_a_file_name_that_is_no_utf8_is_a_sample_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    try:
        (tmp_path / "cat" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has no such file names")
    (sample,) = open_source(tmp_path).samples()
    assert isinstance(sample, FaultySample)
    assert (sample.id, "UTF-8" in sample.reason) == ("cat/\\xff.png", True)


BAD_TABLES = {
    "empty.csv": (b"", "must name the columns"),
    "header.csv": (b"path,label\n", "no rows"),
    "columns.csv": (b"picture,kind\na,b\n", "Its columns: picture, kind"),
    "twice.csv": (b"path,label,label\na,b,c\n", "same name"),
    "fields.csv": (b"path,label\na.png,cat\nb,c.png,dog\n", "line 3: 3 fields where the header has 2"),
    "nolabel.csv": (b"path,label\na.png,cat\nb.png,\n", "line 3: the label is missing"),
    "nopath.csv": (b"path,label\n,cat\n", "line 2: the path is missing"),
    "nul.csv": (b"path,label\na\x00.png,cat\n", "line 2"),
    "duplicate.csv": (b"path,label\na.png,cat\nb.png,cat\n./a.png,dog\n", "line 4: the path was listed before, in"),
    "latin1.csv": (b"path,label\n\xe9.png,cat\n", "not UTF-8"),
    "quote.csv": (b'path,label\n"a.png,cat\n', "not a valid table"),
    "broken.jsonl": (b'{"path": "a.png", "label": "cat"}\n{"path": \n', "line 2: not valid JSON"),
    "list.jsonl": (b"[1, 2]\n", "line 1: not a JSON object"),
    "field.jsonl": (b'{"path": "a.png", "label": "cat"}\n{"path": "b.png"}\n', "line 2: no field 'label'"),
    "nan.jsonl": (b'{"path": "a.png", "label": NaN}\n', "line 1: the label is missing"),
    "number.jsonl": (b'{"path": 7, "label": "cat"}\n', "line 1: the path is not a path: 7"),
    "text.parquet": (b"this is no parquet", "not a readable Parquet file"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_manifests_name_file_and_row(tmp_path: Path, name: str) -> None:
    content, message = BAD_TABLES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=name) as caught:
        ids_and_labels(tmp_path / name)
    assert message in str(caught.value)


def test_damaged_parquet_names_the_row(tmp_path: Path) -> None:
    table = pa.table({"image": [b"x" * 1000] * 500, "label": [f"class {i}" for i in range(500)]})
    pq.write_table(table, tmp_path / "d.parquet", compression="zstd", use_dictionary=False)
    content = bytearray((tmp_path / "d.parquet").read_bytes())
    content[len(content) // 3 : len(content) // 2] = b"\0" * (len(content) // 2 - len(content) // 3)
    (tmp_path / "d.parquet").write_bytes(content)
    source = open_source(tmp_path / "d.parquet")
    with pytest.raises((SourceError, ImageError), match=r"d\.parquet"):
        _ = [source.read(sample.id) for sample in source.samples()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no class folders"),
        (lambda folder: any_image().save(folder / "a.png"), "no class folders"),
        (lambda folder: (folder / "cat").mkdir(), "no images in them"),
    ],
)
def test_folders_without_classes_are_refused(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path)
    with pytest.raises(SourceError, match=message):
        ids_and_labels(tmp_path)


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(UsageError, match="not a kind of source"):
        open_source(tmp_path / "a.rar")
    (tmp_path / "m.csv").write_text("path,label\na.png,7\n")
    with pytest.raises(SourceError, match=r"line 2: class index 7 is out of range"):
        ids_and_labels(tmp_path / "m.csv", names=["cat", "dog"])
    with pytest.raises(SourceError, match="no column 'klass'"):
        ids_and_labels(tmp_path / "m.csv", label_column="klass")


def test_other_labels_are_matched_by_path_or_by_row(tmp_path: Path) -> None:
    root = tmp_path / "images"
    ids = list(write_class_folders(root, 12))
    by_path = tmp_path / "by_path.csv"
    by_path.write_text("path,truth\n" + "".join(f"images/{name},t{i}\n" for i, name in reversed(list(enumerate(ids)))))
    by_row = tmp_path / "by_row.csv"
    by_row.write_text("truth\n" + "".join(f"t{i}\n" for i in range(12)))
    expected = [f"t{i}" for i in range(12)]
    assert read_column(f"{by_path}:truth", ids, root).values == expected
    assert read_column(f"{by_row}:truth", ids, root).values == expected
    assert read_column(f"{by_path}:truth", ids, root).matched_by == "path"
    assert read_column(f"{by_row}:truth", ids, root).matched_by == "row order"
    by_path.write_text("path,truth\nimages/other.png,t\n")
    with pytest.raises(
        SourceError, match=r"'path' could name the images, but none .* 'images/other\.png' there, 'eight/"
    ):
        read_column(f"{by_path}:truth", ids, root)
    by_path.write_text(f"path,truth\nimages/{ids[3]},t\n")
    with pytest.raises(SourceError, match=rf"no row for {ids[0]} \(11 of 12"):
        read_column(f"{by_path}:truth", ids, root)
    by_row.write_text("truth\nt\n")
    with pytest.raises(SourceError, match="1 rows for 12 images"):
        read_column(f"{by_row}:truth", ids, root)


@pytest.mark.parametrize("content", ["", "cat\n\ndog\n", "cat\ncat\n"])
def test_bad_class_name_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "names.txt").write_text(content)
    with pytest.raises(ClipAuditError, match=r"names\.txt"):
        read_names(tmp_path / "names.txt")


def _samples(numbers: list[int]) -> list[Sample]:
    return [Sample(f"class/{number}.png", "class", 1, 1) for number in numbers]


@given(st.integers(0, 9000), st.integers(0, 9000))
def test_parts_are_bounded_and_one_change_touches_few(n: int, position: int) -> None:
    parts = list(split_into_parts(_samples(list(range(n)))))
    assert [sample for part in parts for sample in part] == _samples(list(range(n)))
    assert all(MIN_PART <= len(part) <= MAX_PART for part in parts[:-1])
    changed = [number for number in range(n) if number != position]
    before = {tuple(part) for part in parts}
    after = {tuple(part) for part in split_into_parts(_samples(changed))}
    # Borders meet again at the first one that both ways of cutting may use.
    assert len(after - before) <= max(2, len(after) // 2 + 1)
