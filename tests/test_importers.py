"""Each data set's layout, on a tiny tree of the same shape; bad trees name file and line."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import any_image

from clipaudit.calls.import_ import IMPORTERS, import_dataset
from clipaudit.errors import SourceError, UsageError
from clipaudit.images.decoding import decode
from clipaudit.samples import FaultySample, open_source

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def write(folder: Path, files: dict[str, str | None]) -> Path:
    """Text files by content, images where it is None."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            any_image().save(path)
        else:
            path.write_text(content)
    return folder


def imported(path: Path) -> list[tuple[str, str]]:
    """(file name, label) of all rows, every image readable."""
    source = open_source(path)
    samples = list(source.samples())
    assert not any(isinstance(sample, FaultySample) for sample in samples)
    assert all(decode(source.read(sample.id)).size for sample in samples)
    return [(Path(sample.id).name, sample.label) for sample in samples]


def cifar_batch(labels: list[int], key: bytes) -> bytes:
    pixels = np.arange(len(labels) * 3072, dtype=np.uint8).reshape(-1, 3072)
    return pickle.dumps({b"data": pixels, key: labels}, protocol=2)


def write_cifar10(folder: Path) -> Path:
    folder.mkdir()
    names = [b"airplane", b"automobile", b"bird"]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(cifar_batch([number % 3, 2], b"labels"))
    (folder / "test_batch").write_bytes(cifar_batch([0], b"labels"))
    return folder


def test_cifar10(tmp_path: Path) -> None:
    counts = import_dataset("cifar10", write_cifar10(tmp_path / "c"), tmp_path / "m.parquet")
    assert counts == {"train": 10, "test": 1}
    rows = imported(tmp_path / "m.parquet")
    assert [label for _, label in rows[:2]] == ["automobile", "bird"]
    first = np.asarray(decode(open_source(tmp_path / "m.parquet").read("m.parquet#0")))
    assert (first.transpose(2, 0, 1).ravel() == np.arange(3072, dtype=np.uint8)).all()


def test_cifar100(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"apple", b"aquarium_fish"]}, protocol=2))
    for name in ("train", "test"):
        (folder / name).write_bytes(cifar_batch([1, 0], b"fine_labels"))
    assert import_dataset("cifar100", folder, tmp_path / "m.parquet", split="test") == {"test": 2}
    assert [label for _, label in imported(tmp_path / "m.parquet")] == ["aquarium_fish", "apple"]


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    folder, marker = write_cifar10(tmp_path / "c"), tmp_path / "it-ran"
    (folder / "data_batch_2").write_bytes(pickle.dumps({b"data": _Evil(marker)}))
    with pytest.raises(SourceError, match=r"data_batch_2 is no CIFAR batch: it would run \w+\.system"):
        import_dataset("cifar10", folder, tmp_path / "m.parquet")
    assert not marker.exists()
    assert not (tmp_path / "m.parquet").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps([1]),
        pickle.dumps({b"data": 1}),
        cifar_batch([9], b"labels"),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": 1}),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [b"x"]}),
        pickle.dumps({b"data": [[1], [1, 2]], b"labels": [0, 1]}),
    ],
)
def test_bad_cifar_batches_are_named(tmp_path: Path, content: bytes) -> None:
    folder = write_cifar10(tmp_path / "c")
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(SourceError, match="test_batch"):
        import_dataset("cifar10", folder, tmp_path / "m.parquet")


def test_animal10n(tmp_path: Path, run_cli: Cli) -> None:
    write(tmp_path / "a", {"training/0_1.jpg": None, "training/9_2.jpg": None, "testing/3_7.jpg": None})
    result = run_cli("import", "animal10n", "a", "--out", "m.parquet")
    assert result.returncode == 0, result.stderr
    assert "train: 2 images" in result.stdout
    assert imported(tmp_path / "m.parquet") == [("0_1.jpg", "cat"), ("9_2.jpg", "guinea pig"), ("3_7.jpg", "coyote")]
    write(tmp_path / "a", {"training/x_1.jpg": None})
    with pytest.raises(SourceError, match=r"x_1\.jpg: 'x' is no class index from 0 to 9"):
        import_dataset("animal10n", tmp_path / "a", tmp_path / "m.parquet")


