"""Documents of other programs, JSON and XML: bounded in size and depth, and XML without anything that expands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

from clipaudit.errors import SourceError
from clipaudit.files import read_bounded, require_file
from clipaudit.table_limit import VARIABLE, given_limit
from clipaudit.text import excerpt, printable

# The largest known one, COCO's train2017, has 450 MB. Python objects take a multiple of it.
MAX_BYTES = 512 << 20
# Far above what any tool writes: annotations, image, tag, attribute.
MAX_DEPTH = 32
_CHUNK = 1 << 16
_LIFT = f"To read it all the same, set the environment variable {VARIABLE} to a number of gigabytes."


class Element(NamedTuple):
    """The start or the end of an element.

    Attributes:
        name: Its tag.
        attributes: Those of a start; None at an end.
        depth: 0 for the root.
        line: Where it stands.
    """

    name: str
    attributes: Mapping[str, str] | None
    depth: int
    line: int


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        SourceError: it cannot be read, is too large, or is no JSON.
    """
    try:
        data = read_bounded(path, _limit(), SourceError)
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist.") from None
    try:
        return json.loads(data)
    # Also numbers of thousands of digits (ValueError) and brackets nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: not valid JSON ({printable(str(error))}). Export the file again.") from None
    except MemoryError:
        raise SourceError(f"{path} does not fit into the memory of this machine. Split the file.") from None


def xml_elements(path: Path) -> Iterator[Element]:
    """The starts and ends of all elements of an XML file, streamed; texts between them are passed over.

    Raises:
        SourceError: it cannot be read, is too large or too deep, is no XML, or declares a document type, through which
            a small file can stand for gigabytes or for other files.
    """
    found: list[Element] = []
    parser = expat.ParserCreate()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if depth >= MAX_DEPTH:
            raise SourceError(f"{path}, line {parser.CurrentLineNumber}: elements are nested deeper than {MAX_DEPTH}.")
        found.append(Element(name, attributes, depth, parser.CurrentLineNumber))
        depth += 1

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        found.append(Element(name, None, depth, parser.CurrentLineNumber))

    def refuse(*_: object) -> None:
        raise SourceError(
            f"{path}, line {parser.CurrentLineNumber}: the XML declares a document type (DOCTYPE), which labelling"
            " tools do not write and clipaudit does not read. Remove the declaration."
        )

    parser.StartElementHandler, parser.EndElementHandler, parser.StartDoctypeDeclHandler = start, end, refuse
    for data in _chunks(path):
        try:
            parser.Parse(data, not data)
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise SourceError(f"{path}: not valid XML ({printable(str(error))}). Export the file again.") from None
        yield from found
        found.clear()


def _chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, with an empty piece at its end."""
    try:
        require_file(path, SourceError)
        limit, read = _limit(), 0
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                read += len(data)
                if read > limit:
                    raise SourceError(f"{path} is larger than {limit:,} bytes. {_LIFT}")
                yield data
        yield b""
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist.") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from None


def _limit() -> int:
    given = given_limit()
    return MAX_BYTES if given is None else given


def field(content: Mapping[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field that has to be there, of a kind.

    Raises:
        SourceError: it is missing, or of another kind.
    """
    value = content.get(name)
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    what = f"is {excerpt(value)}, which is of another kind than" if name in content else "is missing, unlike in"
    raise SourceError(
        f"{where}: the field {name!r} {what} what the tool exports. Correct it, or export the file again."
    )


def objects(values: Any, what: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a list with their numbers, from 1; SourceError for what is none."""
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise SourceError(f"{where}, {what} {number:,}: {excerpt(value)} is no JSON object. Export the file again.")
        yield number, value
