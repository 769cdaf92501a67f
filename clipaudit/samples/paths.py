"""Paths that a table wrote down elsewhere: what they have in common, and which file each may mean."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from clipaudit.text import excerpt

# A pattern is one where at least this share of the paths show it.
_MOST = 0.9
_FOREIGN = re.compile(r"[A-Za-z]:[\\/]|\\\\|~[\\/]|[A-Za-z][A-Za-z0-9+.-]+://")
# Of a large folder, a file that was meant is not looked for in all of it.
_ENTRIES_LOOKED_AT = 1000
# The usual endings first: they are what was cut off most often.
_ENDINGS = (".jpg", ".png", ".jpeg", ".JPG", ".JPEG", ".PNG", ".webp")


def clean_path(path: str) -> str:
    """A path without blanks at its ends, with `/` between its parts, in Unicode form NFC."""
    return unicodedata.normalize("NFC", path.strip().replace("\\", "/"))


def is_absolute(path: str) -> bool:
    """Whether a path starts at a root, a drive (`C:\\`), a server or a home: on this machine or on another one."""
    return path.startswith("/") or _FOREIGN.match(path) is not None


def other_spelling(root: Path, path: str) -> str | None:
    """The path of an existing file below `root` that differs only in blanks, backslashes or Unicode form; or None."""
    clean = clean_path(path)
    for candidate in (path.strip(), clean, unicodedata.normalize("NFD", clean)):
        if candidate != path and _is_file(root / candidate):
            return candidate
    return None


def path_pattern(paths: Sequence[str], root: Path | None = None) -> str | None:
    """What paths that lead to no file have in common, in words for the user; None where nothing is seen.

    Args:
        paths: As the table spells them.
        root: The folder that relative paths start from; files below it may show what was meant.
    """
    if not paths:
        return None
    words = [words for words in _patterns(paths, root) if words]
    if root is not None and (found := _meant(paths[0], root)):
        words.append(f"{excerpt(paths[0])} may mean {found}, which exists")
    return "; ".join(words) or None


def _patterns(paths: Sequence[str], root: Path | None) -> Iterator[str | None]:
    prefix = _common_folder(paths)
    start = f"{_how_many(paths, len(paths))} start with {excerpt(prefix)}"
    if "://" in prefix:
        yield f"{start}: are they addresses, not files?"
    elif is_absolute(prefix):
        yield f"{start}: was this table made on another machine?"
    elif prefix and root is None:
        yield start
    elif prefix and root and not _leads(root / prefix, Path.is_dir):
        yield f"{start}, a folder that does not exist"
    else:
        yield _share(paths, [is_absolute(path) for path in paths], "are absolute: was this table made elsewhere?")
    yield _share(paths, ["\\" in path for path in paths], "have backslashes, which separate no folders here")
    yield _share(paths, [path != path.strip() for path in paths], "have blanks at their ends")
    yield _share(paths, [path.strip()[:1] in ("'", '"') for path in paths], "start with a quotation mark")
    yield _share(paths, [not Path(path.strip()).suffix for path in paths], "have no ending such as .jpg")


def _share(paths: Sequence[str], flags: Sequence[bool], words: str) -> str | None:
    return f"{_how_many(paths, sum(flags))} {words}" if sum(flags) >= _MOST * len(paths) else None


def _how_many(paths: Sequence[str], count: int) -> str:
    if len(paths) == 1:
        return "1 path(s)"
    return f"all {count:,} paths" if count == len(paths) else f"{count:,} of {len(paths):,} paths"


def _common_folder(paths: Sequence[str]) -> str:
    """The folders that all paths start with, as the first one spells them; empty where there are none."""
    first, last = min(paths), max(paths)
    equal = next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    folder = first[: max(first.rfind("/", 0, equal), first.rfind("\\", 0, equal)) + 1]
    return "" if folder in ("./", "/") else folder


def _meant(path: str, root: Path) -> Path | None:
    """The existing file that a path may mean: without folders in front, with an ending, in a folder below `root`."""
    parts = [part for part in clean_path(path.strip("\"' \t")).split("/") if part not in ("", ".", "..")]
    for folder in (root, *_folders(root)):
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            for candidate in (tail, unicodedata.normalize("NFD", tail), *(tail + ending for ending in _ENDINGS)):
                if (folder != root or candidate != path) and _is_file(folder / candidate):
                    return folder / candidate
    return None


def _folders(root: Path) -> list[Path]:
    """The first folders directly below `root`."""
    try:
        return sorted(entry for entry in islice(root.iterdir(), _ENTRIES_LOOKED_AT) if entry.is_dir())
    except OSError:
        return []


def _is_file(path: Path) -> bool:
    return _leads(path, Path.is_file)


def _leads(path: Path, to: Callable[[Path], bool]) -> bool:
    try:
        return to(path)
    except (OSError, ValueError):
        return False  # Too long, or with a NUL: certainly no file.
