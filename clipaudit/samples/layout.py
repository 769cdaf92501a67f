"""Whether the folders in a folder can be classes: splits, copies and wrappers are told from them by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.samples.base import some

_SPLITS = frozenset(
    {"train", "training", "trn", "trainval", "trainset", "val", "valid", "validation", "validate", "minival"}
    | {"valset", "test", "testing", "tst", "testset", "dev", "devel", "development", "eval", "evaluation"}
    | {"holdout", "heldout", "unlabeled", "unlabelled", "unsup", "query", "gallery"}
)
# Words that say nothing about what a picture shows.
_GENERIC = frozenset(
    {"all", "data", "dataset", "file", "files", "folder", "frame", "frames", "full", "image", "images", "img"}
    | {"imgs", "jpg", "jpeg", "jpegs", "part", "photo", "photos", "pic", "pics", "picture", "pictures", "png"}
    | {"raw", "set", "split", "splits", "original", "originals"}
)
_CLASS_WORDS = frozenset({"class", "cls", "label", "category"})


@dataclass(frozen=True)
class TopFolder:
    """A folder directly below a source's root that holds images.

    Attributes:
        name: Its name.
        place: Path below the root of the folder in it where something is to choose: itself, or `train/images`.
        folders: The names of the folders directly in there.
        has_images: Whether images lie directly in there.
    """

    name: str
    place: str
    folders: Sequence[str]
    has_images: bool


def is_split(name: str) -> bool:
    """Whether a name says a part of a data set (`train`, `val2017`, `split_test`, `trainA`) and nothing else."""
    words = _words(name)
    return not _SPLITS.isdisjoint(words) and words <= _SPLITS | _GENERIC


def says_nothing(name: str) -> bool:
    """Whether a name is no class for certain: `images`, `train`. Numbers may be classes."""
    words = _words(name)
    return bool(words) and words <= _SPLITS | _GENERIC


def different_splits(names: Iterable[str]) -> bool:
    """Whether only words for splits tell the names apart (`train` and `test`, `birds_train` and `birds_val`)."""
    words = [_words(name) for name in names]
    rest = {some - _SPLITS - _GENERIC for some in words}
    return len(rest) == 1 and not any(_SPLITS.isdisjoint(some) for some in words)


def judge_classes(root: Path, tops: Sequence[TopFolder]) -> list[str]:
    """Check that the folders in `root` can be classes.

    Returns:
        Doubts, as sentences for the user.

    Raises:
        SourceError: they cannot be; the message says which folder to name instead.
    """
    _refuse_splits(root, tops)
    _refuse_copies(root, tops)
    if len(tops) == 1:
        _refuse_wrapper(root, tops[0])
        return []
    return _judge_same_folders(root, tops)


def _refuse_splits(root: Path, tops: Sequence[TopFolder]) -> None:
    splits = [top for top in tops if is_split(top.name)]
    if len(tops) > 1 and different_splits(top.name for top in tops):
        splits = list(tops)
    # A single one among others may be a class (trains), and so may two without folders in them.
    if len(splits) == len(tops) or (len(splits) > 1 and any(top.folders for top in splits)):
        raise SourceError(
            f"{root} has folders that are named like splits ({some(top.name for top in splits)}), not like classes."
            f" {_what_instead(root, splits)}"
        )


def _what_instead(root: Path, tops: Sequence[TopFolder]) -> str:
    top = next((top for top in tops if not all(map(says_nothing, top.folders))), None)
    if top is None:
        return "Put the images of each class into a folder named after it, or name a manifest with the labels."
    return f"The classes seem to lie below them ({some(top.folders)}). Name one split: {root / top.place}"


def _refuse_copies(root: Path, tops: Sequence[TopFolder]) -> None:
    names = {top.name for top in tops}
    for top in tops:
        copied = names.intersection(top.folders) - {top.name}
        if len(copied) > 1 or (copied == set(top.folders) and copied and not top.has_images):
            raise SourceError(
                f"{root / top.name} has folders named like the class folders beside it ({some(copied)}), so it is a"
                f" copy or a split, not a class. Move it out of {root}, or name it alone: {root / top.place}"
            )


def _refuse_wrapper(root: Path, top: TopFolder) -> None:
    if top.has_images or len(top.folders) < 2:
        return
    raise SourceError(
        f"{root} has a single folder of images, {top.place!r}, and the classes seem to lie below it"
        f" ({some(top.folders)}). Name that folder instead: {root / top.place}"
    )


def _judge_same_folders(root: Path, tops: Sequence[TopFolder]) -> list[str]:
    """Folders of the same names in all: either classes in parts of the data, or shelves in classes."""
    common = set.intersection(*(set(top.folders) for top in tops))
    every = {name for top in tops for name in top.folders}
    if all(map(says_nothing, common)) or 2 * len(common) < len(every):
        return []
    found = f"the folders in {root} ({some(top.name for top in tops)}) all have the same folders ({some(common)})"
    instead = f"If these are the classes, name one folder: {root / tops[0].place}"
    if _numbered(top.name for top in tops) and _words(tops[0].name) - _CLASS_WORDS:
        raise SourceError(
            f"{found}, so they look like parts of the data, not like classes. {instead}. If they are the classes,"
            " list the images and labels in a manifest and name that."
        )
    return [] if _numbered(common) else [f"{found}, which were taken for shelves inside the classes. {instead}"]


def _numbered(names: Iterable[str]) -> bool:
    """Whether only numbers or letters tell two or more names apart (`fold1`, `fold2`; `camera_a`, `camera_b`)."""
    names = list(names)
    return len(names) > 1 and len(set(map(_words, names))) == 1


def _words(name: str) -> frozenset[str]:
    """The words of a name in lower case, without numbers and single Latin letters; `trainA` has one."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+", name)
    return frozenset(word.lower() for word in words if len(word) > 1 or not word.isascii())
