"""Prompt files, class-name files and answers of language models that are damaged or written to do harm.

Each gives a result or a ClipAuditError, soon and in bounded memory. CLIPAUDIT_FUZZ=N tries N of each.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from fuzzing import LostError, campaign, size
from prompt_helpers import features_of

from clipaudit.prompts.answers import parse_features
from clipaudit.prompts.check import check_prompts
from clipaudit.prompts.sets import (
    PromptClass,
    PromptSet,
    class_prompts,
    find_prompts,
    load_prompts,
    read_prompt_text,
    shipped_prompt_sets,
)
from clipaudit.prompts.writing import with_features, with_labels, write_prompts
from clipaudit.samples import read_names
from clipaudit.spelling import tidy

LABELS = ["cat", "Dog", "{name}", "a\nb", "zero", "0", "caf\u00e9", "cafe\u0301", "n01443537"]
ODD = ["", " ", "_", "\0", "\x1b[2J", "\u2028", "\u202e", "\u200b", "\ufeff", "\ud800", "e\u0301", "\U0010ffff", "\xb2"]
FIELDS = ["{name.__class__}", "{name[0]}", "{name:>1000000000}", "{feature!r}", "{}", "{0}", "{{", "}", "{name}"]
SYNTAX = ['"', "'", '"""', "'''", "\\", "\\u0000", "\\ud800", "#", "\n", "\r", "=", ".", "[", "]", "[[", "]]", "{a="]
WORDS = ["[[classes]]\n", "classes", "features = [ # ", "name = ", "aliases = []\n", "template = ", "nan", "1e400"]
FRAGMENTS = [*ODD, *FIELDS, *SYNTAX, *WORDS, "2026-99-99", "null", "true", "}", "9" * 5_000]
HEAVY = ["[", "{a=", "a.", '"a".', "9", "# a ", "[[classes]]\n", "{name}", " ", "\n", '""', "'", '"', "\\"]
HEAVY += ['{"0":', '"x",', "[a.b.c.d]\n", "[[classes]]\nname = 'a'\n", "a = 1\n"]


def mutated(text: str, chance: random.Random) -> str:
    """A text after one to four changes of a random kind."""
    for _ in range(chance.choice([1, 1, 2, 4])):
        start = chance.randint(0, len(text))
        end = min(len(text), start + chance.choice([0, 1, 1, 5, 40, 400]))
        kind = chance.randrange(6)
        if kind == 0:
            text = text[:start] + text[end:]
        elif kind == 1:
            text = text[:start] + chance.choice(FRAGMENTS) + text[start:]
        elif kind == 2:
            text = text[:start] + chance.choice(FRAGMENTS) + text[end:]
        elif kind == 3:
            text = text[:start] + text[start:end] * chance.choice([2, 3, 100]) + text[end:]
        elif kind == 4:
            lines = text.splitlines(keepends=True)
            chance.shuffle(lines)
            text = "".join(lines)
        elif chance.random() < 0.3:
            text = text[:start] + chance.choice(HEAVY) * chance.choice([100, 20_000, 300_000]) + text[start:]
    return text


def value(chance: random.Random, depth: int = 0) -> object:
    """Any JSON value, most often a text."""
    kind = chance.randrange(12)
    if kind == 0 and depth < 4:
        return [value(chance, depth + 1) for _ in range(chance.randint(0, 4))]
    if kind == 1 and depth < 4:
        return {any_text(chance): value(chance, depth + 1) for _ in range(chance.randint(0, 4))}
    if kind == 2:
        return chance.choice([True, 0, -1, 1.5, float("inf"), 10**30])
    return any_text(chance)


def any_text(chance: random.Random) -> str:
    words = [*["cat", "dog", "has ears", "is red"] * 15, *FRAGMENTS, *LABELS]
    text = "".join(chance.choice(words) for _ in range(chance.choice([0, 1, 1, 1, 1, 2, 3])))
    return text * chance.choice([1] * 60 + [1_000])


def as_toml(held: object) -> str:
    """A value as TOML that the reader may or may not accept."""
    if isinstance(held, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(item)}" for key, item in held.items()) + "}"
    if isinstance(held, list):
        return "[" + ", ".join(map(as_toml, held)) + "]"
    return json.dumps(held, ensure_ascii=isinstance(held, str) and len(held) % 2 == 0)


