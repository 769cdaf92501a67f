"""A folder with one subfolder a class: `photos/lynx/0001.jpg`, nested as deep as it likes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.samples.base import Sample, SourceOptions, label_name, read_file, stat_sample

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)


class FolderSource:
    """Every image below ROOT/CLASS/ has the label CLASS. Hidden files are passed over; other endings are counted."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.location = self.root = path.resolve()
        self.class_names: Sequence[str] | None = options.names
        self._names = options.names
        self._ignored: Counter[str] = Counter()
        if not any(child.is_dir() and not child.name.startswith(".") for child in self.root.iterdir()):
            raise SourceError(
                f"{path} has no class folders. Put the images of each class into a subfolder named after the class"
                " (photos/cat/1.jpg), or name a manifest with a path and a label column instead."
            )

    def samples(self) -> Iterator[Sample]:
        """All images, folders and files in order of their names."""
        self._ignored.clear()
        known = frozenset(self._names or ())
        found = False
        for entry in _sorted_entries(self.root):
            if not entry.is_dir():
                self._ignored["directly in the folder, without a class"] += 1
                continue
            label = label_name(entry.name, self._names, known, f"{self.location}, folder {entry.name!r}")
            for path in self._walk(Path(entry.path), (os.path.realpath(entry.path),)):
                found = True
                yield stat_sample(self.root, path, label)
        if not found:
            endings = " ".join(sorted(IMAGE_SUFFIXES))
            raise SourceError(
                f"{self.location} has class folders but no images in them (endings looked for: {endings})."
            )

    def _walk(self, folder: Path, ancestors: tuple[str, ...]) -> Iterator[str]:
        for entry in _sorted_entries(folder):
            if entry.is_dir():
                target = os.path.realpath(entry.path)
                # A link back to a folder that we are inside of would never end.
                if target not in ancestors:
                    yield from self._walk(Path(entry.path), (*ancestors, target))
            elif (suffix := Path(entry.name).suffix.lower()) in IMAGE_SUFFIXES:
                yield Path(entry.path).relative_to(self.root).as_posix()
            else:
                self._ignored[f"with the ending {suffix!r}" if suffix else "without an ending"] += 1

    def read(self, sample_id: str) -> bytes:
        """The bytes of the image file."""
        return read_file(self.root / sample_id)

    def notes(self) -> list[str]:
        """How many files were passed over, and why."""
        return [f"{count:,} file(s) {why} passed over" for why, count in sorted(self._ignored.items())]


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}. Check its permissions.") from None
