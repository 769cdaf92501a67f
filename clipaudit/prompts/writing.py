"""Prompt files written by clipaudit: a template to fill in, and features put into a file that a person may have edited.

A file is never composed anew: what stands in it, comments included, stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from clipaudit.errors import PromptError
from clipaudit.files import check_output, write_atomically
from clipaudit.options.arguments import typed
from clipaudit.prompts.sets import (
    MAX_FILE_BYTES,
    PromptClass,
    PromptSet,
    parse_prompts,
    read_prompt_text,
    readable_name,
)
from clipaudit.remote import to_path
from clipaudit.samples import SourceOptions, open_source
from clipaudit.spelling import line_fault, normalise, tidy
from clipaudit.text import excerpt

TEMPLATE = "A photo of {name}, which {feature}."

_HOW_TO = """\
# What the classes look like, for clipaudit select --prompts {file}
#
# features: 6 to 10 a class, short, and only what a photograph shows: colour, shape, parts, pose, surroundings; not
#   taxonomy, lifespan or use. Each completes the sentence of the template, so it begins with a verb:
#     features = [
#       "has long black tufts on the tips of its ears",
#       "stands in deep snow",
#     ]
#   Where two classes look alike, write what tells them apart.
# template: the sentence. It contains {{name}} and {{feature}}, and no other braces.
# aliases: other spellings that labels have. Case, underscores and hyphens never matter.
#
# Then: clipaudit prompts check {file}
"""
_CLASS_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*classes[ \t]*\]\][^\n]*(?:\n|\Z)", re.MULTILINE)
_EMPTY_FEATURES = re.compile(r"^[ \t]*features[ \t]*=[ \t]*\[(?:\s|#[^\n]*\n)*\]", re.MULTILINE)


def source_classes(source: str | Path, options: SourceOptions | None = None) -> list[str]:
    """The class names of a source: those that it declares, in its order, else those of its labels, sorted.

    Raises:
        SourceError: nothing is there, or it has no labelled images.
        UsageError: a kind of file that is not known.
    """
    opened = open_source(source, options)
    if opened.class_names is not None:
        return list(opened.class_names)
    return sorted({sample.label for sample in opened.samples()})


@typed
def new_prompts(source: str | Path, out: str | Path, options: SourceOptions | None = None) -> PromptSet:
    """Write a prompt file with every class of a source, without features, and with comments on how to add them.

    Args:
        source: Labelled images, in any form that `open_source` reads.
        out: The TOML file to write.
        options: How to read the source.

    Raises:
        PromptError: the file exists already, or a class name cannot be written down.
        SourceError, UsageError: as `source_classes`.
    """
    out = to_path(out)
    check_output(out, [source])
    if is_there(out):
        raise PromptError(f"{out} exists already and is not overwritten. Remove it, or name another file with --out.")
    labels = source_classes(source, options)
    text, prompts = with_labels(*empty_file(source, out), labels)
    write_prompts(out, text, prompts)
    return prompts


def is_there(path: Path) -> bool:
    """Whether a file, a link or anything else has this name. PromptError where that cannot be found out."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise PromptError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.") from None
    return True


def empty_file(source: str | Path, out: Path) -> tuple[str, PromptSet]:
    """The text of a prompt file for a source before its first class, with how to fill it in; and the set it holds."""
    stem = readable_name(Path(source).resolve().stem)
    name = "prompts" if line_fault(stem) else stem
    prompts = PromptSet(name, f"The classes of {name}", TEMPLATE, ())
    keys = "".join(f"{key} = {_string(getattr(prompts, key))}\n" for key in ("name", "description", "template"))
    return f"{_HOW_TO.format(file=_one_line(out))}\n{keys}", prompts


def with_labels(text: str, prompts: PromptSet, labels: Sequence[str]) -> tuple[str, PromptSet]:
    """The text of a prompt file, and the set that it holds, with an empty class for every label that it lacks.

    Labels that only case, underscores or hyphens tell apart share a class.

    Raises:
        PromptError: a label has nothing in it that can be read.
    """
    added: dict[str, PromptClass] = {}
    for label, entry in zip(labels, prompts.match(labels), strict=True):
        fault = line_fault(tidy(label)) or (None if normalise(label) else "has no name that can be read")
        if fault:
            raise PromptError(f"the class {excerpt(label)} {fault}. Rename it, then run again.")
        if entry is None:
            added.setdefault(normalise(label), PromptClass(readable_name(label)))
    if not added:
        return text, prompts
    blocks = "".join(
        f"\n[[classes]]\nname = {_string(entry.name)}\naliases = []\n{_features(())}\n" for entry in added.values()
    )
    return text.rstrip("\n") + "\n" + blocks, replace(prompts, classes=(*prompts.classes, *added.values()))


def write_prompts(path: Path, text: str, expected: PromptSet) -> None:
    """Write the text of a prompt file, whole or not at all.

    A file that has this text already is not touched.

    Raises:
        PromptError: the text does not read as `expected`, so writing it would lose something; or it is too long to be
            read again.
    """
    if parse_prompts(text, path) != expected:
        raise PromptError(
            f"{path} is laid out in a way that clipaudit cannot add to without changing it."
            " Write every class as [[classes]] on a line of its own, with features = []."
        )
    data = text.encode()
    if len(data) > MAX_FILE_BYTES:
        raise PromptError(f"{path} would be larger than {MAX_FILE_BYTES:,} bytes. Shorten the class names or features.")
    if not is_there(path) or read_prompt_text(path) != text:
        write_atomically(path, data)


def with_features(text: str, prompts: PromptSet, name: str, features: Sequence[str]) -> tuple[str, PromptSet]:
    """The text of a prompt file with features for one class that has none, and the set that it then holds.

    Args:
        text: Of the file.
        prompts: What it holds.
        name: Of the class.
        features: To put in.
    """
    number = next(number for number, entry in enumerate(prompts.classes) if entry.name == name)
    filled = replace(prompts.classes[number], features=tuple(features))
    classes = (*prompts.classes[:number], filled, *prompts.classes[number + 1 :])
    headers = list(_CLASS_HEADER.finditer(text))
    if len(headers) != len(classes):
        # Written some other way (inline tables, say): `write_prompts` sees that the text lacks what was expected.
        return text, replace(prompts, classes=classes)
    begin = headers[number].end()
    end = headers[number + 1].start() if number + 1 < len(headers) else len(text)
    block, found = _EMPTY_FEATURES.subn(lambda _: _features(features), text[begin:end], count=1)
    if not found:
        block = f"{_features(features)}\n{text[begin:end]}"
    return text[:begin] + block + text[end:], replace(prompts, classes=classes)


def _features(features: Iterable[str]) -> str:
    lines = "".join(f"  {_string(feature)},\n" for feature in features)
    return f"features = [\n{lines}]" if lines else "features = []"


def _string(text: str) -> str:
    """A TOML basic string; whatever a reader or a terminal could not show is escaped."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _one_line(path: Path) -> str:
    return "".join(character if character.isprintable() else "?" for character in str(path))
