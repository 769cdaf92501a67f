"""Where labelled images come from: a folder of class folders, a manifest, or Parquet files that hold the images.

source = open_source("photos")
for sample in source.samples():     # streamed, in an order that never changes
    data = source.read(sample.id)   # the file's bytes
"""

from __future__ import annotations

from clipaudit.samples.base import FaultySample, Sample, Source, SourceOptions, read_sample
from clipaudit.samples.folder import FolderSource
from clipaudit.samples.labels import Column, read_column
from clipaudit.samples.manifest import ManifestSource
from clipaudit.samples.names import read_names
from clipaudit.samples.opening import open_source
from clipaudit.samples.parquet import ParquetSource

__all__ = [
    "Column",
    "FaultySample",
    "FolderSource",
    "ManifestSource",
    "ParquetSource",
    "Sample",
    "Source",
    "SourceOptions",
    "open_source",
    "read_column",
    "read_names",
    "read_sample",
]
