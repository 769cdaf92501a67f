"""`write_report`: from a clean index to one HTML file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from clipaudit.errors import UsageError
from clipaudit.files import write_atomically
from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.options.kinds import COUNT
from clipaudit.remote import to_path
from clipaudit.report.choice import choose
from clipaudit.report.columns import read_columns, read_truth
from clipaudit.report.data import payload, samples
from clipaudit.report.page import render
from clipaudit.report.sections import SECTIONS, Material
from clipaudit.report.thumbnails import thumbnails
from clipaudit.samples.hugging_face import Dataset
from clipaudit.samples.reader import ImageReader

Theme = Literal["light", "dark", "auto"]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class ReportSummary:
    """What was written.

    Attributes:
        path: The HTML file.
        n_bytes: Its size.
        n_samples, n_in_doubt: Number of samples of the index, and of its labels in doubt.
        n_shown: Number of samples in the file.
        n_without_image: Number of these without a thumbnail, because the image could not be read now.
        reason: Why the first of them could not; None where all could.
    """

    path: Path
    n_bytes: int
    n_samples: int
    n_in_doubt: int
    n_shown: int
    n_without_image: int
    reason: str | None


@typed
def write_report(
    index: CleanIndex,
    out: str | Path,
    *,
    truth: str | Path | None = None,
    top: int = 200,
    theme: Theme = "auto",
    images: str | Path | Dataset | None = None,
    progress: Progress | None = None,
) -> ReportSummary:
    """Write an audit as one self-contained HTML file, with thumbnails; docs/report.md describes its content.

    Args:
        index: From `select` or `read_index`.
        out: The file; an existing one is replaced.
        truth: True labels, `FILE[:COLUMN]`: adds accuracy metrics and a list of the audit's mistakes.
        top: Number of most doubtful samples to show, at least.
        theme: "light", "dark", or "auto": as the reader's system has it. The page has a switch.
        images: Folder of the images, if they were moved.
        progress: Called with the name of each stage.

    Raises:
        SourceError: the true labels do not cover the samples.
        UsageError: `top` is out of range, the theme is unknown, or `out` is a file that is needed or no file at all.
        ClipAuditError: the file cannot be written.
    """
    top = COUNT.take("top", top)
    if theme not in get_args(Theme):
        raise UsageError(f"unknown theme {theme!r}. Choose {', '.join(get_args(Theme))}.")
    index.check_output(out, [index.file, truth])
    report = progress or (lambda _: None)
    report("counting")
    columns = read_columns(index)
    known = read_truth(index, truth) if truth is not None else None
    choice = choose(columns, top, known)
    ids = [str(value) for value in columns.strings("id", choice.rows)]
    reader = ImageReader(index.metadata, images)
    pictures = thumbnails(ids, reader.read, lambda done: report(f"thumbnails {done:,} of {len(ids):,}"))
    report("writing")
    data = payload(columns, choice, samples(columns, choice.rows, pictures, known))
    material = Material(columns, choice, known if columns.readable.any() else None)
    contents = [(section, content) for section in SECTIONS if (content := section.content(material)) is not None]
    page = render(Path(index.metadata.source).name, theme, contents, data).encode()
    write_atomically(to_path(out), page)
    missing = [picture.reason for picture in pictures if picture.reason]
    n_doubt = int(np.count_nonzero(columns.in_doubt))
    return ReportSummary(
        to_path(out), len(page), len(columns), n_doubt, len(ids), len(missing), missing[0] if missing else None
    )
