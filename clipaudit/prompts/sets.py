"""Prompt sets: what the classes of a data set look like, in words (eq. 3).

One readable TOML file a data set, shipped in `prompts/`:

    name = "digits"
    description = "Handwritten digits"
    template = "A photo of {name}, which {feature}."

    [[classes]]
    name = "zero"
    aliases = ["0"]
    features = ["is a single closed oval", "has an empty middle"]

A prompt file may come from a stranger. It is data: a template knows `{name}` and `{feature}` and has no other braces,
and every size has a bound.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipaudit.errors import PromptError, UsageError
from clipaudit.files import read_bounded, require_file
from clipaudit.spelling import MAX_CLASSES, Spellings, line_fault, normalise, tidy
from clipaudit.text import excerpt

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What a class without features is described by.
PLAIN_TEMPLATES = ("A photo of a {name}.", "A picture of a {name}.", "An image that shows a {name}.")
# In a wheel the sets lie inside the package, in a checkout at its top.
_FOLDERS = (Path(__file__).parents[1] / "prompt_sets", Path(__file__).parents[2] / "prompts")
# Ten features for each of 10,000 classes need 7 MB, and 10 million characters of prompts.
MAX_FILE_BYTES = 8 << 20
MAX_TEXTS = 1_000
MAX_PROMPT_CHARACTERS = 100_000_000
_FIELD = re.compile(r"\{(name|feature)\}")
# The TOML reader takes hours for a key of a million parts (a.a.a...); a prompt file needs no such keys.
_LONG_KEY = re.compile(r"""(?<![\w"'-])(?:(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){16}""")


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
        """The class of the set that each name or alias means; None where there is none, or where several could be."""
        owners = [(spelling, entry) for entry in self.classes for spelling in _spellings(entry)]
        known = Spellings([spelling for spelling, _ in owners])
        found = map(known.find, class_names)
        return [None if number is None else owners[number][1] for number in found]

    def spellings(self, class_names: Sequence[str]) -> list[str]:
        """These names and whatever else the set calls the same classes."""
        known = [spelling for entry in self.match(class_names) if entry for spelling in _spellings(entry)]
        return [*class_names, *known]

    def texts(self, entry: PromptClass) -> tuple[str, ...]:
        """The prompts of one class: one a feature, or the plain templates where it has none."""
        if entry.features:
            return tuple(fill(self.template, entry.name, feature) for feature in entry.features)
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
    return tuple(fill(template, name) for template in PLAIN_TEMPLATES)


def fill(template: str, name: str, feature: str = "") -> str:
    """A template with its fields replaced, once: braces inside a name or a feature are text like any other."""
    values = {"name": name, "feature": feature}
    return _FIELD.sub(lambda field: values[field[1]], template)


def readable_name(label: str) -> str:
    """A label as it is written in a sentence: underscores become blanks."""
    return tidy(label.replace("_", " ")) or label


def prompts_folder() -> Path:
    """Where the words that come with clipaudit lie."""
    return next(folder for folder in _FOLDERS if folder.is_dir())


def shipped_prompt_sets() -> dict[str, Path]:
    """The files of all prompt sets that come with clipaudit, by name."""
    return {file.stem: file for file in sorted(prompts_folder().glob("*.toml"))}


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
    """The file of a prompt set: a shipped one by name, else the file of that name.

    Raises:
        UsageError: there is none.
        PromptError: it is a folder, device or pipe, or may not be read.
    """
    shipped = shipped_prompt_sets()
    if str(name) in shipped:
        return shipped[str(name)]
    try:
        require_file(Path(name), PromptError)
    except FileNotFoundError:
        raise UsageError(
            f"there is no prompt set {str(name)!r}: neither a file nor one of those that clipaudit ships"
            f" ({', '.join(shipped)}). For select, 'auto' looks for a fitting one, 'none' uses plain templates."
        ) from None
    return Path(name)


def load_prompts(path: Path) -> PromptSet:
    """Read a prompt file.

    Raises:
        PromptError: it is no regular file, too large or not TOML, a field is missing, unknown or of the wrong kind, or
            two classes share a name or alias.
    """
    return parse_prompts(read_prompt_text(path), path)


def read_prompt_text(path: Path) -> str:
    """The text of a prompt file, line ends as they are. Raises PromptError as `load_prompts` does."""
    try:
        return read_bounded(path, MAX_FILE_BYTES, PromptError).decode("utf-8-sig")
    except FileNotFoundError:
        raise PromptError(f"{path} does not exist.") from None
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not valid TOML, which is always UTF-8: {error}.") from None


def parse_prompts(text: str, path: Path) -> PromptSet:
    """A prompt set from the text of its file; `path` is what errors name. Raises PromptError as `load_prompts` does."""
    content = _parse_toml(text, path)
    _refuse_unknown_keys(content, ("name", "description", "template", "classes"), f"{path}")
    template = _text(content, "template", f"{path}")
    if re.search(r"[{}]", _FIELD.sub("", template)):
        raise PromptError(f"{path}: the template may contain {{name}} and {{feature}}, no other braces.")
    if "{name}" not in template or "{feature}" not in template:
        raise PromptError(f"{path}: the template must contain {{name}} and {{feature}}.")
    entries = content.get("classes")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise PromptError(f"{path} has no [[classes]].")
    if len(entries) > MAX_CLASSES:
        raise PromptError(f"{path} has {len(entries):,} classes, more than {MAX_CLASSES:,}.")
    classes = tuple(_read_class(entry, f"{path}, class {number}") for number, entry in enumerate(entries, start=1))
    _refuse_shared_names(classes, path)
    if (characters := _prompt_characters(template, classes)) > MAX_PROMPT_CHARACTERS:
        raise PromptError(
            f"{path}: its prompts have {characters:,} characters together, more than {MAX_PROMPT_CHARACTERS:,}."
            " Shorten the template, the names or the lists of features."
        )
    name = _text(content, "name", f"{path}") if "name" in content else path.stem
    description = content.get("description", "")
    if not isinstance(description, str):
        raise PromptError(f"{path}: 'description' must be a text.")
    return PromptSet(name, description, template, classes)


def _parse_toml(text: str, path: Path) -> dict[str, Any]:
    if _LONG_KEY.search(text):
        raise PromptError(f"{path} is no prompt file: it has a dotted key of more than 16 parts.")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise PromptError(f"{path} is no prompt file: lists or tables are nested too deeply.") from None
    except ValueError as error:  # TOMLDecodeError, and what int() raises for a number of thousands of digits.
        raise PromptError(f"{path} is not valid TOML: {str(error)[:200]}.") from None


def _read_class(entry: Mapping[str, Any], where: str) -> PromptClass:
    name = tidy(_text(entry, "name", where))
    where = f"{where} ({excerpt(name)})"
    _refuse_unknown_keys(entry, ("name", "aliases", "features"), where)
    aliases = tuple(map(tidy, _texts(entry, "aliases", where)))
    for spelling in (name, *aliases):
        if not normalise(spelling):
            raise PromptError(f"{where}: {spelling!r} is no name that can be read. Write letters or digits.")
    return PromptClass(name, aliases, _texts(entry, "features", where))


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise PromptError(f"{where}: {key!r} must be a text.")
    if fault := line_fault(value):
        raise PromptError(f"{where}: {key!r} {fault}.")
    return value


def _texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise PromptError(f"{where}: {key!r} must be a list of texts, none of them empty.")
    if len(values) > MAX_TEXTS:
        raise PromptError(f"{where}: {key!r} has {len(values):,} texts, more than {MAX_TEXTS:,}.")
    for number, value in enumerate(values, start=1):
        if fault := line_fault(value):
            raise PromptError(f"{where}: text {number} of {key!r} {fault}.")
    return tuple(values)


def _refuse_unknown_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    # A misspelt key would silently leave a class without its features.
    for key in table:
        if key not in known:
            raise PromptError(f"{where}: unknown key {excerpt(key)}. Known are: {', '.join(known)}.")


def _refuse_shared_names(classes: Sequence[PromptClass], path: Path) -> None:
    owner: dict[str, str] = {}
    for entry in classes:
        for spelling in map(normalise, _spellings(entry)):
            if spelling in owner:
                raise PromptError(
                    f"{path}: classes {excerpt(owner[spelling])} and {excerpt(entry.name)} share the name"
                    f" {excerpt(spelling)}."
                )
            owner[spelling] = entry.name


def _spellings(entry: PromptClass) -> Iterator[str]:
    """The name and aliases of a class, without those that mean the same anyway."""
    yield from {normalise(spelling): spelling for spelling in (*entry.aliases, entry.name)}.values()


def _prompt_characters(template: str, classes: Sequence[PromptClass]) -> int:
    """Characters of all prompts together, counted without making them."""
    names, features, bare = template.count("{name}"), template.count("{feature}"), len(_FIELD.sub("", template))
    return sum(
        len(entry.features) * (bare + names * len(entry.name)) + features * sum(map(len, entry.features))
        for entry in classes
    )
