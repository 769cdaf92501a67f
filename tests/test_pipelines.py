"""Every example of docs/pipelines.md runs as printed with the real library, and sees the clean samples of the index."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import DIGITS, write_class_folders

import clipaudit

PAGE = Path(__file__).parents[1] / "docs" / "pipelines.md"
# What the heading of an example names, and what is imported for it.
LIBRARIES = {
    "webdataset": "webdataset",
    "pandas": "pandas",
    "PyTorch": "torch",
    "datasets": "datasets",
    "cleanlab": "cleanlab",
    "DuckDB": "duckdb",
    "polars": "polars",
}


def examples() -> dict[str, str]:
    """The Python blocks of the page by the headings above them."""
    return dict(re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE))


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> clipaudit.CleanIndex:
    """A folder with photos, an image among them that cannot be read, and what `embed` and `select` write."""
    monkeypatch.chdir(tmp_path)
    write_class_folders(tmp_path / "photos", 150, rate=0.2)
    next((tmp_path / "photos").rglob("*.png")).write_bytes(b"no image")
    clipaudit.select(clipaudit.embed("photos", encoder=DIGITS).cache, device="cpu").write("clean.parquet")
    return clipaudit.read_index("clean.parquet")


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an example leaves behind."""
    pytest.importorskip(LIBRARIES[name])
    if name == "datasets":
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    left: dict[str, Any] = {}
    exec(compile(examples()[name], f"docs/pipelines.md, {name}", "exec"), left)
    return left


def test_every_example_has_a_test() -> None:
    assert examples().keys() == LIBRARIES.keys()


@pytest.mark.parametrize("name", ["pandas", "PyTorch", "datasets", "DuckDB", "polars"])
def test_all_see_the_same_clean_samples(
    name: str, audited: clipaudit.CleanIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = run(name, tmp_path, monkeypatch)
    clean = left["clean"]
    paths: dict[str, Any] = {
        "pandas": lambda: clean["path"].tolist(),
        "PyTorch": lambda: [clean.dataset.paths[row] for row in clean.indices],
        "datasets": lambda: clean["path"][:],
        "DuckDB": lambda: [path for path, _ in clean.fetchall()],
        "polars": lambda: clean["path"].to_list(),
    }
    assert paths[name]() == audited.table["path"].filter(audited.table["is_clean"]).to_pylist()
    labels = audited.labels()[audited.is_clean].tolist()
    if name == "PyTorch":
        assert tuple(left["images"].shape) == (8, 224, 224, 3)
        assert [int(clean[item][1]) for item in range(5)] == labels[:5]
    elif name == "datasets":
        assert left["photos"]["label"][:] == labels
        assert left["photos"].features["label"].names == audited.class_names
        assert left["photos"][0]["image"].size == (32, 32)
    elif name == "polars":
        doubtful = clipaudit.read_index("doubtful.parquet")
        assert 0 < len(doubtful) == (audited.to_pandas()["p_wrong"] > 0.9).sum()


def test_webdataset_passes_the_clean_samples_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    webdataset = pytest.importorskip("webdataset")
    monkeypatch.chdir(tmp_path)
    paths = list(write_class_folders(tmp_path / "photos", 150, rate=0.2))
    (tmp_path / "shards").mkdir()
    for number in range(2):
        with webdataset.TarWriter(f"shards/{number:03}.tar") as writer:
            for path in paths[75 * number : 75 * number + 75]:
                image = (tmp_path / "photos" / path).read_bytes()
                writer.write({"__key__": path[:-4], "png": image, "txt": path.split("/")[0]})
    cache = clipaudit.embed("shards/{000..001}.tar", encoder=DIGITS).cache
    index = clipaudit.select(cache, device="cpu")
    index.write("clean.parquet")
    clipaudit.export(index, "clean.txt")
    left = run("webdataset", tmp_path, monkeypatch)
    assert len(left["images"]) == int(index.is_clean.sum()) > 50
    assert left["clean"] == set((tmp_path / "clean.txt").read_text().splitlines())


def test_cleanlab_finds_the_labels_that_were_changed(
    audited: clipaudit.CleanIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = run("cleanlab", tmp_path, monkeypatch)
    assert left["probabilities"].shape == (150, 10)
    assert len(left["rows"]) == 149
    doubtful = set(left["rows"][left["issues"]].tolist())
    assert 5 < len(doubtful) < 60
    assert sum(bool(audited.is_clean[row]) for row in doubtful) < len(doubtful) / 2
