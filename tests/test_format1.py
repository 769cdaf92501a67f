"""Indices of format 1 are still read: as what their estimates are, with the scores and flags that they had.

tests/format1 holds the first 20 rows of two audits of 600 digits, written by the last commit before format 2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import clipaudit
from clipaudit.errors import IndexFileError

FILES = Path(__file__).parent / "format1"
NAMES = {"paper": "logistic", "recommended": "joint_transition"}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_format_1_says_what_its_columns_hold(name: str, tmp_path: Path) -> None:
    former, index = pq.read_table(FILES / f"{name}.parquet"), clipaudit.read_index(FILES / f"{name}.parquet")
    assert not [column for column in index.table.column_names if "induced" in column or "posterior_raw" in column]
    pairs = {
        "induced_loss": "loss",
        "induced_posterior_raw": "raw_posterior",
        "induced_consistency_clean": "consistency_clean",
    }
    for old, new in pairs.items():
        assert index.table[f"{NAMES[name]}_{new}"].to_pylist() == former[old].to_pylist()
    assert index.table["zero_shot_raw_posterior"].to_pylist() == former["zero_shot_posterior_raw"].to_pylist()
    assert set(index.metadata.mixtures) == {"zero_shot", NAMES[name]}
    index.write(tmp_path / "now.parquet")
    again = clipaudit.read_index(tmp_path / "now.parquet")
    assert again.table.equals(index.table)
    assert again.metadata == index.metadata


@pytest.mark.parametrize("name", NAMES)
def test_it_is_decided_again_and_reported_as_any_other(name: str, tmp_path: Path) -> None:
    index = clipaudit.read_index(FILES / f"{name}.parquet")
    again = clipaudit.reselect(index, index.config)
    assert np.array_equal(again.is_clean, index.is_clean)
    assert clipaudit.write_report(index, tmp_path / "report.html").n_shown > 0


def test_damage_of_format_1_is_named_by_its_own_columns(tmp_path: Path) -> None:
    table = pq.read_table(FILES / "paper.parquet")
    pq.write_table(table.drop_columns(["induced_loss"]), tmp_path / "a.parquet")
    with pytest.raises(IndexFileError, match="no column 'induced_loss'"):
        clipaudit.read_index(tmp_path / "a.parquet")
    pq.write_table(table.slice(1), tmp_path / "b.parquet")
    with pytest.raises(IndexFileError, match="other software changed it"):
        clipaudit.read_index(tmp_path / "b.parquet")
    mine = table.replace_schema_metadata({"clipaudit": table.schema.metadata[b"clipaudit"]})
    pq.write_table(mine.append_column("logistic_loss", mine["id"]), tmp_path / "c.parquet")
    with pytest.raises(IndexFileError, match="column 'logistic_loss' that is not clipaudit's"):
        clipaudit.read_index(tmp_path / "c.parquet")
