"""What makes a result implausible, in whole sentences with the numbers behind them: numbers in, words out, no files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from clipaudit.spelling import alike, normalise

NAMES_SHOWN = 5
# Words that name a part of a data set. A single one may be a class: "train" is one of CIFAR-100's.
_SPLIT = re.compile(r"(train|training|trn|test|testing|tst|val|valid|validation|dev|eval|evaluation|holdout|unlabeled)")
_PART = re.compile(r"(.* )?(fold|split|part|shard|batch|chunk|subset) ?\d+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_FILE_NAME = re.compile(r".*(/|\\|\.(jpe?g|png|webp|gif|bmp|tiff?))", re.IGNORECASE)
# What programs write where there is no value.
_MISSING = {"", "?", ".", "n/a", "n.a.", "na", "<na>", "nan", "nat", "nil", "none", "null", "#n/a"}
# Below this many classes, a class of one image each is a small data set, not a column of ids.
ID_CLASSES = 20


def class_warnings(counts: Mapping[str, int]) -> list[str]:
    """What is odd about the classes of a source: a column or a folder level was perhaps taken for labels.

    Args:
        counts: Samples of each class, by name.
    """
    return [
        *_numbers(counts),
        *_splits(counts),
        *_spellings(counts),
        *_missing(counts),
        *_ids(counts),
    ]


def _numbers(counts: Mapping[str, int]) -> list[str]:
    numbers = [name for name in counts if _NUMBER.fullmatch(name.strip())]
    if not numbers:
        return []
    which = "all" if len(numbers) == len(counts) else f"{len(numbers):,} of"
    return [
        f"{which} {len(counts):,} class names are numbers ({some(numbers)}), which say nothing about the images."
        " If they are class indices, give the class names in their order with --names FILE."
    ]


def _splits(counts: Mapping[str, int]) -> list[str]:
    splits = [name for name in counts if _SPLIT.fullmatch(normalise(name)) or _PART.fullmatch(normalise(name))]
    if len(splits) < 2:
        return []
    return [
        f"the classes {some(splits)} look like parts of a data set, not like classes. If the classes lie below them,"
        f" name one part as the source, for example the folder {splits[0]!r}."
    ]


def _spellings(counts: Mapping[str, int]) -> list[str]:
    return [
        f"the classes {_with_counts(group, counts)} differ in spelling only. They are kept apart; if they are"
        " one class, give it one name."
        for group in alike(counts)
    ]


def _missing(counts: Mapping[str, int]) -> list[str]:
    missing = [name for name in counts if name.strip().casefold() in _MISSING or not name.strip("-_* ")]
    if not missing:
        return []
    return [
        f"the class names {_with_counts(missing, counts)} look like missing labels. If they are, give these images a"
        " label or take them out."
    ]


def _ids(counts: Mapping[str, int]) -> list[str]:
    warnings = []
    single, n = sum(count == 1 for count in counts.values()), sum(counts.values())
    if len(counts) >= ID_CLASSES and 2 * single > n:
        warnings.append(
            f"{single:,} of {n:,} samples are the only one of their class ({len(counts):,} classes): the labels look"
            " like ids. Was another column meant?"
        )
    files = [name for name in counts if _FILE_NAME.fullmatch(name)]
    if 2 * len(files) > len(counts):
        warnings.append(
            f"{len(files):,} of {len(counts):,} class names look like file names ({some(files)}). Was another column"
            " meant?"
        )
    return warnings


def some(names: Iterable[str]) -> str:
    """The first names, quoted, and how many more there are."""
    listed = list(names)
    shown, more = ", ".join(map(repr, listed[:NAMES_SHOWN])), len(listed) - NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def _with_counts(names: list[str], counts: Mapping[str, int]) -> str:
    shown = [f"{name!r} ({counts[name]:,})" for name in names[:NAMES_SHOWN]]
    more = len(names) - NAMES_SHOWN
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