def test_webvision(tmp_path: Path) -> None:
    files = {
        "info/synsets.txt": "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn01484850 great white shark\n",
        "info/train_filelist_google.txt": "google/q1/a.jpg 0\ngoogle/q2/b.jpg 2\n",
        "info/val_filelist.txt": "val1.jpg 1\n",
    }
    images = dict.fromkeys(["google/q1/a.jpg", "google/q2/b.jpg", "val_images_256/val1.jpg"])
    folder = write(tmp_path / "w", {**files, **images})
    assert import_dataset("webvision", folder, tmp_path / "m.parquet", classes=2) == {"train": 1, "val": 1}
    assert imported(tmp_path / "m.parquet") == [("a.jpg", "n01440764"), ("val1.jpg", "n01443537")]
    write(folder, {"info/train_filelist_flickr.txt": "flickr/c.jpg 1\n", "flickr/c.jpg": None})
    assert import_dataset("webvision", folder, tmp_path / "m.parquet", split="train") == {"train": 3}
    (folder / "info" / "val_filelist.txt").write_text("val1.jpg 1\nval2.jpg three\n")
    with pytest.raises(SourceError, match=r"val_filelist\.txt, line 2: 'three' is no class index"):
        import_dataset("webvision", folder, tmp_path / "m.parquet")


def test_clothing1m(tmp_path: Path) -> None:
    images = [f"images/0/0{number}/{number}.jpg" for number in range(4)]
    files = {
        "noisy_label_kv.txt": "".join(f"{name} {number}\n" for number, name in enumerate(images[:3])),
        "clean_label_kv.txt": f"{images[1]} 13\n{images[3]} 0\n",
        "noisy_train_key_list.txt": f"{images[0]}\n{images[1]}\n",
        "clean_train_key_list.txt": f"{images[1]}\n",
        "clean_val_key_list.txt": "",
        "clean_test_key_list.txt": f"{images[3]}\n",
    }
    folder = write(tmp_path / "c", {**files, **dict.fromkeys(images)})
    assert import_dataset("clothing1m", folder, tmp_path / "m.parquet") == {"train": 2, "clean-train": 1, "test": 1}
    table = pq.read_table(tmp_path / "m.parquet")
    assert table["label"].to_pylist() == ["T-Shirt", "Shirt", "Underwear", "T-Shirt"]
    assert table["label_true"].to_pylist() == [None, "Underwear", "Underwear", "T-Shirt"]
    assert import_dataset("clothing1m", folder, tmp_path / "m.parquet", split="train") == {"train": 2}
    assert imported(tmp_path / "m.parquet") == [("0.jpg", "T-Shirt"), ("1.jpg", "Shirt")]
    (folder / "noisy_train_key_list.txt").write_text(f"{images[3]}\n")
    with pytest.raises(SourceError, match=r"noisy_train_key_list\.txt, line 1: .* has no label"):
        import_dataset("clothing1m", folder, tmp_path / "m.parquet")


def test_a_truth_that_begins_after_the_first_batch(tmp_path: Path) -> None:
    n = 30_000  # More than a table is written with at once.
    files = {
        "noisy_label_kv.txt": "".join(f"{number}.jpg {number % 2}\n" for number in range(n)),
        "clean_label_kv.txt": "c.jpg 2\n",
        "noisy_train_key_list.txt": "".join(f"{number}.jpg\n" for number in range(n)),
        **dict.fromkeys(["clean_train_key_list.txt", "clean_val_key_list.txt"], ""),
        "clean_test_key_list.txt": "c.jpg\n",
    }
    import_dataset("clothing1m", write(tmp_path / "c", files), tmp_path / "m.parquet")
    assert pq.read_table(tmp_path / "m.parquet")["label_true"].to_pylist() == [*[None] * n, "Knitwear"]


