"""Prompt sets: what the classes of a data set look like, in words (eq. 3).

One readable TOML file a data set, shipped in `prompts/`:

    name = "digits"
    description = "Handwritten digits"
    template = "A photo of {name}, which {feature}."

    [[classes]]
    name = "zero"
    aliases = ["0"]
    features = ["is a single closed oval", "has an empty middle"]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipaudit.errors import PromptError, UsageError
from clipaudit.spelling import normalise

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What a class without features is described by.
PLAIN_TEMPLATES = ("A photo of a {name}.", "A picture of a {name}.", "An image that shows a {name}.")
# In a wheel the sets lie inside the package, in a checkout at its top.
_FOLDERS = (Path(__file__).parent / "prompt_sets", Path(__file__).parents[1] / "prompts")


@dataclass(frozen=True)
class PromptClass:
    """One class: its name, other spellings that labels may have, and visual features ("has tufted ears")."""

    name: str
    aliases: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a data set.

    Attributes:
        name: Of the set.
        description: One line about it.
        template: Text with `{name}` and `{feature}`.
        classes: In the data set's own order.
    """

    name: str
    description: str
    template: str
    classes: tuple[PromptClass, ...]

    def match(self, class_names: Sequence[str]) -> list[PromptClass | None]:
        """The class of the set that each name means (normalised, or by alias), None where there is none."""
        by_name = {normalise(spelling): entry for entry in self.classes for spelling in (*entry.aliases, entry.name)}
        return [by_name.get(normalise(name)) for name in class_names]

    def texts(self, entry: PromptClass) -> tuple[str, ...]:
        """The prompts of one class: one a feature, or the plain templates where it has none."""
        if entry.features:
            return tuple(self.template.format(name=entry.name, feature=feature) for feature in entry.features)
        return plain_texts(entry.name)


@dataclass(frozen=True)
class ClassPrompts:
    """Prompts for the K classes of an audit.

    Attributes:
        texts: All prompts, class by class.
        owners: Class index of each text, ascending; every class has at least one.
        source: Name of the prompt set, or "plain templates".
        plain: Classes that no features were found for.
    """

    texts: tuple[str, ...]
    owners: tuple[int, ...]
    source: str
    plain: tuple[str, ...]


def class_prompts(class_names: Sequence[str], prompts: PromptSet | None) -> ClassPrompts:
    """Prompts for these classes: from the set's features, or plain templates where it has none (or is None)."""
    texts: list[str] = []
    owners: list[int] = []
    plain = []
    matched = prompts.match(class_names) if prompts else [None] * len(class_names)
    for index, (name, entry) in enumerate(zip(class_names, matched, strict=True)):
        mine = prompts.texts(entry) if prompts and entry else plain_texts(readable_name(name))
        if not (entry and entry.features):
            plain.append(name)
        texts += mine
        owners += [index] * len(mine)
    return ClassPrompts(tuple(texts), tuple(owners), prompts.name if prompts else "plain templates", tuple(plain))


def plain_texts(name: str) -> tuple[str, ...]:
    """The prompts of a class that nothing but the name is known of."""
    return tuple(template.format(name=name) for template in PLAIN_TEMPLATES)


def readable_name(label: str) -> str:
    """A label as it is written in a sentence: underscores become blanks."""
    return " ".join(label.replace("_", " ").split())


