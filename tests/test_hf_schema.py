"""What Hugging Face `datasets` and others see in the file of a clean index."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS

import clipaudit
from clipaudit import CleanIndex
from clipaudit.errors import IndexFileError, UsageError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def reviewed(noisy_index: CleanIndex, tmp_path: Path) -> CleanIndex:
    ids = noisy_index.table["id"].to_pylist()
    (tmp_path / "m.csv").write_text(f"id,mark,label\n{ids[0]},right,\n{ids[1]},relabel,seven\n{ids[2]},drop,\n")
    return clipaudit.apply_marks(noisy_index, tmp_path / "m.csv")[0]


@pytest.mark.parametrize("how", ["from_parquet", "load_dataset"])
def test_datasets_finds_class_labels(reviewed: CleanIndex, tmp_path: Path, how: str) -> None:
    file = tmp_path / "clean.parquet"
    reviewed.write(file)
    options = {"cache_dir": str(tmp_path / "cache")}
    if how == "from_parquet":
        dataset = datasets.Dataset.from_parquet(str(file), **options)
    else:
        dataset = datasets.load_dataset("parquet", data_files=str(file), split="train", **options)
    for name in ("label", "suggested_label", "label_given"):
        feature = dataset.features[f"{name}_index"]
        assert isinstance(feature, datasets.ClassLabel)
        assert feature.names == reviewed.class_names
        names = reviewed.table[name].to_pylist()
        assert dataset[name][:] == names
        indices = dataset[f"{name}_index"][:]
        assert [None if index is None else feature.int2str(index) for index in indices] == names
    others = {name: feature for name, feature in dataset.features.items() if not name.endswith("_index")}
    assert list(others) == reviewed.table.column_names
    assert all(isinstance(feature, datasets.Value) for feature in others.values())
    assert dataset["p_wrong"][:] == reviewed.table["p_wrong"].to_pylist()
    assert dataset["label_index"][:] == reviewed.labels().tolist()


def test_an_export_is_a_data_set_with_its_images_and_a_source(
    noisy_index: clipaudit.CleanIndex, tmp_path: Path
) -> None:
    assert clipaudit.export(noisy_index, tmp_path / "digits", format="huggingface") == []
    rows = datasets.load_dataset(str(tmp_path / "digits"), cache_dir=str(tmp_path / "hf"), split="train")
    assert rows.features["label"].names == rows.features["suggested_label"].names == noisy_index.class_names
    assert rows["label"][:] == noisy_index.labels().tolist()
    assert rows["is_clean"][:] == noisy_index.is_clean.tolist()
    assert rows["id"][:] == noisy_index.table["id"].to_pylist()
    assert rows[0]["image"].size == (32, 32)
    source = clipaudit.samples.open_source(tmp_path / "digits")
    samples = list(source.samples())
    assert [sample.label for sample in samples] == noisy_index.table["label"].to_pylist()
    first = Path(noisy_index.metadata.root, noisy_index.table["id"][0].as_py())
    assert source.read(samples[0].id) == first.read_bytes()


def test_an_export_says_how_many_images_are_gone(small_images: Path, tmp_path: Path) -> None:
    index = clipaudit.select(clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS).cache, device="cpu")
    Path(index.table["path"][3].as_py()).unlink()
    said = clipaudit.export(index, tmp_path / "out", format="huggingface")
    assert said == ["1 image(s) could not be read; their rows have none"]
    table = pq.read_table(tmp_path / "out" / "data")
    assert table["image"].null_count == 1
    assert len(table) == len(index)
    with pytest.raises(UsageError, match="into a folder, whose name has no ending"):
        clipaudit.export(index, tmp_path / "out.json", format="huggingface")


def test_the_metadata_name_every_column(noisy_index: CleanIndex, tmp_path: Path) -> None:
    own = pa.array([0.5] * len(noisy_index), pa.float16())
    table = noisy_index.table.append_column("own", own).append_column("nothing", pa.nulls(len(noisy_index)))
    CleanIndex(table, noisy_index.metadata).write(tmp_path / "clean.parquet")
    schema = pq.read_schema(tmp_path / "clean.parquet")
    said = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(said) == schema.names
    described = datasets.Features.from_dict(said).arrow_schema
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        assert described.field(field.name).type == kind


def test_the_columns_of_names_are_what_they_were(noisy_index: CleanIndex, tmp_path: Path) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    table = pq.read_table(tmp_path / "clean.parquet")
    assert table["label"].type == pa.dictionary(pa.int32(), pa.string())
    assert table["label_index"].type == pa.int64()
    again = clipaudit.read_index(tmp_path / "clean.parquet")
    assert again.table.equals(noisy_index.table)
    again.write(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "clean.parquet").read_bytes()


def without_schema(file: Path) -> pa.Table:
    """The index as clipaudit wrote it before: no class indices, and nothing said to `datasets`."""
    table = pq.read_table(file)
    kept = {key: value for key, value in table.schema.metadata.items() if key != b"huggingface"}
    names = [name for name in table.column_names if not name.endswith("_index")]
    return table.select(names).replace_schema_metadata(kept)


def test_files_without_the_schema_are_read(noisy_index: CleanIndex, tmp_path: Path) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    old = without_schema(tmp_path / "clean.parquet")
    pq.write_table(old, tmp_path / "old.parquet")
    assert clipaudit.read_index(tmp_path / "old.parquet").table.equals(noisy_index.table)
    # A column of the user's own by that name stays what it is.
    own = old.append_column("label_index", pa.array(["mine"] * len(old)))
    pq.write_table(own, tmp_path / "own.parquet")
    index = clipaudit.read_index(tmp_path / "own.parquet")
    assert index.table["label_index"].to_pylist() == ["mine"] * len(old)
    with pytest.raises(UsageError, match="column 'label_index' does not hold the class indices of 'label'"):
        index.write(tmp_path / "refused.parquet")
    assert not (tmp_path / "refused.parquet").exists()


@pytest.mark.parametrize("values", [[0] * 600, [None] * 600, ["zero"] * 600])
def test_class_indices_that_say_something_else_are_refused(
    noisy_index: CleanIndex, tmp_path: Path, values: list[object]
) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    table = pq.read_table(tmp_path / "clean.parquet")
    column = table.column_names.index("label_index")
    kind = pa.string() if values[0] == "zero" else pa.int64()
    pq.write_table(table.set_column(column, "label_index", pa.array(values, kind)), tmp_path / "other.parquet")
    with pytest.raises(IndexFileError, match="column 'label_index' does not hold the class indices of 'label'"):
        clipaudit.read_index(tmp_path / "other.parquet")


def test_a_table_that_pandas_had_is_written_and_read(noisy_index: CleanIndex, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    noisy_index.write(tmp_path / "clean.parquet")
    frame = pandas.read_parquet(tmp_path / "clean.parquet")
    frame.to_parquet(tmp_path / "lost.parquet")
    with pytest.raises(IndexFileError, match="lost its metadata"):
        clipaudit.read_index(tmp_path / "lost.parquet")
    frame["mine"] = range(len(frame))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    CleanIndex(table, noisy_index.metadata).write(tmp_path / "mine.parquet")
    again = clipaudit.read_index(tmp_path / "mine.parquet").table
    assert again.drop_columns(["mine"]).equals(noisy_index.table)
