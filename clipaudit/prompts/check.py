"""Is a prompt set good enough to audit with? Every fault and every doubt, in words.

report = check_prompts("animals.toml", labels=["lynx", "cat"])
report.errors, report.warnings
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipaudit.clip.encoders import Encoder
from clipaudit.errors import PromptError
from clipaudit.options.arguments import typed
from clipaudit.prompts.sets import PromptClass, PromptSet, load_prompts, prompt_file
from clipaudit.samples.base import label_name
from clipaudit.spelling import normalise

MIN_FEATURES, MAX_FEATURES = 6, 10
MAX_FEATURE_CHARACTERS = 80
# What CLIP's text encoder reads, its start and end tokens included.
TOKEN_LIMIT = 77
# Shared words of two classes' features, intersection over union. Look-alikes in the shipped sets stay below 0.58.
SAME_TEXT = 0.6
# Cosine of two classes' mean text embeddings.
SAME_EMBEDDING = 0.98
# Of classes that look the same, or of names in one message; the first ones show what is wrong.
MAX_PAIRS, MAX_NAMES = 100, 20
# Additions that comparing all classes' words may take: a few seconds, and enough for 10,000 classes.
MAX_COMPARISONS = 3_000_000_000

# The numbers of two classes, and how similar they are.
_Pair = tuple[int, int, float]
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing to know about a prompt set: an error has to be put right, a warning should be, a note need not."""

    severity: Severity
    message: str


