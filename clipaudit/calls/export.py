"""The clean index in the forms that other pipelines take."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clipaudit.errors import UsageError
from clipaudit.exports.formats import format_of
from clipaudit.exports.tables import CSV, write_csv
from clipaudit.files import check_folder, check_output
from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.remote import to_path


@typed
def export(index: CleanIndex, path: str | Path, *, raw: bool = False, format: str | None = None) -> list[str]:  # noqa: A002
    """Write an index in the form that the file's ending or a format names.

    `.csv` and `.jsonl` hold all rows and columns; `.txt` the paths of the clean samples, one a line (their ids, where
    the images are no files of their own); `.npy` their row numbers (int64). A path without an ending becomes a folder
    with a link to each clean image, a subfolder a class. For labelling tools, `.xml` holds tags as CVAT takes them, and
    `.json` what the format says: "label-studio" (tasks with the suggested labels as predictions, the most doubtful
    first), "coco" or "fiftyone" (the labels.json of a classification data set). "huggingface" makes a folder that
    `datasets` loads, with the images, the labels as class indices, and the other columns of the index.

    Args:
        index: From `select`, `read_index` or `apply_marks`.
        path: The file or folder; a file is replaced.
        raw: Of `.csv`: write text as it is. Otherwise a text that a spreadsheet would take for a formula (it begins
            with =, +, -, @ or a tab) gets an apostrophe in front, which all that reads tables in clipaudit undoes.
        format: "label-studio", "cvat", "coco", "fiftyone" or "huggingface"; None takes the one that the ending names.

    Returns:
        What the user should know, in sentences: images that are gone, and have no link.

    Raises:
        UsageError: another ending or format; a form that names files, of images that are rows of a Parquet file; a file
            that is needed, or that is no regular one.
        ClipAuditError: the file cannot be written, the folder exists, or no image is there to be linked.
    """
    path = to_path(path)
    check_export(path, [index.file], format=format)
    form = format_of(path, format)
    if raw and form != CSV:
        raise UsageError(f"{path}: raw text is a choice for .csv alone; the other forms hold no formulas.")
    if form.ending:
        index.check_output(path)
    return write_csv(index, path, raw=True) if raw else form.write(index, path)


def check_export(path: str | Path, inputs: Iterable[str | Path | None] = (), *, format: str | None = None) -> None:  # noqa: A002
    """Refuse an export that cannot be made, as far as its name tells, before any work is done.

    Args:
        path: As `export` takes it.
        inputs: What the same call reads or writes, too.
        format: As `export` takes it.

    Raises:
        UsageError, ClipAuditError: as `export`.
    """
    (check_output if format_of(to_path(path), format).ending else check_folder)(path, inputs)