def any_set(chance: random.Random) -> str:
    """A prompt file whose keys are right and whose values may be anything."""

    def one(right: object) -> str:
        return as_toml(right if chance.random() < 0.97 else value(chance))

    keys = {
        "name": any_text(chance) or "x",
        "template": "A {name}, " + chance.choice([*[""] * 30, *FIELDS]) + " {feature}.",
    }
    lines = [f"{key} = {one(right)}\n" for key, right in keys.items()]
    for number in range(chance.randint(0, 4)):
        entry = {
            "name": chance.choice([f"class {number}", any_text(chance)]),
            "aliases": [any_text(chance) for _ in range(chance.randint(0, 2))],
            "features": [chance.choice(["has ears", any_text(chance)]) for _ in range(chance.randint(0, 9))],
        }
        lines.append("[[classes]]\n" + "".join(f"{key} = {one(right)}\n" for key, right in entry.items()))
    return "".join(lines)


def cases(small: int, seeds: list[str], made: Callable[[random.Random], str]) -> Iterator[bytes]:
    """Mutated and generated texts, the same ones every time."""
    for number in range(size(small)):
        chance = random.Random(number)
        text = mutated(chance.choice(seeds), chance) if chance.random() < 0.6 else made(chance)
        if chance.random() < 0.1:
            text = mutated(text, chance)
        encoding = chance.choice(["utf-8"] * 30 + ["utf-8-sig", "utf-16", "latin-1"])
        errors = "surrogatepass" if encoding.startswith("utf") else "replace"
        yield text.replace("\n", chance.choice(["\n"] * 20 + ["\r\n", "\r"])).encode(encoding, errors)


def test_prompt_files(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    seeds = [path.read_text(encoding="utf-8")[:6_000].rpartition("\n[[")[0] for path in shipped_prompt_sets().values()]

    def use(data: bytes) -> None:
        file.write_bytes(data)
        check_prompts(file, labels=LABELS)
        prompts, _ = find_prompts(file, LABELS)
        if prompts != load_prompts(file) or prompts is None:
            raise LostError("read twice, it is not the same")
        described = class_prompts(LABELS, prompts)
        if len(set(described.owners)) != len(LABELS) or not all(map(str.strip, described.texts)):
            raise LostError("a class without prompts")
        text, held = with_labels(read_prompt_text(file), prompts, LABELS)
        write_prompts(file, text, held)
        if None in load_prompts(file).match(LABELS):
            raise LostError("a label was not added")
        empty = next((entry for entry in held.classes if not entry.features), None)
        if empty:
            write_prompts(file, *with_features(text, held, empty.name, ["has \\ \" ' # ] ears"]))

    campaign("prompt files", cases(150, seeds, any_set), use, seconds=30)


def test_names_files(tmp_path: Path) -> None:
    as_object = json.dumps({str(number): name for number, name in enumerate(LABELS)}, indent=1)
    seeds = ["\n".join(LABELS), json.dumps(LABELS), as_object, "\n".join(f"class {number}" for number in range(1_000))]

    def made(chance: random.Random) -> str:
        held = [value(chance) for _ in range(chance.randint(0, 6))]
        keys = chance.choice([range(len(held)), range(-1, len(held) - 1), range(0, 2 * len(held), 2)])
        return json.dumps(chance.choice([held, dict(zip(map(str, keys), held, strict=True)), value(chance)]))

    def use(case: tuple[str, bytes]) -> None:
        name, data = case
        (tmp_path / name).write_bytes(data)
        names = read_names(tmp_path / name)
        if not names or len(set(names)) != len(names) or [tidy(name) for name in names] != names or "" in names:
            raise LostError(f"not a list of names: {names[:5]}")

    suffixes = ("n.txt", "n.json", "n")
    numbered = enumerate(cases(300, seeds, made))
    campaign("names files", ((suffixes[number % 3], data) for number, data in numbered), use)


def test_answers() -> None:
    prompts = PromptSet("s", "", "A {name}, which {feature}.", (PromptClass("cat", (), ("has soft fur",)),))
    thought = f'<think>["a"]</think>```json\n{json.dumps(features_of("x", 9))}```'
    seeds = [json.dumps(features_of("lynx")), thought]

    def use(data: bytes) -> None:
        features = parse_features(data.decode("utf-8", "replace"), prompts, PromptClass("lynx"))
        if not 6 <= len(features) <= 10 or not all(map(str.isprintable, features)):
            raise LostError(f"not features: {features}")

    campaign("answers", cases(300, seeds, lambda chance: json.dumps(value(chance))), use)