def shipped_prompt_sets() -> dict[str, Path]:
    """The files of all prompt sets that come with clipaudit, by name."""
    folder = next(folder for folder in _FOLDERS if folder.is_dir())
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def find_prompts(name: str | Path, class_names: Sequence[str]) -> tuple[PromptSet | None, str]:
    """The prompt set of this name or file, and why it is that one; for "auto" the smallest shipped one that fits.

    A shipped set fits where it knows every class by a word. A number says nothing about what an image shows (label 3 is
    a cat in one data set and a digit in another), so "auto" takes no set for classes that are named by numbers.

    Returns:
        The set (None: plain templates), and the reason as a part of a sentence.

    Raises:
        UsageError: no such set or file.
        PromptError: the file is malformed.
    """
    if name == "none":
        return None, "as asked for"
    if name != "auto":
        return load_prompts(prompt_file(name)), "as asked for"
    if numbers := [label for label in class_names if normalise(label).isdecimal()]:
        which = "class names are" if len(numbers) == len(class_names) else f"{len(numbers):,} class name(s) are"
        return None, f"{which} numbers ({numbers[0]!r}), by which no prompt set is chosen"
    sets = [load_prompts(file) for file in shipped_prompt_sets().values()]
    fitting = [candidate for candidate in sets if None not in candidate.match(class_names)]
    if not fitting:
        return None, f"no shipped set knows all {len(class_names):,} classes"
    chosen = min(fitting, key=lambda candidate: len(candidate.classes))
    return (
        chosen,
        f"the {'smallest' if len(fitting) > 1 else 'only'} shipped set that knows all {len(class_names):,} classes",
    )


def prompt_file(name: str | Path) -> Path:
    """The file of a prompt set: a shipped one by name, else the file of that name. UsageError where there is none."""
    shipped = shipped_prompt_sets()
    if str(name) in shipped:
        return shipped[str(name)]
    if not Path(name).is_file():
        raise UsageError(
            f"there is no prompt set {str(name)!r}: neither a file nor one of those that clipaudit ships"
            f" ({', '.join(shipped)}). For select, 'auto' looks for a fitting one, 'none' uses plain templates."
        )
    return Path(name)


def load_prompts(path: Path) -> PromptSet:
    """Read a prompt file.

    Raises:
        PromptError: it is not TOML, a field is missing, unknown or of the wrong kind, or two classes share a name or
            alias.
    """
    try:
        return parse_prompts(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise PromptError(f"{path} cannot be opened: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not valid TOML: {error}.") from None


def parse_prompts(text: str, path: Path) -> PromptSet:
    """A prompt set from the text of its file; `path` is what errors name. Raises PromptError as `load_prompts` does."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PromptError(f"{path} is not valid TOML: {error}.") from None
    _refuse_unknown_keys(content, ("name", "description", "template", "classes"), f"{path}")
    template = _text(content, "template", f"{path}")
    try:
        template.format(name="", feature="")
    except (KeyError, IndexError, ValueError):
        raise PromptError(f"{path}: the template may contain {{name}} and {{feature}}, no other braces.") from None
    if "{name}" not in template or "{feature}" not in template:
        raise PromptError(f"{path}: the template must contain {{name}} and {{feature}}.")
    entries = content.get("classes")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise PromptError(f"{path} has no [[classes]].")
    classes = tuple(_read_class(entry, f"{path}, class {number}") for number, entry in enumerate(entries, start=1))
    _refuse_shared_names(classes, path)
    name = str(content.get("name") or path.stem)
    return PromptSet(name, str(content.get("description", "")), template, classes)


def _read_class(entry: Mapping[str, Any], where: str) -> PromptClass:
    name = _text(entry, "name", where)
    _refuse_unknown_keys(entry, ("name", "aliases", "features"), f"{where} ({name})")
    return PromptClass(
        name, _texts(entry, "aliases", f"{where} ({name})"), _texts(entry, "features", f"{where} ({name})")
    )


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise PromptError(f"{where}: {key!r} must be a text.")
    return value


def _texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise PromptError(f"{where}: {key!r} must be a list of texts, none of them empty.")
    return tuple(values)


def _refuse_unknown_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    # A misspelt key would silently leave a class without its features.
    for key in table:
        if key not in known:
            raise PromptError(f"{where}: unknown key {key!r}. Known are: {', '.join(known)}.")


def _refuse_shared_names(classes: Sequence[PromptClass], path: Path) -> None:
    owner: dict[str, str] = {}
    for entry in classes:
        for spelling in {normalise(spelling) for spelling in (entry.name, *entry.aliases)}:
            if spelling in owner:
                raise PromptError(
                    f"{path}: classes {owner[spelling]!r} and {entry.name!r} share the name {spelling!r}."
                )
            owner[spelling] = entry.name
