"""The forms of export. Another one is its own file with a `Format` in it, and its row here."""

from __future__ import annotations

from pathlib import Path

from clipaudit.errors import UsageError
from clipaudit.exports.base import Format
from clipaudit.exports.coco import COCO
from clipaudit.exports.cvat import CVAT
from clipaudit.exports.fiftyone import FIFTYONE
from clipaudit.exports.hugging_face import HUGGING_FACE
from clipaudit.exports.label_studio import LABEL_STUDIO
from clipaudit.exports.lists import LINKS, NPY, TXT
from clipaudit.exports.tables import CSV, JSONL
from clipaudit.options.shared import EXPORT_FORMAT

FORMATS: tuple[Format, ...] = (CSV, JSONL, TXT, NPY, LABEL_STUDIO, CVAT, COCO, FIFTYONE, HUGGING_FACE, LINKS)


def ending_of(name: str) -> str:
    """Of the files of a format that has a name; UsageError where there is none."""
    name = EXPORT_FORMAT.take(name)
    return next(form.ending for form in FORMATS if form.name == name)


def format_of(path: Path, name: str | None = None) -> Format:
    """The form that a name or, without one, an ending means.

    Raises:
        UsageError: there is no such form or ending, they do not go together, or several forms have the ending.
    """
    ending = path.suffix.lower()
    if name is not None:
        if ending != (wanted := ending_of(name)):
            where = f"a file with the ending {wanted}" if wanted else "a folder, whose name has no ending"
            raise UsageError(f"{path}: {name} is written into {where}.")
        return next(form for form in FORMATS if form.name == name)
    fitting = [form for form in FORMATS if form.ending == ending]
    if told := [form for form in fitting if form.told]:
        return told[0]
    if fitting:
        names = " or ".join(form.name for form in fitting)
        raise UsageError(f"{path}: {ending} may be {names}. Say which one: --export-format")
    *others, links = (f"{form.ending} ({form.words})" for form in FORMATS if form.told)
    raise UsageError(
        f"{path}: exports end in {', '.join(others)}, or in .json with --export-format; a name without an ending makes"
        f" {links.strip(' ()')}."
    )
