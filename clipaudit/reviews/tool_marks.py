"""What labelling tools export after a review there, as marks: the label given there, where it is another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipaudit.errors import SourceError, UsageError
from clipaudit.index.clean_index import CleanIndex
from clipaudit.index.marks import RELABEL, RIGHT
from clipaudit.remote import to_path
from clipaudit.reviews.marks_file import Mark, MarksFile
from clipaudit.samples.annotations import Annotated, Images, PassedOver
from clipaudit.samples.base import CROPS, relative_id
from clipaudit.samples.cvat import cvat_images
from clipaudit.samples.documents import read_json
from clipaudit.samples.label_studio import FORM, Tasks, has_tasks
from clipaudit.samples.locations import Locations
from clipaudit.samples.matching import NONE, Matcher
from clipaudit.samples.reader import access_of
from clipaudit.text import excerpt

_FOLDERS = ("images", "media", "data")


@dataclass(frozen=True)
class _Answer:
    """A label that a file gives to a sample; `submitted` where a person gave it after the audit, the same or not."""

    where: str
    key: str
    label: str
    submitted: bool


def _label_studio(path: Path) -> Images:
    tasks = read_json(path)
    if not has_tasks(tasks):
        raise SourceError(f"{path} is no export of Label Studio. Export the project there as JSON, not as JSON-MIN.")
    return Tasks(path, tasks).images


def _cvat(path: Path) -> Images:
    return lambda passed: cvat_images(path, passed)


# By ending: how to read the file. CVAT does not say whether a person has looked at an image, Label Studio does.
_READERS: dict[str, Callable[[Path], Images]] = {".json": _label_studio, ".xml": _cvat}
_SUBMITS = (".json",)
TOOL_SUFFIXES = tuple(_READERS)


def tool_marks(path: Path, index: CleanIndex) -> MarksFile:
    """The marks in an export of Label Studio (.json) or CVAT for images (.xml).

    A sample with another label there is relabelled. One whose label was left as it was is right where the tool says
    that somebody submitted an annotation; else it has no mark.

    Raises:
        SourceError: the file cannot be read, an image has several labels or one that the index does not know, none is
            in the index, or nothing was changed or confirmed; the message names file and image.
    """
    passed, suffix = PassedOver(), path.suffix.lower()
    images = _READERS[suffix](path)
    # Where the labels that were audited are those of this tool, its annotations may be older than the audit.
    from_there = index.metadata.decided.get("source", "").startswith(FORM)
    new = suffix in _SUBMITS and not from_there
    answers = list(_answers(images, index, new, suffix in _SUBMITS, passed))
    matcher = Matcher(index.table["id"].to_pylist(), to_path(index.metadata.root), path.resolve().parent)
    match = matcher.match([answer.key for answer in answers])
    if answers and not match.n_samples:
        raise SourceError(
            f"{answers[0].where}: the index has no sample {excerpt(answers[0].key)}, nor any other of the"
            f" {len(answers):,} in this file. Apply it to the index that was exported."
        )
    marks = _marks(answers, match.numbers, index, passed)
    notes = [f"{path.name}: {note}" for note in passed.notes()]
    if not marks:
        raise SourceError(
            f"{path} holds no marks: no label was changed or confirmed ({'; '.join(notes) or 'no labels'})."
        )
    notes += [f"{path.name}: ids matched {match.note}"] if match.note else []
    return MarksFile(path, marks, tuple(notes))


def _marks(answers: Sequence[_Answer], rows: Sequence[int], index: CleanIndex, passed: PassedOver) -> dict[int, Mark]:
    """The marks by rows of the index, of answers about the samples in `rows`."""
    said: dict[int, tuple[str, int]] = {}
    own, marks = index.labels(), dict[int, Mark]()
    for answer, row in zip(answers, rows, strict=True):
        if row == NONE:
            passed.add("label(s) of images that the index does not have passed over", answer.where)
            continue
        label = _class(answer, index)
        where, earlier = said.setdefault(row, (answer.where, label))
        if earlier != label:
            what = excerpt(answer.key)
            raise SourceError(f"{answer.where}: {what} has another label in {where}. Keep one of the two.")
        if label != own[row]:
            marks[row] = Mark(answer.key, RELABEL, label, answer.where)
        elif answer.submitted:
            marks[row] = Mark(answer.key, RIGHT, -1, answer.where)
        else:
            passed.add("label(s) as they were, which nobody confirmed and get no mark", answer.where)
    return marks


def _answers(images: Images, index: CleanIndex, new: bool, submits: bool, passed: PassedOver) -> Iterator[_Answer]:
    """All labels of a file, of images or, where the index is of boxes, of boxes."""
    root = to_path(index.metadata.root)
    boxed = access_of(index.metadata) == CROPS
    places = Locations(root, _FOLDERS, images(PassedOver()))
    for image in images(passed):
        key = image.key or relative_id(root, places.of(image))
        submitted = new or (submits and bool(image.key))
        if boxed:
            boxes = {box.name: str(box.label) for box in image.boxes}
            yield from (_Answer(image.where, f"{key}#{name}", label, submitted) for name, label in boxes.items())
        elif len(image.labels) > 1:
            raise SourceError(f"{image.where}: {excerpt(image.path)} has {_listed(image)}. Keep one label an image.")
        elif image.labels:
            yield _Answer(image.where, key, str(image.labels[0]), submitted)
        else:
            passed.add("image(s) without a label passed over", image.where)


def _listed(image: Annotated) -> str:
    return f"{len(image.labels):,} labels: {excerpt(', '.join(map(str, image.labels)))}"


def _class(answer: _Answer, index: CleanIndex) -> int:
    try:
        return index.class_index(answer.label)
    except UsageError as error:
        raise SourceError(f"{answer.where}: {error}") from None
