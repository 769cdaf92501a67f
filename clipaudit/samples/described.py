"""A folder of images with a table that lists them (`metadata.csv`), as `datasets` reads an image folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clipaudit.samples.base import FaultySample, Sample, SourceOptions
from clipaudit.samples.manifest import ManifestSource
from clipaudit.samples.place import PATHS_COLUMN, Kind
from clipaudit.samples.walk import Walk


class DescribedFolder(ManifestSource):
    """The rows of the table; images that it does not list are counted."""

    def __init__(self, table: Path, options: SourceOptions) -> None:
        super().__init__(table, replace(options, path_column=options.path_column or PATHS_COLUMN))
        self._n_unlisted = 0

    def samples(self) -> Iterator[Sample]:
        """All rows in the table's order."""
        n_listed = 0
        for sample in super().samples():
            n_listed += not isinstance(sample, FaultySample) and not sample.id.startswith("/")
            yield sample
        self._n_unlisted = sum(1 for _ in Walk(self.root).every_image()) - n_listed
        # What it does not list is counted at every start.
        self.stamps = {}

    def notes(self) -> list[str]:
        """How many images have no row, and what a manifest says."""
        unlisted = [f"{self._n_unlisted:,} image(s) in {self.root} that {self.location.name} does not list passed over"]
        return [*(unlisted if self._n_unlisted > 0 else []), *super().notes()]


DESCRIBED = Kind(
    name="a described folder",
    words="a folder of images with a metadata.csv, .jsonl or .parquet that lists them",
    found=lambda place: f"a table of its images ({place.described.name})" if place.described else None,
    open=lambda place: DescribedFolder(place.described or place.path, place.options),
    missed=lambda place: None,
    instead=lambda place: f"name the table: {place.described}",
    certain=True,
)
