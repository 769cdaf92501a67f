"""What a path is as a source: every guess is checked, and what cannot be right is refused."""

from __future__ import annotations

from pathlib import Path

from clipaudit.errors import SourceError, UsageError
from clipaudit.files import irregular
from clipaudit.remote import listings_kept, to_path
from clipaudit.samples.base import Source, SourceOptions, shown, utf8
from clipaudit.samples.hugging_face import Dataset, DatasetSource, is_dataset
from clipaudit.samples.kinds import KINDS, any_kind
from clipaudit.samples.outputs import own_folder
from clipaudit.samples.place import Place


def open_source(path: str | Path | Dataset, options: SourceOptions | None = None) -> Source:
    """Recognise what `path` is and open it; of tables nothing but headers and first values are read.

    A folder is read as one subfolder a class, or, where it holds Parquet files with images, as one Parquet data set. A
    Parquet file with an image column (bytes, or the Hugging Face struct `{bytes, path}`) is a data set, without one a
    manifest. CSV, TSV and JSONL files are manifests. Of JSON and XML files, those of labelling tools are read.
    `data/train-*.parquet` names the Parquet files that match. What the library `datasets` has saved is read, and its
    `Dataset` itself. docs/sources.md tells how each is decided, and what is refused.

    Raises:
        SourceError: nothing is there, what is there has no labelled images, or it cannot be what it looks like.
        UsageError: a file of a kind that is not known, or an option that does not fit the source.
    """
    options = options or SourceOptions()
    if is_dataset(path):
        return DatasetSource(path, options)
    with listings_kept():
        return _recognised(path, options)


def _recognised(path: str | Path | Dataset, options: SourceOptions) -> Source:
    place = _look(to_path(str(path)), options)
    found = [(kind, words) for kind in KINDS if (words := kind.found(place))]
    found = [pair for pair in found if pair[0].certain] or found
    if len(found) > 1:
        # "Them" in what to do instead is what was named last.
        instead = ", or ".join(kind.instead(place) for kind, _ in reversed(found))
        raise SourceError(f"{path} has {' and '.join(words for _, words in found)}. Say which are meant: {instead}.")
    if found:
        kind, words = found[0]
        if place.options.crops and not kind.boxes:
            with_boxes = any_kind(other.name for other in KINDS if other.boxes)
            raise UsageError(f"{path} holds {words}, which have no boxes: --crops is for {with_boxes}.")
        return kind.open(place)
    # The most particular kind first: who has something like it rarely means another.
    for kind in reversed(KINDS):
        if words := kind.missed(place):
            raise SourceError(words)
    raise UsageError(
        f"{path} is not a kind of source that clipaudit reads. Use {any_kind(kind.words for kind in KINDS)}."
    )


def _look(path: Path, options: SourceOptions) -> Place:
    """What is at a path; SourceError where nothing is that could be a source, or what clipaudit itself has made."""
    names = any_kind(kind.name for kind in KINDS)
    if not utf8(str(path.absolute())):
        raise SourceError(f"{shown(str(path))}: the path is not valid UTF-8. Rename the folder or file.")
    try:
        form = irregular(path)
    except FileNotFoundError:
        if any(sign in str(path) for sign in "*?[{"):
            return Place(path, options, "pattern")
        raise SourceError(f"{path} does not exist. Name {names}.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} cannot be opened: {reason}. Check the path and its permissions.") from None
    if form not in (None, "a folder"):
        raise SourceError(f"{path} is {form}, not a file or folder.")
    if form and (own := own_folder(path)):
        raise SourceError(f"{path} is {own}, not a source. Name the images: {names}.")
    return Place(path, options, "folder" if form else "file")
