"""What makes a result implausible, in whole sentences with the numbers behind them: numbers in, words out, no files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipaudit.samples.layout import is_split
from clipaudit.spelling import NOTES_SHOWN, alike, first_notes, looks_missing, normalise

Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Parts of a data set besides the splits that `is_split` knows.
_PART = re.compile(r"(.* )?(fold|split|part|shard|batch|chunk|subset) ?\d+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_FILE_NAME = re.compile(r".*(/|\\|\.(jpe?g|png|webp|gif|bmp|tiff?))", re.IGNORECASE)
# Below this many classes, a class of one image each is a small data set, not a column of ids.
ID_CLASSES = 20
# Agreement beyond chance (Cohen's kappa) below which an estimate knows next to nothing about the labels. Nine labels of
# ten may be wrong: a model that is right about 83 % of the images still has 0.08.
KNOWS_NOTHING = 0.05
# Agreement that so many standard deviations of a binomial do not tell from chance is chance, unless the samples are so
# few that nothing but perfection could be told from it.
CHANCE_DEVIATIONS, TOO_FEW_TO_TELL = 2.0, 0.3
# Below so many samples nothing is refused because of chance.
REFUSABLE = 50
# Classes with fewer samples say little by their shares.
MIN_CLASS = 10
# "Most" of a share, and "nearly all".
MOST, NEARLY_ALL = 0.5, 0.95
# Classes whose own name is seen in fewer of their images, and another in most of them, are taken for that other one.
OWN_AT_MOST = 0.1
# Mean cosine between the prompts of two classes above which they are one prompt in other words.
PROMPTS_ALIKE = 0.999


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
    splits = [name for name in counts if is_split(name) or _PART.fullmatch(normalise(name))]
    # A single one may be a class: "train" is one of CIFAR-100's.
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
    missing = [name for name in counts if looks_missing(name)]
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


@dataclass(frozen=True)
class Agreement:
    """How often an estimate's most probable class is the given label, beside what chance would give.

    Attributes:
        n: Samples.
        share: Of them, where both are the same class.
        chance: The same if predictions and labels were shuffled.
    """

    n: int
    share: float
    chance: float

    @property
    def kappa(self) -> float:
        """Agreement beyond chance, as Cohen has it: 1 is perfect."""
        return (self.share - self.chance) / max(1 - self.chance, 1e-12)

    @property
    def is_chance(self) -> bool:
        """No better than chance, as far as so many samples can tell."""
        deviation = (self.chance * (1 - self.chance) / self.n) ** 0.5
        untold = self.share <= self.chance + CHANCE_DEVIATIONS * deviation and self.kappa < TOO_FEW_TO_TELL
        return self.kappa < KNOWS_NOTHING or untold

    def __str__(self) -> str:
        """In words: "10.3% (10.0% by chance)"."""
        return f"{self.share:.1%} ({self.chance:.1%} by chance)"


def agreement(predicted: Labels, labels: Labels, n_classes: int) -> Agreement:
    """Compare (n,) predicted classes with (n,) labels, n at least 1."""
    shares = (np.bincount(values, minlength=n_classes) / len(labels) for values in (predicted, labels))
    return Agreement(len(labels), float((predicted == labels).mean()), float(np.prod(list(shares), axis=0).sum()))


def useless(n_classes: int, labels: Labels, seen: Mapping[str, Labels]) -> str | None:
    """Why no result can be right: no estimate knows anything about the labels. None where one of them does.

    Args: see `score_warnings`.
    """
    found = {title: agreement(predicted, labels, n_classes) for title, predicted in seen.items()}
    if len(labels) < REFUSABLE or not all(one.is_chance for one in found.values()):
        return None
    (first, its), *others = found.items()
    more = "".join(f", {title} with {one}" for title, one in others)
    return (
        f"{first} agrees with {its} of the given labels{more}: an audit would be a guess. Do these labels belong to"
        " these images, in this order, and does the model know them?"
    )


def unrelated(n_classes: int, labels: Labels, seen: Mapping[str, Labels]) -> str | None:
    """What shows that images and texts were embedded by different models; None where nothing does.

    Args:
        n_classes: K.
        labels: (n,) in [0, K).
        seen: As `score_warnings` takes it. Where others are given that know nothing either, nothing is shown.
    """
    (first, zero_shot), *others = seen.items()
    its = agreement(zero_shot, labels, n_classes) if len(labels) >= REFUSABLE else None
    if its is None or not (its.is_chance or _by_luck(its, zero_shot, labels, n_classes)):
        return None
    found = {title: agreement(predicted, labels, n_classes) for title, predicted in others}
    if found and all(one.is_chance for one in found.values()):
        return None
    return f"{first} agrees with {its} of the labels" + "".join(f", {title} with {one}" for title, one in found.items())


def _by_luck(found: Agreement, predicted: Labels, labels: Labels, n_classes: int) -> bool:
    """Whether the names of the classes might as well be dealt out at random.

    Texts of another model attract images of some class or other, all of a class alike, so that some classes are hit by
    luck: agreement beyond that of shuffled samples shows nothing. Here the names are shuffled, with the variance of the
    agreement as Hoeffding (1951) has it.
    """
    if found.kappa >= TOO_FEW_TO_TELL:
        return False
    _, counts = np.unique(labels * n_classes + predicted, return_counts=True)
    given, seen = (np.bincount(values, minlength=n_classes).astype(float) for values in (labels, predicted))
    spread = float(np.square(counts.astype(float)).sum() + (len(labels) / n_classes) ** 2)
    spread -= float(np.square(given).sum() + np.square(seen).sum()) / n_classes
    deviation = (max(spread, 0.0) / (n_classes - 1)) ** 0.5
    return bool(found.share * len(labels) <= len(labels) / n_classes + CHANCE_DEVIATIONS * deviation)


def score_warnings(names: Sequence[str], labels: Labels, seen: Mapping[str, Labels]) -> list[str]:
    """What is odd about the estimates.

    Args:
        names: K class names.
        labels: (n,) in [0, K), n at least 1.
        seen: Of each estimate, by its title and zero-shot first, (n,) in [0, K), the most probable class.
    """
    (first, zero_shot), *others = seen.items()
    known = agreement(zero_shot, labels, len(names))
    if known.is_chance:
        return [
            f"{first} agrees with {known} of the given labels: the prompts may not describe these classes, the model"
            " may not know them, or the labels belong to other images"
        ]
    warnings = _taken_for_another(names, labels, zero_shot)
    for title, induced in others:
        apart = float((zero_shot != induced).mean())
        if apart > MOST:
            warnings.append(
                f"two estimates disagree on {apart:.1%} of the samples ({first} agrees with {known} of the given"
                f" labels, {title} with {agreement(induced, labels, len(names))}): one of them is not to be trusted"
                " here"
            )
    return warnings


def _taken_for_another(names: Sequence[str], labels: Labels, seen: Labels) -> list[str]:
    """Classes that zero-shot takes for another one, by name: swapped in pairs, or renamed."""
    sizes = np.bincount(labels, minlength=len(names))
    own = np.bincount(labels[seen == labels], minlength=len(names))
    pairs, counts = np.unique(np.stack([labels, seen]), axis=1, return_counts=True)
    taken = {
        int(given): (int(other), float(count / sizes[given]))
        for given, other, count in zip(*pairs, counts, strict=True)
        if given != other
        and sizes[given] >= MIN_CLASS
        and count > MOST * sizes[given]
        and own[given] < OWN_AT_MOST * sizes[given]
    }
    warnings = []
    for given, (other, share) in taken.items():
        mutual = taken.get(other, (-1, 0.0))
        if mutual[0] == given and given < other:
            warnings.append(
                f"{names[given]!r} and {names[other]!r} look swapped: zero-shot sees {names[other]!r} in {share:.0%} of"
                f" the images labelled {names[given]!r}, and {names[given]!r} in {mutual[1]:.0%} of those labelled"
                f" {names[other]!r}"
            )
        elif mutual[0] != given:
            warnings.append(
                f"{names[given]!r} looks like {names[other]!r}: zero-shot sees it in {share:.0%} of the images labelled"
                f" {names[given]!r}. Is the class named wrongly, or do the prompts of the two say the same?"
            )
    return first_notes(warnings, "classes are taken for another one, too")


def decision_warnings(names: Sequence[str], labels: Labels, is_clean: Flags, rescued: Flags) -> list[str]:
    """What is odd about the verdicts.

    Args:
        names: K class names.
        labels: (n,) in [0, K), n at least 1.
        is_clean: (n,) in the clean subset.
        rescued: (n,) only because nothing else of their class was.
    """
    sizes, doubts, kept = (
        np.bincount(labels[rows], minlength=len(names)) for rows in (np.ones_like(rescued), ~is_clean, rescued)
    )
    warnings = []
    if doubts.sum() > MOST * len(labels):
        warnings.append(
            f"more than half of the labels are in doubt ({doubts.sum():,} of {len(labels):,}). Unless so many were"
            " to be expected, the prompts may not describe these classes, or the thresholds may be too strict"
        )
    if saved := [f"{names[k]!r} ({kept[k]:,} of {sizes[k]:,})" for k in np.flatnonzero(kept).tolist()]:
        warnings.append(f"no label of {_listed(saved)} was selected: the most probable ones were kept (fallback)")
    vanished = (sizes >= MIN_CLASS) & (doubts >= NEARLY_ALL * sizes) & (kept == 0)
    if nearly := [f"{names[k]!r} ({doubts[k]:,} of {sizes[k]:,})" for k in np.flatnonzero(vanished).tolist()]:
        warnings.append(f"nearly all labels of {_listed(nearly)} are in doubt: the clean subset hardly knows these")
    return warnings


def prompt_warnings(
    names: Sequence[str], texts: Sequence[str], owners: Sequence[int], vectors: NDArray[np.float32]
) -> list[str]:
    """What is odd about the prompts, by their texts and embeddings.

    Args:
        names: K class names.
        texts: P prompts.
        owners: Class of each prompt, ascending.
        vectors: (P, d) unit rows, their embeddings.
    """
    by_texts: dict[tuple[str, ...], list[str]] = {}
    of_class: list[list[str]] = [[] for _ in names]
    for text, owner in zip(texts, owners, strict=True):
        of_class[owner].append(text)
    for name, mine in zip(names, of_class, strict=True):
        by_texts.setdefault(tuple(mine), []).append(name)
    warnings = [
        f"the classes {some(group)} have the same prompts, so that zero-shot cannot tell them apart"
        for group in by_texts.values()
        if len(group) > 1
    ]
    means = np.zeros((len(names), vectors.shape[1]))
    np.add.at(means, np.asarray(owners), vectors)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    k = len(names)
    cosine = float((np.square(means.sum(axis=0)).sum() - k) / (k * (k - 1)))
    if cosine > PROMPTS_ALIKE:
        warnings.append(
            f"the prompts of all classes are alike to the model (mean cosine {cosine:.4f}): zero-shot can hardly tell"
            " the classes apart"
        )
    return first_notes(warnings, "groups of classes share their prompts, too")


def row_order_warning(labels: str) -> str:
    """That `labels` ("the labels of FILE") may belong to other images."""
    return (
        f"{labels} were matched by row order, because there is no column of paths or ids: nothing shows that its rows"
        " are in the order of the images"
    )


def some(names: Iterable[str]) -> str:
    """The first names, quoted, and how many more there are."""
    return _listed([repr(name) for name in names])


def _with_counts(names: Iterable[str], counts: Mapping[str, int]) -> str:
    return _listed([f"{name!r} ({counts[name]:,})" for name in names])


def _listed(words: Sequence[str]) -> str:
    more = len(words) - NOTES_SHOWN
    return ", ".join(words[:NOTES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
