"""Where labelled images come from: a folder of class folders, a manifest, or Parquet files that hold the images.

source = open_source("photos")
for sample in source.samples():     # streamed, in an order that never changes
    data = source.read(sample.id)   # the file's bytes
"""

from __future__ import annotations

from pathlib import Path

from clipaudit.errors import SourceError, UsageError
from clipaudit.samples.base import FaultySample, Sample, Source, SourceOptions
from clipaudit.samples.folder import FolderSource
from clipaudit.samples.labels import Column, read_column, read_names
from clipaudit.samples.manifest import ManifestSource
from clipaudit.samples.parquet import ParquetSource, image_column
from clipaudit.samples.tables import TABLE_SUFFIXES

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
]


def open_source(path: str | Path, options: SourceOptions | None = None) -> Source:
    """Recognise what `path` is and open it; nothing but headers is read.

    A folder is read as one subfolder a class, or, where it holds Parquet files, as one Parquet data set. A Parquet file
    with an image column (bytes, or the Hugging Face struct `{bytes, path}`) is a data set, without one a manifest. CSV,
    TSV and JSONL files are manifests.

    Raises:
        SourceError: nothing is there, or what is there has no labelled images.
        UsageError: a file of a kind that is not known, or an option that does not fit the source.
    """
    path, options = Path(path), options or SourceOptions()
    if path.is_dir():
        parquet_files = sorted(path.glob("*.parquet"))
        return ParquetSource(parquet_files, options) if parquet_files else FolderSource(path, options)
    if not path.exists():
        raise SourceError(f"{path} does not exist. Name a folder of class folders, a manifest or a Parquet file.")
    if path.suffix.lower() == ".parquet" and image_column(path, options) is not None:
        return ParquetSource([path], options)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return ManifestSource(path, options)
    raise UsageError(
        f"{path} is not a kind of source that clipaudit reads. Use a folder with one subfolder a class, a manifest"
        f" ({', '.join(TABLE_SUFFIXES)}) or Parquet files with an image column."
    )
