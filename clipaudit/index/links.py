"""A folder of links to the clean images, a subfolder a class, under names that are safe, short and distinct."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.files import NAME_BYTES, new_folder
from clipaudit.index.clean_index import CleanIndex
from clipaudit.remote import is_remote, to_path
from clipaudit.samples.base import FILES
from clipaudit.samples.reader import access_of

# Neither a folder of its own nor, on Windows, a name: separators, control characters and what stands for patterns.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
_LONGEST_ENDING = 20


def link_images(index: CleanIndex, folder: Path) -> list[str]:
    """Make the folder: a link for each clean image that is there.

    Returns:
        A sentence about the images that are gone, if any are.

    Raises:
        UsageError: the images are rows of a Parquet file.
        ClipAuditError: the folder exists or cannot be made, or no clean image is there.
    """
    if is_remote(folder) or is_remote(to_path(index.metadata.root)):
        raise UsageError(f"{folder}: links are for files of this machine. Export .txt, or --export-format huggingface.")
    if access_of(index.metadata) != FILES:
        raise UsageError(
            f"{folder}: the images are no files of their own, so that they cannot be linked. Export .txt or .npy."
        )
    clean = index.table.filter(index.table["is_clean"])
    columns = (clean[name].to_pylist() for name in ("label", "id", "path"))
    classes: dict[str, dict[str, str]] = {}
    gone: list[str] = []
    for label, sample_id, path in zip(*columns, strict=True):
        if os.path.exists(path):  # noqa: PTH110 (a path with NUL is none, and no error)
            classes.setdefault(label, {})[sample_id] = path
        else:
            gone.append(path)
    if gone and not classes:
        raise ClipAuditError(f"{folder}: none of the {len(gone):,} clean images exists, the first being {gone[0]}.")
    names = file_names({label: label for label in classes})
    with new_folder(folder) as beside:
        for label, images in classes.items():
            _link(images, label, beside / names[label])
    return [f"{len(gone):,} clean images do not exist and have no link, the first being {gone[0]}."] if gone else []


def _link(images: Mapping[str, str], label: str, folder: Path) -> None:
    folder.mkdir()
    for sample_id, name in file_names({key: key.removeprefix(f"{label}/") for key in images}).items():
        try:
            (folder / name).symlink_to(images[sample_id])
        except OSError as error:
            raise ClipAuditError(
                f"{images[sample_id]} cannot be linked as {folder.name}/{name}: {error.strerror or error}."
                " Nothing was exported."
            ) from None


def file_names(wanted: Mapping[str, str]) -> dict[str, str]:
    """A file name for each key: the wanted one where it is safe, short and not taken, else one that ends in a hash.

    Args:
        wanted: Labels or ids, and what each should be called.
    """
    safe = {key: _safe(name) for key, name in wanted.items()}
    names: dict[str, str] = {}
    taken: set[str] = set()
    # Those that keep their own name come first.
    for key in sorted(wanted, key=lambda key: safe[key] != wanted[key]):
        name, salt = safe[key], key
        while name in taken or len(os.fsencode(name)) > NAME_BYTES:
            name, salt = _with_hash(safe[key], salt), f"{salt}'"
        names[key] = name
        taken.add(name)
    return names


def _safe(name: str) -> str:
    """One file name, visible and inside its folder."""
    text = _UNSAFE.sub("_", name.replace("/", "__").replace("\\", "__"))
    return f"_{text.lstrip('.')}" if text.startswith(".") or not text else text


def _with_hash(name: str, salt: str) -> str:
    stem, ending = os.path.splitext(name)  # noqa: PTH122 (a name may end in a dot)
    if len(ending) > _LONGEST_ENDING:
        stem, ending = name, ""
    ending = f"-{blake2b(salt.encode(), digest_size=6).hexdigest()}{ending}"
    return stem.encode()[: NAME_BYTES - len(ending.encode())].decode(errors="ignore") + ending
