"""Class names by class index, for labels that are indices: what `--names` reads."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from pathlib import Path

from clipaudit.errors import SourceError
from clipaudit.files import read_bounded
from clipaudit.spelling import MAX_CLASSES, line_fault, tidy
from clipaudit.text import excerpt

MAX_FILE_BYTES = 16 << 20
_FORMS = 'one name a line, or JSON: ["cat", "dog"] or {"0": "cat", "1": "dog"}'


def read_names(path: str | Path) -> list[str]:
    """Class names by class index: a text file with one name a line, or JSON (a list, or an object {"0": name}).

    Blanks around a name and blank lines at the end do not count. The text is UTF-8, or UTF-16 where it begins with the
    mark of that.

    Returns:
        The names, tidied (`spelling.tidy`), no two alike.

    Raises:
        SourceError: the file cannot be read, is too large or of another form, a name comes twice or is none, or an
            index is missing.
    """
    path = Path(path)
    text = _read_text(path)
    # By its content: the lines of a JSON file would otherwise become names like '"cat",'.
    is_json = path.suffix.lower() == ".json" or text.lstrip().startswith(("[", "{"))
    entries = _json_entries(text, path) if is_json else _lines(text)
    if not entries:
        raise SourceError(f"{path} holds no class names.")
    if len(entries) > MAX_CLASSES:
        raise SourceError(f"{path} holds {len(entries):,} class names, more than {MAX_CLASSES:,}.")
    return checked_names(entries, f"{path}, class" if is_json else f"{path}, line", 0 if is_json else 1)


def checked_names(names: Iterable[object], place: str = "names, class", first: int = 0) -> list[str]:
    """Class names by class index, tidied; the same for a file and for a list that a caller gives.

    Args:
        names: What should be class names.
        place: What an error says before the number of a name.
        first: The number of the first one.

    Raises:
        SourceError: there are none; one of them is no text or no class name, or comes twice.
    """
    try:
        # A text is a list, too, of its characters.
        names = [] if isinstance(names, str | bytes) else list(names)
    except TypeError:
        names = []  # A number, or an array without dimensions, which says that it can be iterated and cannot.
    if not names:
        raise SourceError("there are no class names. Give a list of them, by class index.")
    places: dict[str, int] = {}
    for number, entry in enumerate(names, first):
        if not isinstance(entry, str):
            raise SourceError(f"{place} {number}: the class name is no text. Give {_FORMS}.")
        name = tidy(entry)
        if fault := line_fault(name):
            raise SourceError(f"{place} {number}: the class name {fault}.")
        if name in places:
            raise SourceError(f"{place} {number}: the class name {excerpt(name)} stands at {places[name]} already.")
        places[name] = number
    return list(places)


def _read_text(path: Path) -> str:
    try:
        data = read_bounded(path, MAX_FILE_BYTES, SourceError)
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist. Give the file with the class names: {_FORMS}.") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not a list of class names: {error}. Save it as UTF-8.") from None


def _lines(text: str) -> list[str]:
    # Not str.splitlines, which also breaks at characters that a name may hold.
    return re.split(r"\r\n|\r|\n", text.rstrip()) if text.strip() else []


def _json_entries(text: str, path: Path) -> list[object]:
    try:
        # Objects become tuples of pairs: a dict would forget a key that comes twice.
        content = json.loads(text, object_pairs_hook=tuple)
    except RecursionError:
        raise SourceError(f"{path} is not a list of class names: it is nested too deeply. Give {_FORMS}.") from None
    except ValueError as error:
        raise SourceError(f"{path} is not a list of class names: {error}. Give {_FORMS}.") from None
    if isinstance(content, list):
        return content
    if not isinstance(content, tuple):
        raise SourceError(f"{path} is not a list of class names. Give {_FORMS}.")
    by_index = dict(content)
    missing = next((index for index in range(len(content)) if str(index) not in by_index), None)
    if missing is not None:
        raise SourceError(
            f"{path}: there is no class name for index {missing} among {len(content):,} entries. Number the classes"
            " 0, 1, 2, ..., each once."
        )
    return [by_index[str(index)] for index in range(len(content))]
