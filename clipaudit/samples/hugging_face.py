"""A `datasets.Dataset` in memory: what Python hands over instead of a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from clipaudit.errors import ImageError, SourceError, UsageError
from clipaudit.samples.base import IN_PYTHON, Sample, SourceOptions, read_file, stat_sample
from clipaudit.samples.image_column import IMAGE_COLUMNS, bytes_columns
from clipaudit.samples.labels import LabelReader, label_notes
from clipaudit.samples.saved_dataset import NO_SPLIT
from clipaudit.samples.tables import LABEL_COLUMNS, pick_column

_ROWS_AT_ONCE = 256


class Dataset(Protocol):
    """As much of `datasets.Dataset` as is used here."""

    features: Any
    split: Any

    def __len__(self) -> int: ...

    def with_format(self, form: str, /) -> Any:
        """The same rows in another form, without transforms."""


# Messages name what a caller has, not this stand-in for it.
Dataset.__module__ = "datasets"


def is_dataset(value: object) -> TypeGuard[Dataset]:
    """Whether a value is a data set of the library `datasets`; it need not be imported for that."""
    return any(kind.__module__.startswith("datasets.") for kind in type(value).__mro__)


class DatasetSource:
    """One image a row; its id is `split#row`, as it is once the data set is saved to disk.

    Raises:
        UsageError: it is a dictionary of splits, or a stream.
        SourceError: it has no column of images or labels.
    """

    access = IN_PYTHON

    def __init__(self, dataset: Dataset, options: SourceOptions) -> None:
        if isinstance(dataset, dict):
            raise UsageError(f"a DatasetDict has several splits ({', '.join(dataset)}). Give one: dataset['train']")
        if not hasattr(dataset, "with_format") or not hasattr(dataset, "__len__"):
            raise UsageError("a streamed data set has no rows to come back to. Load it without streaming=True.")
        self._rows = dataset.with_format("arrow")
        self._split = str(dataset.split or NO_SPLIT)
        # Equal data sets have equal fingerprints, so that what was embedded before is found again.
        self._name = Path(f"{self._split}-{getattr(dataset, '_fingerprint', 'dataset')}")
        self.location = self.root = Path.cwd() / self._name
        schema = dataset.features.arrow_schema
        self.image_column = _image_column(schema, options.image_column)
        self._label_column = pick_column(self._name, schema.names, options.label_column, LABEL_COLUMNS, "label")
        names = getattr(dataset.features[self._label_column], "names", None)
        self.class_names: Sequence[str] | None = options.names or names
        self._labels = LabelReader(self.class_names)

    def samples(self) -> Iterator[Sample]:
        """All rows. A sample's image is known by a hash of its bytes, as rows have no time of change."""
        self._labels, number = LabelReader(self.class_names), 0
        for table in self._rows.select_columns([self.image_column, self._label_column]).iter(_ROWS_AT_ONCE):
            images, labels = (table[name].to_pylist() for name in (self.image_column, self._label_column))
            for image, value in zip(images, labels, strict=True):
                label = self._labels.read(value, f"row {number} of the data set")
                yield _sample(f"{self._split}#{number}", label, image)
                number += 1
        if not number:
            raise SourceError("the data set has no rows.")

    def read(self, sample_id: str) -> bytes:
        """The bytes of the image in one row."""
        number = sample_id.rpartition("#")[2]
        if not number.isdecimal() or int(number) >= len(self._rows):
            raise ImageError(f"cannot be opened: the data set has no row {sample_id}")
        data, path = _bytes_and_path(self._rows[int(number)][self.image_column][0].as_py())
        if data:
            return data
        if not path:
            raise ImageError("the row holds no image bytes")
        return read_file(Path(path))

    def decided(self) -> dict[str, str]:
        """Which columns are read."""
        return {
            "source": f"{len(self._rows):,} rows of a data set, split {self._split!r}",
            "images": f"column {self.image_column!r}",
            "labels": f"column {self._label_column!r}",
        }

    def notes(self) -> list[str]:
        """Labels that may not be meant."""
        return label_notes([self._labels])


def _image_column(schema: Any, wanted: str | None) -> str:
    fitting = bytes_columns(schema)
    usual = [name for name in fitting if name.strip().lower() in IMAGE_COLUMNS] or fitting
    if wanted in fitting:
        return str(wanted)
    if wanted is None and len(usual) == 1:
        return usual[0]
    raise SourceError(
        f"the data set has {f'no column {wanted!r}' if wanted else 'not one column'} of images. Columns with bytes:"
        f" {', '.join(fitting) or 'none'}. Say which one with image_column."
    )


def _bytes_and_path(value: object) -> tuple[bytes | None, str | None]:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    return data if isinstance(data, bytes) else None, path if isinstance(path, str) else None


def _sample(sample_id: str, label: str, image: object) -> Sample:
    data, path = _bytes_and_path(image)
    if data or not path:
        digest = blake2b(data or b"", digest_size=7).digest()
        return Sample(sample_id, label, len(data or b""), int.from_bytes(digest, "little"))
    file = stat_sample(Path(path).parent, Path(path).name, label)
    return Sample(sample_id, label, file.size, file.modified)
