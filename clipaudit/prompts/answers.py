"""What a language model answered, as features of a class: found, cleaned, and refused where they do not do."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from clipaudit.errors import PromptError
from clipaudit.prompts.check import (
    MAX_FEATURE_CHARACTERS,
    MAX_FEATURES,
    MIN_FEATURES,
    TOKEN_LIMIT,
    estimate_tokens,
    feature_fault,
)
from clipaudit.prompts.sets import PromptClass, PromptSet, fill
from clipaudit.spelling import normalise

MAX_ANSWER_CHARACTERS = 20_000

# Third persons singular end in -s; these are the other words that a feature may start with ("ribs, which are ...").
_VERBS = re.compile(
    "are|bear|carry|come|contain|cover|fill|float|form|glow|grow|hang|have|hold|lie|look|rest|show|sit|stand|swim|wear"
    "|[a-z]*(?<!s)s"
)
_NO_VERBS = re.compile("across|always|as|besides|its|less|perhaps|plus|sometimes|this|thus|towards|various|numerous")
_BULLET = re.compile(r"^\s*(?:[-*\u2022\u2013]|\d+[.)])\s+")
_LIST_OF_STRINGS = re.compile(r'\[\s*"')


def parse_features(answer: str, prompts: PromptSet, entry: PromptClass) -> tuple[str, ...]:
    """The features in an answer: its first JSON list of strings, without bullets, those that do not do left out.

    Args:
        answer: Of a language model; anything around the list is passed over.
        prompts: The set so far; a feature that another class of it has does not tell the two apart.
        entry: The class that was asked for.

    Raises:
        PromptError: no such list, or fewer than 6 or more than 10 good features, and why.
    """
    strings = _first_list(answer)
    taken = {normalise(feature) for other in prompts.classes if other.name != entry.name for feature in other.features}
    good: list[str] = []
    faults = []
    for text in strings:
        feature = _clean(text)
        prompt = fill(prompts.template, entry.name, feature)
        if fault := _fault(feature, prompt, taken):
            faults.append(f"{text[:MAX_FEATURE_CHARACTERS]!r} {fault}")
        else:
            good.append(feature)
            taken.add(normalise(feature))
    if not MIN_FEATURES <= len(good) <= MAX_FEATURES:
        reasons = f": {'; '.join(faults[:MAX_FEATURES])}" if faults else ""
        raise PromptError(f"{len(good)} usable feature(s) instead of {MIN_FEATURES} to {MAX_FEATURES}{reasons}")
    return tuple(good)


def _first_list(answer: str) -> list[str]:
    # What reasoning models think aloud may hold drafts.
    final = answer.rpartition("</think>")[2]
    if len(final) > MAX_ANSWER_CHARACTERS:
        raise PromptError(f"the answer has {len(final):,} characters, more than {MAX_ANSWER_CHARACTERS:,}")
    for start in _LIST_OF_STRINGS.finditer(final):
        try:
            # Not strict: a raw control character is told of by name, below.
            found, _ = json.JSONDecoder(strict=False).raw_decode(final, start.start())
        except (ValueError, RecursionError):
            continue
        if all(isinstance(text, str) for text in found):
            return list(found)
    raise PromptError("the answer holds no JSON list of strings")


def _clean(text: str) -> str:
    feature = _BULLET.sub("", text).strip(" \"'").rstrip(".,; ")
    feature = re.sub(r"^(?:which|that)\s+", "", feature, flags=re.IGNORECASE)
    return feature[:1].lower() + feature[1:] if feature[1:2].islower() else feature


def _fault(feature: str, prompt: str, taken: Collection[str]) -> str | None:
    if not feature:
        return "is empty"
    if fault := feature_fault(feature):
        return fault
    first = feature.split()[0]
    if _NO_VERBS.fullmatch(first) or not _VERBS.fullmatch(first):
        return "does not start with a verb"
    if normalise(feature) in taken:
        return "is there already"
    if (tokens := estimate_tokens(prompt)) > TOKEN_LIMIT:
        return f"makes a prompt of up to {tokens} tokens, more than {TOKEN_LIMIT}"
    return None
