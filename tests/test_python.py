"""What a clean index offers in Python: data frames, some of its rows, clean parts of data sets, how it shows itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import clipaudit
from clipaudit import CleanIndex
from clipaudit.errors import UsageError


@pytest.fixture
def partly_read(noisy_index: CleanIndex) -> CleanIndex:
    """The noisy digits, of which the first image could not be read."""
    table = noisy_index.table
    columns = {name: table[name].to_pylist() for name in table.column_names}
    for name, values in columns.items():
        if name not in ("id", "path", "label"):
            values[0] = {"is_clean": False, "status": "unreadable", "reason": "gone"}.get(name)
    return CleanIndex(pa.table(columns, table.schema), noisy_index.metadata)


def test_a_data_frame_has_all_rows_and_categories(partly_read: CleanIndex) -> None:
    pandas = pytest.importorskip("pandas")
    frame = partly_read.to_pandas()
    assert frame.columns.tolist() == partly_read.table.column_names
    assert len(frame) == len(partly_read)
    for name in ("label", "suggested_label", "zero_shot_label"):
        assert isinstance(frame[name].dtype, pandas.CategoricalDtype)
        assert frame[name].cat.categories.tolist() == partly_read.class_names
    assert frame["is_clean"].dtype == bool
    assert frame.loc[frame.is_clean].index.tolist() == partly_read.clean_indices.tolist()
    # Null for what could not be read, and still a column to choose rows by.
    assert frame["zero_shot_loss_clean"].isna().tolist() == [True, *[False] * 599]
    assert len(frame[frame["zero_shot_loss_clean"]]) == pc.sum(partly_read.table["zero_shot_loss_clean"]).as_py()


def test_without_pandas_the_command_to_install_it_is_told(
    noisy_index: CleanIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        noisy_index.to_pandas()


def test_all_kinds_of_conditions_choose_the_same_rows(noisy_index: CleanIndex, tmp_path: Path) -> None:
    doubtful = pc.greater(noisy_index.table["p_wrong"], 0.9)
    flags = doubtful.to_numpy()
    conditions = [
        *(flags, flags.tolist(), doubtful, doubtful.combine_chunks()),
        *(pc.field("p_wrong") > 0.9, lambda row: row["p_wrong"] > np.float32(0.9)),
    ]
    if pandas := sys.modules.get("pandas"):
        conditions += [pandas.Series(flags), pandas.Series(flags, dtype="boolean")]
    for condition in conditions:
        chosen = noisy_index.filter(condition)
        assert chosen.table.equals(noisy_index.table.filter(pa.array(flags)))
        assert chosen.metadata == noisy_index.metadata
    assert 0 < len(chosen) < len(noisy_index)
    assert len(noisy_index.filter(pa.array([None, True, *[False] * 598]))) == 1
    chosen.write(tmp_path / "chosen.parquet")
    again = clipaudit.read_index(tmp_path / "chosen.parquet")
    assert again.table.equals(chosen.table)
    assert again.filter(again.is_clean).file == again.file


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ([True, False], "there are 2 values for 600 samples"),
        ([0, 1, 2], r"a function of a row, not \[0, 1, 2\]"),
        ("is_clean", "a function of a row, not 'is_clean'"),
        (None, "a function of a row, not None"),
        (pc.field("nothing") > 1, "the condition does not fit the index: .*nothing"),
        (pc.field("id") > 1, "the condition does not fit the index"),
    ],
)
def test_a_condition_of_another_kind_is_refused(noisy_index: CleanIndex, condition: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        noisy_index.filter(condition)  # type: ignore[arg-type]


class Digits:
    """A data set as PyTorch has them."""

    def __init__(self, index: CleanIndex) -> None:
        self.ids = index.table["id"].to_pylist()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> str:
        return str(self.ids[row])


def test_the_clean_part_of_a_pytorch_data_set(noisy_index: CleanIndex) -> None:
    from torch.utils.data import DataLoader, Subset

    clean = noisy_index.table["id"].filter(noisy_index.table["is_clean"]).to_pylist()
    for dataset in (Digits(noisy_index), noisy_index.table["id"].to_pylist()):
        part = noisy_index.subset(dataset)
        assert isinstance(part, Subset)
        assert [name for batch in DataLoader(part, batch_size=32) for name in batch] == clean


def test_the_clean_part_of_a_hugging_face_data_set(noisy_index: CleanIndex) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"id": noisy_index.table["id"].to_pylist()})
    part = noisy_index.subset(dataset)
    assert isinstance(part, datasets.Dataset)
    assert part["id"][:] == noisy_index.table["id"].filter(noisy_index.table["is_clean"]).to_pylist()
    with pytest.raises(UsageError, match="a data set must have a length and numbered items"):
        noisy_index.subset(dataset.to_iterable_dataset())
    with pytest.raises(UsageError, match="the data set has 1 items, and the index 600 samples"):
        noisy_index.subset(datasets.DatasetDict({"train": dataset}))


def test_a_data_set_that_does_not_fit_is_refused(noisy_index: CleanIndex) -> None:
    with pytest.raises(UsageError, match="the data set has 2 items, and the index 600 samples"):
        noisy_index.subset(["a", "b"])
    for other in (7, None, (row for row in range(600))):
        with pytest.raises(UsageError, match="a data set must have a length and numbered items"):
            noisy_index.subset(other)
    with pytest.raises(UsageError, match=r"a table is no data set of numbered items.*index\.is_clean"):
        noisy_index.subset(noisy_index.table)


def test_an_index_says_in_a_line_what_it_is(noisy_index: CleanIndex, partly_read: CleanIndex) -> None:
    clean, doubt = int(noisy_index.is_clean.sum()), int(noisy_index.in_doubt.sum())
    source = noisy_index.metadata.source
    said = f"CleanIndex(600 samples of 10 classes: {clean} clean, {doubt} in doubt; source={source!r})"
    assert repr(noisy_index) == said
    assert "1 unreadable" in repr(partly_read)
    assert "0 clean, 0 in doubt" in repr(noisy_index.filter(np.zeros(600, bool)))


def test_a_notebook_shows_the_most_doubtful_labels_and_runs_nothing(noisy_index: CleanIndex) -> None:
    page = noisy_index._repr_html_()
    rows = np.flatnonzero(noisy_index.in_doubt)
    worst = rows[noisy_index.table["clean_score"].to_numpy()[rows].argmin()]
    assert page.count("<tr>") == 6
    assert noisy_index.table["id"][int(worst)].as_py() in page
    hostile = "<script>alert(1)</script>&\x1b[2J"
    table = noisy_index.table.set_column(0, "id", pa.array([f"{hostile}{row}" for row in range(600)]))
    metadata = replace(noisy_index.metadata, source=hostile)
    shown = CleanIndex(table, metadata)._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "\x1b" not in shown
    assert len(shown) < 5_000
    assert "<table>" not in noisy_index.filter(noisy_index.is_clean)._repr_html_()


def test_a_cache_is_opened_by_a_string(noisy_cache: Path) -> None:
    store = clipaudit.EmbeddingsCache.open(str(noisy_cache))
    assert store.path == noisy_cache
    assert len(store.read().table) == 600