def test_red_mini_imagenet(tmp_path: Path) -> None:
    clean = "".join(f"n{number + 1:08}00000001.jpg {number}\n" for number in range(100))
    split = {
        "split/red_noise_nl_0.0": clean,
        "split/red_noise_nl_0.2": "n0000000100000001.jpg 0\n5922767e5677aef4.jpg 2\n",
        "split/blue_noise_nl_0.2": "n0000000100000001.jpg 7\n",
        "split/clean_validation": "ILSVRC2012_val_00000003.jpg 1\nILSVRC2012_val_00000004.jpg 99\n",
    }
    images = ["all_images/n0000000100000001.jpg", "all_images/5922767e5677aef4.jpg"]
    images += ["validation/1/ILSVRC2012_val_00000003.jpg", "validation/ILSVRC2012_val_00000004.jpg"]
    folder = write(tmp_path / "r" / "mini-imagenet", {**split, **dict.fromkeys(images)})
    counts = import_dataset("red-mini-imagenet", tmp_path / "r", tmp_path / "all.parquet")
    assert counts == {"red_noise_nl_0.0": 100, "red_noise_nl_0.2": 2, "val": 2}
    import_dataset("red-mini-imagenet", folder, tmp_path / "m.parquet", split="red_noise_nl_0.2")
    assert imported(tmp_path / "m.parquet") == [
        ("n0000000100000001.jpg", "n00000001"),
        ("5922767e5677aef4.jpg", "n00000003"),
    ]
    import_dataset("red-mini-imagenet", folder, tmp_path / "v.parquet", split="val")
    assert [label for _, label in imported(tmp_path / "v.parquet")] == ["n00000002", "n00000100"]
    (folder / "split" / "clean_validation").write_text("a.jpg 1\nb.jpg 100\n")
    with pytest.raises(SourceError, match=r"clean_validation, line 2: '100' is no class index from 0 to 99"):
        import_dataset("red-mini-imagenet", folder, tmp_path / "m.parquet")
    (folder / "split" / "red_noise_nl_0.0").write_text(clean.replace("n00000008", "web"))
    with pytest.raises(SourceError, match=r"red_noise_nl_0\.0 has no ImageNet image of class 7"):
        import_dataset("red-mini-imagenet", folder, tmp_path / "m.parquet")


def test_an_import_that_fails_keeps_the_file_from_before(tmp_path: Path) -> None:
    folder, out = write_cifar10(tmp_path / "c"), tmp_path / "m.parquet"
    import_dataset("cifar10", folder, out)
    before = out.read_bytes()
    with pytest.raises(UsageError, match="no images of split 'val'"):
        import_dataset("cifar10", folder, out, split="val")
    assert out.read_bytes() == before


def test_data_sets_that_are_not_there_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown data set 'mnist'"):
        import_dataset("mnist", tmp_path, tmp_path / "m.parquet")
    with pytest.raises(SourceError, match="is no folder"):
        import_dataset("cifar10", tmp_path / "nowhere", tmp_path / "m.parquet")
    for name in IMPORTERS:
        with pytest.raises(SourceError, match="cannot be"):
            import_dataset(name, tmp_path, tmp_path / "m.parquet")
    with pytest.raises(UsageError, match=r"write to a \.parquet"):
        import_dataset("cifar10", tmp_path, tmp_path / "m.csv")
    with pytest.raises(UsageError, match="no images of split 'val'"):
        import_dataset("cifar10", write_cifar10(tmp_path / "c"), tmp_path / "m.parquet", split="val")
    assert not list(tmp_path.glob("m.*"))


def test_files_that_are_none_and_names_that_are_no_text_are_explained(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / "c")
    (folder / "data_batch_3").unlink()
    os.mkfifo(folder / "data_batch_3")
    with pytest.raises(SourceError, match="data_batch_3 is a named pipe, not a file"):
        import_dataset("cifar10", folder, tmp_path / "m.parquet")
    write(tmp_path / "a", {"training/0_\udcff.jpg": None, "testing/1_1.jpg": None})
    with pytest.raises(SourceError, match="no path that a table can hold"):
        import_dataset("animal10n", tmp_path / "a", tmp_path / "m.parquet")
    number = "9" * 5000
    write(tmp_path / "w", {"info/synsets.txt": "n1 a\n", "info/train_filelist_google.txt": f"a.jpg {number}\n"})
    with pytest.raises(SourceError, match="is no class index"):
        import_dataset("webvision", tmp_path / "w", tmp_path / "m.parquet")
