"""The kinds of source. Another one is its own file with a `Kind` in it, and its row here."""

from __future__ import annotations

from collections.abc import Iterable

from clipaudit.samples.archive_folders import ARCHIVE
from clipaudit.samples.coco import COCO
from clipaudit.samples.cvat import CVAT
from clipaudit.samples.described import DESCRIBED
from clipaudit.samples.fiftyone import FIFTYONE
from clipaudit.samples.folder import CLASS_FOLDERS
from clipaudit.samples.label_studio import LABEL_STUDIO
from clipaudit.samples.manifest import MANIFEST
from clipaudit.samples.parquet import PARQUET
from clipaudit.samples.place import Kind
from clipaudit.samples.saved_dataset import SAVED_DATASET
from clipaudit.samples.webdataset import WEBDATASET

# As messages list them: from what most people have to the most particular.
KINDS: tuple[Kind, ...] = (
    *(CLASS_FOLDERS, ARCHIVE, DESCRIBED, MANIFEST, PARQUET, SAVED_DATASET, WEBDATASET),
    *(LABEL_STUDIO, CVAT, COCO, FIFTYONE),
)


def any_kind(words: Iterable[str]) -> str:
    """One of several, in words: "a folder of class folders, a manifest or a Parquet file"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