@dataclass(frozen=True)
class PromptReport:
    """What a check found.

    Attributes:
        name: What was checked, as the caller named it.
        n_classes: 0 where the file cannot be read as a prompt set.
        n_prompts: One a feature; plain templates for classes without features.
        most_tokens: Upper estimate of the tokens of the longest prompt; None with an encoder, which counts exactly.
        findings: Errors first.
    """

    name: str
    n_classes: int
    n_prompts: int
    most_tokens: int | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[str]:
        """Messages of what has to be put right."""
        return [finding.message for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[str]:
        """Messages of what should be put right."""
        return [finding.message for finding in self.findings if finding.severity == "warning"]


@typed
def check_prompts(
    name: str | Path, *, labels: Sequence[str] | None = None, encoder: Encoder | None = None
) -> PromptReport:
    """Check a prompt set by itself, against the labels of a data set, and with a text encoder.

    Args:
        name: A shipped set or a file.
        labels: Class names of the data that the set is meant for; None does not compare.
        encoder: Counts tokens with its own tokenizer and compares the classes' mean embeddings; None estimates the
            tokens from above.

    Returns:
        The report; a malformed file is its only error.

    Raises:
        UsageError: no such set or file.
        SourceError: one of the labels is no class name.
    """
    try:
        prompts = load_prompts(prompt_file(name))
    except PromptError as error:
        return PromptReport(str(name), 0, 0, None, (Finding("error", str(error)),))
    findings = [*_feature_counts(prompts), *_feature_faults(prompts), *_repetitions(prompts), *_same_texts(prompts)]
    if labels is not None:
        read = [label_name(label, None, frozenset(), f"label {number}") for number, label in enumerate(labels)]
        findings += _label_matches(prompts, read)
    texts = [text for entry in prompts.classes for text in prompts.texts(entry)]
    findings += _encoded(prompts, encoder) if encoder else _too_long(texts)
    most = None if encoder else max(map(estimate_tokens, texts))
    findings.sort(key=lambda finding: ("error", "warning", "note").index(finding.severity))
    return PromptReport(str(name), len(prompts.classes), len(texts), most, tuple(findings))


def estimate_tokens(text: str) -> int:
    """CLIP tokens of a text, estimated from above without CLIP's vocabulary; the start and end tokens are counted.

    CLIP splits a text into words, single digits and runs of punctuation, and each into pieces of at least one byte.
    Counted are half the letters of a word from a to z (rounded up), and every byte of anything else. That is more than
    CLIP's own count for every word of the shipped sets; for a made-up word it need not be. An encoder counts exactly.
    """
    pieces = re.findall(r"[a-z]+|[^\sa-z]", text, flags=re.IGNORECASE | re.ASCII)
    return 2 + sum((len(piece) + 1) // 2 if piece.isascii() else len(piece.encode()) for piece in pieces)


def feature_fault(feature: str) -> str | None:
    """Why a text does not complete "A photo of lynx, which ..." as it stands; None where it may."""
    if not feature.isprintable():
        return "contains control characters"
    if len(feature) > MAX_FEATURE_CHARACTERS:
        return f"has {len(feature)} characters, more than {MAX_FEATURE_CHARACTERS}"
    if feature != " ".join(feature.split()):
        return "has blanks at its ends or doubled ones"
    if not feature[0].isalpha():
        return "does not start with a word"
    first, last = feature.split()[0], feature[-1]
    if first.casefold() in ("which", "that", "it"):
        return f"starts with {first!r}, which the template says already"
    if first[0].isupper():
        return "starts with a capital letter, in the middle of a sentence"
    return "ends with a punctuation mark, which the template sets already" if last in ".,;:!?" else None


def _feature_counts(prompts: PromptSet) -> Iterator[Finding]:
    empty = [entry.name for entry in prompts.classes if not entry.features]
    if empty:
        yield Finding("warning", f"no features yet, so plain templates: {_listed(empty)}")
    for entry in prompts.classes:
        count = len(entry.features)
        if count and not MIN_FEATURES <= count <= MAX_FEATURES:
            yield Finding("warning", f"{entry.name}: {count} feature(s); write {MIN_FEATURES} to {MAX_FEATURES}")


def _feature_faults(prompts: PromptSet) -> Iterator[Finding]:
    for entry in prompts.classes:
        for feature in entry.features:
            if fault := feature_fault(feature):
                yield Finding("warning", f"{entry.name}: {feature!r} {fault}")


def _repetitions(prompts: PromptSet) -> Iterator[Finding]:
    owners: dict[str, list[str]] = defaultdict(list)
    for entry in prompts.classes:
        for feature, count in Counter(map(normalise, entry.features)).items():
            owners[feature].append(entry.name)
            if count > 1:
                yield Finding("error", f"{entry.name}: {feature!r} stands there {count} times")
    for feature, names in owners.items():
        if len(names) > 1:
            yield Finding("note", f"{feature!r} does not tell apart: {_listed(names)}")


def _same_texts(prompts: PromptSet) -> Iterator[Finding]:
    described = [entry for entry in prompts.classes if entry.features]
    classes = [_words(entry) for entry in described]
    if sum(count**2 for count in Counter(word for words in classes for word in words).values()) > MAX_COMPARISONS:
        yield Finding("note", f"{len(classes):,} classes are too many to compare their texts with one another")
        return
    yield from _pairs(
        _similar_words(classes),
        lambda first, second, similarity: (
            f"{described[first].name} and {described[second].name}: nearly the same text (they share"
            f" {similarity:.0%} of their words); write what tells them apart"
        ),
    )


def _similar_words(classes: Sequence[frozenset[str]]) -> Iterator[_Pair]:
    """Pairs of classes that share at least SAME_TEXT of their words, with that share."""
    holders: dict[str, list[int]] = defaultdict(list)
    for number, words in enumerate(classes):
        for word in words:
            holders[word].append(number)
    arrays = {word: np.array(held) for word, held in holders.items()}
    sizes = np.array([len(words) for words in classes])
    for number, words in enumerate(classes):
        if words:
            shared = np.bincount(np.concatenate([arrays[word] for word in words]), minlength=len(classes))
            yield from _above(SAME_TEXT, shared / (len(words) + sizes - shared), number)


def _words(entry: PromptClass) -> frozenset[str]:
    return frozenset(word for feature in entry.features for word in re.findall(r"\w+", normalise(feature)))


def _label_matches(prompts: PromptSet, labels: Sequence[str]) -> Iterator[Finding]:
    matched = prompts.match(labels)
    missing = [label for label, entry in zip(labels, matched, strict=True) if entry is None]
    if missing:
        yield Finding("error", f"classes of the data that are missing here: {_listed(missing)}")
    meant: dict[str, list[str]] = defaultdict(list)
    for label, entry in zip(labels, matched, strict=True):
        if entry:
            meant[entry.name].append(label)
    for name, spellings in meant.items():
        if len(spellings) > 1:
            yield Finding("warning", f"several classes of the data are {name!r} here: {_listed(spellings)}")
    unknown = [entry.name for entry in prompts.classes if entry.name not in meant]
    if unknown:
        yield Finding("warning", f"classes that the data do not have: {_listed(unknown)}")


def _too_long(texts: Iterable[str]) -> Iterator[Finding]:
    for text in texts:
        if (tokens := estimate_tokens(text)) > TOKEN_LIMIT:
            yield Finding("error", f"up to {tokens} tokens, CLIP's text encoder reads {TOKEN_LIMIT}. Shorten: {text!r}")


def _encoded(prompts: PromptSet, encoder: Encoder) -> Iterator[Finding]:
    means = {}
    for entry in prompts.classes:
        texts = prompts.texts(entry)
        try:
            mean = encoder.encode_texts(texts).mean(axis=0)
        except PromptError:
            yield from _refused(texts, encoder)
            continue
        means[entry.name] = mean / np.linalg.norm(mean)
    names, rows = list(means), np.array(list(means.values()))
    cosines = (pair for number in range(len(rows)) for pair in _above(SAME_EMBEDDING, rows @ rows[number], number))
    yield from _pairs(
        cosines,
        lambda first, second, cosine: (
            f"{names[first]} and {names[second]}: nearly the same to this text encoder (mean cosine {cosine:.3f})"
        ),
    )


def _above(limit: float, values: NDArray[np.floating], number: int) -> Iterator[_Pair]:
    """The classes after this one whose similarity to it reaches the limit."""
    for other in np.flatnonzero(values[number + 1 :] >= limit) + number + 1:
        yield number, int(other), float(values[other])


def _pairs(pairs: Iterable[_Pair], say: Callable[[int, int, float], str]) -> Iterator[Finding]:
    """A warning for each pair of classes, as far as somebody would read them."""
    for count, pair in enumerate(pairs):
        if count == MAX_PAIRS:
            yield Finding("warning", f"more than {MAX_PAIRS} pairs of classes are nearly the same")
            return
        yield Finding("warning", say(*pair))


def _refused(texts: Iterable[str], encoder: Encoder) -> Iterator[Finding]:
    for text in texts:
        try:
            encoder.encode_texts([text])
        except PromptError as error:
            yield Finding("error", str(error))


def _listed(names: Iterable[str]) -> str:
    held = list(names)
    more = f" and {len(held) - MAX_NAMES:,} more" if len(held) > MAX_NAMES else ""
    return ", ".join(held[:MAX_NAMES]) + more
