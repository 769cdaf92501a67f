"""The layouts that the paper's data sets come in, as manifests (or, for CIFAR, as Parquet with the images)."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipaudit.errors import SourceError, UsageError
from clipaudit.files import check_output, require_file, write_atomically
from clipaudit.options.arguments import typed
from clipaudit.prompts.sets import load_prompts, shipped_prompt_sets
from clipaudit.remote import to_path
from clipaudit.samples.base import relative_id

ROWS_AT_ONCE = 10_000
N_MINI_IMAGENET = 100
# Of a class index; Python refuses to read thousands of them.
MAX_DIGITS = 9
# All columns but the image are text; said here, for a column may be empty as far as the first batch goes.
_COLUMN_TYPES = {"image": pa.struct([("bytes", pa.binary()), ("path", pa.string())])}
Row = dict[str, Any]


@typed
def import_dataset(
    name: str, path: str | Path, out: str | Path, *, split: str | None = None, classes: int | None = None
) -> dict[str, int]:
    """Write one row per image of a data set as it was downloaded: its path or bytes, its label, its split.

    Args:
        name: One of IMPORTERS.
        path: The data set's folder.
        out: Parquet file to write; a source for `embed`.
        split: Only this split ("train", "test", "val", ...; of Red Mini-ImageNet "red_noise_nl_0.2", ...).
        classes: Number of classes to keep, from the first one (WebVision-50: 50).

    Returns:
        Number of rows of each split.

    Raises:
        UsageError: an unknown name or ending, or a split that the data set does not have.
        SourceError: files are missing or malformed; the message names file and line.
    """
    path, out = to_path(path), to_path(out)
    if name not in IMPORTERS:
        raise UsageError(f"unknown data set {name!r}. Choose one of: {', '.join(IMPORTERS)}.")
    if out.suffix.lower() != ".parquet":
        raise UsageError(f"{out}: write to a .parquet file.")
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
    if not is_folder:
        raise SourceError(f"{path} is no folder. Name the one that the data set was unpacked into.")
    check_output(out)
    counts: dict[str, int] = {}
    folder = out.resolve().parent

    def wanted() -> Iterator[Row]:
        for row in IMPORTERS[name](path):
            if (split is None or row["split"] == split) and (classes is None or row.pop("class", 0) < classes):
                row.pop("class", None)
                counts[row["split"]] = counts.get(row["split"], 0) + 1
                if "path" in row:
                    row["path"] = _place(row["path"], folder)
                yield row

    def write(file: BinaryIO) -> None:
        _write_rows(wanted(), file)
        if not counts:
            raise UsageError(f"{path} has no images of split {split!r}." if split else f"{path} has no images.")

    write_atomically(out, write)
    return counts


def _place(path: str, folder: Path) -> str:
    """The path of an image as a manifest in `folder` holds it; SourceError where no table can."""
    try:
        place = relative_id(folder, str(to_path(path).resolve()))
        place.encode()
    except (OSError, RuntimeError, ValueError):
        raise SourceError(f"{path!a} is no path that a table can hold. Rename the file.") from None
    return place


def _write_rows(rows: Iterable[Row], file: BinaryIO) -> None:
    """Stream rows into a Parquet file, so that memory stays bounded; an empty stream writes nothing."""
    writer: pq.ParquetWriter | None = None
    batch: list[Row] = []

    def flush() -> None:
        nonlocal writer
        if batch:
            schema = pa.schema([(name, _COLUMN_TYPES.get(name, pa.string())) for name in batch[0]])
            writer = writer or pq.ParquetWriter(file, schema, compression="zstd")
            writer.write_table(pa.Table.from_pylist(batch, schema))
            batch.clear()

    try:
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS_AT_ONCE:
                flush()
        flush()
    finally:
        if writer is not None:
            writer.close()


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled arrays, lists and texts; refuses everything else that a pickle could make or run."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype", "encode"})

    def find_class(self, module: str, name: str) -> Any:
        if name in self._ALLOWED and module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it would run {module}.{name}")


def _unpickle(path: Path) -> dict[bytes, Any]:
    try:
        require_file(path, SourceError)
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}.") from None
    except SourceError:
        raise
    except Exception as error:
        # A damaged pickle raises whatever its damage looks like.
        raise SourceError(f"{path} is no CIFAR batch: {error}.") from None
    if not isinstance(content, dict):
        raise SourceError(f"{path} is no CIFAR batch: it holds a {type(content).__name__}.")
    return content


def _cifar(
    path: Path, batches: Sequence[tuple[str, str]], meta: str, names_key: bytes, labels_key: bytes
) -> Iterator[Row]:
    names = [name.decode(errors="replace") for name in _list(_unpickle(path / meta), names_key, bytes, path / meta)]
    for file, split in batches:
        content = _unpickle(path / file)
        labels = _list(content, labels_key, int, path / file)
        pixels = content.get(b"data")
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
            raise SourceError(
                f"{path / file} is no CIFAR batch: its field 'data' is no uint8 array of shape ({len(labels)}, 3072)."
            )
        for number, (label, image) in enumerate(zip(labels, pixels.reshape(-1, 3, 32, 32), strict=True)):
            if not 0 <= label < len(names):
                raise SourceError(f"{path / file}, image {number}: class index {label} is out of range.")
            buffer = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
            place = {"bytes": buffer.getvalue(), "path": f"{split}/{file}/{number}.png"}
            yield {"image": place, "label": names[label], "split": split, "class": label}


def _list(content: dict[bytes, Any], key: bytes, kind: type, path: Path) -> list[Any]:
    values = content.get(key)
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise SourceError(f"{path} is no CIFAR batch: its field {key.decode()!r} is no list of {kind.__name__}.")
    return values


def _cifar10(path: Path) -> Iterator[Row]:
    batches = [(f"data_batch_{number}", "train") for number in range(1, 6)] + [("test_batch", "test")]
    return _cifar(path, batches, "batches.meta", b"label_names", b"labels")


def _cifar100(path: Path) -> Iterator[Row]:
    return _cifar(path, [("train", "train"), ("test", "test")], "meta", b"fine_label_names", b"fine_labels")


def _animal10n(path: Path) -> Iterator[Row]:
    """training/ and testing/ with files named `label_id.jpg`."""
    names = _shipped_names("animal10n")
    for folder, split in (("training", "train"), ("testing", "test")):
        for name in _listing(path / folder):
            number = _class_index(name.split("_")[0], len(names), f"{path / folder / name}")
            yield {"path": str(path / folder / name), "label": names[number], "split": split, "class": number}


def _webvision(path: Path) -> Iterator[Row]:
    """info/*_filelist*.txt with `path class` a line; the names are WordNet ids from info/synsets.txt."""
    names = [line.split()[0] for _, line in _lines(path / "info" / "synsets.txt")]
    lists = [("train_filelist_google.txt", "train", path), ("train_filelist_flickr.txt", "train", path)]
    for file, split, root in [*lists, ("val_filelist.txt", "val", path / "val_images_256")]:
        # The first 50 classes of WebVision 1.0 are used with Google's images alone; Flickr's list may be absent.
        if file != "train_filelist_flickr.txt" or (path / "info" / file).exists():
            for image, number in _pairs(path / "info" / file, len(names)):
                yield {"path": str(root / image), "label": names[number], "split": split, "class": number}


def _clothing1m(path: Path) -> Iterator[Row]:
    """Key lists of the splits, and two tables of labels: `train` has the noisy one, the others the clean one.

    Some images are in `train` and in `clean-train`; embed one split at a time.
    """
    names = _shipped_names("clothing1m")
    noisy, clean = (dict(_pairs(path / f"{kind}_label_kv.txt", len(names))) for kind in ("noisy", "clean"))
    for file, split in (
        ("noisy_train", "train"),
        ("clean_train", "clean-train"),
        ("clean_val", "val"),
        ("clean_test", "test"),
    ):
        for where, line in _lines(path / f"{file}_key_list.txt"):
            labels = noisy if split == "train" else clean
            if line not in labels:
                raise SourceError(f"{where}: {line!r} has no label.")
            place = path / line if (path / line).exists() else path / line.removeprefix("images/")
            truth = names[clean[line]] if line in clean else None
            number = labels[line]
            yield {"path": str(place), "label": names[number], "label_true": truth, "split": split, "class": number}


def _red_mini_imagenet(path: Path) -> Iterator[Row]:
    """split/red_noise_nl_LEVEL and split/clean_validation, each with `image class` a line; the names are WordNet ids.

    A level is a split, and the levels share images; embed one at a time. Training images lie in all_images/, those of
    `val` in validation/CLASS/ or in validation/ itself.
    """
    root = path if (path / "split").is_dir() else path / "mini-imagenet"
    names = _mini_imagenet_synsets(root / "split" / "red_noise_nl_0.0")
    for file in sorted((root / "split").glob("red_noise_nl_*")):
        for image, number in _pairs(file, len(names)):
            place = root / "all_images" / image
            yield {"path": str(place), "label": names[number], "split": file.name, "class": number}
    for image, number in _pairs(root / "split" / "clean_validation", len(names)):
        place = root / "validation" / str(number) / image
        place = place if place.exists() else root / "validation" / image
        yield {"path": str(place), "label": names[number], "split": "val", "class": number}


def _mini_imagenet_synsets(path: Path) -> list[str]:
    """The WordNet id of each class: what the names of ImageNet's own images (n0153282900000005.jpg) begin with."""
    found: dict[int, str] = {}
    for image, number in _pairs(path, N_MINI_IMAGENET):
        if synset := re.match(r"n\d{8}", image):
            found.setdefault(number, synset[0])
    if missing := [number for number in range(N_MINI_IMAGENET) if number not in found]:
        raise SourceError(f"{path} has no ImageNet image of class {missing[0]}, to tell by its name what the class is.")
    return [found[number] for number in range(N_MINI_IMAGENET)]


IMPORTERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "animal10n": _animal10n,
    "webvision": _webvision,
    "clothing1m": _clothing1m,
    "red-mini-imagenet": _red_mini_imagenet,
}


def _shipped_names(name: str) -> list[str]:
    """Class names in the data set's order, from its prompt set."""
    return [entry.name for entry in load_prompts(shipped_prompt_sets()[name]).classes]


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}. Is this the data set's folder?") from None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each with words for where it stands."""
    try:
        require_file(path, SourceError)
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}, line {number}", line.strip()
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}. Is this the data set's folder?") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not UTF-8 text.") from None


def _pairs(path: Path, n_classes: int) -> Iterator[tuple[str, int]]:
    """`image class` lines."""
    for where, line in _lines(path):
        image, _, number = line.rpartition(" ")
        if not image:
            raise SourceError(f"{where}: not of the form 'image class': {line!r}.")
        yield image.strip(), _class_index(number, n_classes, where)


def _class_index(text: str, n_classes: int, where: str) -> int:
    if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) >= n_classes:
        raise SourceError(f"{where}: {text!r} is no class index from 0 to {n_classes - 1}.")
    return int(text)
