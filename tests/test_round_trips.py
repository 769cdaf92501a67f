"""The same images in every form that data lies in: the same verdicts, and pictures from the index alone."""

from __future__ import annotations

import csv
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DIGITS

import clipaudit
from clipaudit.samples.reader import ImageReader

datasets = pytest.importorskip("datasets")
webdataset = pytest.importorskip("webdataset")

Paths = list[str]


def rows(root: Path, paths: Paths) -> Any:
    """The images as a `datasets.Dataset`, in the order of the paths."""
    names = sorted({path.split("/")[0] for path in paths})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    held = [{"bytes": (root / path).read_bytes(), "path": None} for path in paths]
    labels = [names.index(path.split("/")[0]) for path in paths]
    return datasets.Dataset.from_dict({"image": held, "label": labels}, features=features)


def in_memory(root: Path, paths: Paths, out: Path) -> Any:
    return rows(root, paths)


def saved(root: Path, paths: Paths, out: Path) -> Path:
    rows(root, paths).save_to_disk(out, num_shards=3)
    return out


def one_of_a_dict(root: Path, paths: Paths, out: Path) -> Path:
    split = rows(root, paths)
    datasets.DatasetDict({"train": split, "test": split.select(range(10))}).save_to_disk(out)
    return out / "train"


def hub(root: Path, paths: Paths, out: Path) -> Path:
    split = rows(root, paths)
    for number in range(2):
        split.shard(2, number, contiguous=True).to_parquet(out / "data" / f"train-{number:05}-of-00002.parquet")
    return out


def paths_in_rows(root: Path, paths: Paths, out: Path) -> Path:
    """What `datasets` writes for an image folder: rows without bytes, that name the files."""
    names = sorted({path.split("/")[0] for path in paths})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    content = {"image": [str(root / path) for path in paths], "label": [path.split("/")[0] for path in paths]}
    datasets.Dataset.from_dict(content, features=features).save_to_disk(out)
    return out


def described(root: Path, paths: Paths, out: Path) -> Path:
    """All images in one folder, and a metadata.csv that says what they are."""
    (out / "images").mkdir(parents=True)
    with (out / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "label"))
        for number, path in enumerate(paths):
            shutil.copy(root / path, out / "images" / f"{number}.png")
            writer.writerow((f"images/{number}.png", path.split("/")[0]))
    return out


def zipped(root: Path, paths: Paths, out: Path) -> Path:
    return Path(shutil.make_archive(str(out), "zip", root))


def zipped_with_its_folder(root: Path, paths: Paths, out: Path) -> Path:
    return Path(shutil.make_archive(str(out), "zip", root.parent, root.name))


def tarred(root: Path, paths: Paths, out: Path) -> Path:
    with tarfile.open(out.with_suffix(".tar"), "w") as archive:
        for path in paths:
            archive.add(root / path, path)
    return out.with_suffix(".tar")


def tar_gz(root: Path, paths: Paths, out: Path) -> Path:
    with tarfile.open(f"{out}.tar.gz", "w:gz") as archive:
        for path in paths:
            archive.add(root / path, f"./digits/{path}")
    return Path(f"{out}.tar.gz")


def shards(root: Path, paths: Paths, out: Path, samples: Callable[[str], dict[str, Any]]) -> str:
    """Three shards, by the library itself; returns their pattern with braces."""
    out.mkdir()
    for number in range(3):
        with webdataset.TarWriter(str(out / f"{number:03}.tar")) as writer:
            for path in paths[200 * number : 200 * number + 200]:
                writer.write({"__key__": path[:-4], "png": (root / path).read_bytes()} | samples(path))
    return f"{out}/{{000..002}}.tar"


def webdataset_cls(root: Path, paths: Paths, out: Path) -> Path:
    """Numbers, and the names of the classes beside them."""
    names = sorted({path.split("/")[0] for path in paths})
    shards(root, paths, out, lambda path: {"cls": names.index(path.split("/")[0])})
    return out


def webdataset_json(root: Path, paths: Paths, out: Path) -> str:
    return shards(root, paths, out, lambda path: {"json": {"width": 28, "label": path.split("/")[0]}})


def webdataset_txt(root: Path, paths: Paths, out: Path) -> Path:
    shards(root, paths, out, lambda path: {"txt": path.split("/")[0]})
    return out / "*.tar"


FORMS: list[Callable[[Path, Paths, Path], Any]] = [
    *(in_memory, saved, one_of_a_dict, hub, paths_in_rows, described),
    *(zipped, zipped_with_its_folder, tarred, tar_gz, webdataset_cls, webdataset_json, webdataset_txt),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_verdicts_of_the_class_folders(
    form: Callable[[Path, Paths, Path], Any],
    noisy_digits: tuple[Path, dict[str, str]],
    noisy_index: clipaudit.CleanIndex,
    tmp_path: Path,
) -> None:
    root = noisy_digits[0]
    paths = noisy_index.table["id"].to_pylist()
    source = form(root, paths, tmp_path / "source")
    names = noisy_index.class_names if form is webdataset_cls else None
    options = clipaudit.SourceOptions(names=names)
    summary = clipaudit.embed(source, cache=tmp_path / "cache", encoder=DIGITS, options=options)
    assert summary.n_unreadable == 0
    index = clipaudit.select(summary.cache, device="cpu")
    assert index.class_names == noisy_index.class_names
    np.testing.assert_array_equal(index.labels(), noisy_index.labels())
    np.testing.assert_array_equal(index.is_clean, noisy_index.is_clean)
    reader = ImageReader(index.metadata, source if form is in_memory else None)
    for row in (0, 250, 599):
        assert reader.read(index.table["id"][row].as_py()) == (root / paths[row]).read_bytes()


def test_another_number_of_shards_changes_no_id(noisy_digits: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root, truth = noisy_digits
    split = rows(root, list(truth)[:50])
    found = []
    for shards in (1, 7):
        split.save_to_disk(tmp_path / f"{shards}", num_shards=shards)
        found.append([sample.id for sample in clipaudit.samples.open_source(tmp_path / f"{shards}").samples()])
    assert found[0] == found[1] == [f"data#{row}" for row in range(50)]
