"""The page on which a person looks at drawn labels, one after the other, with the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.errors import UsageError
from clipaudit.files import write_atomically
from clipaudit.index.clean_index import CleanIndex
from clipaudit.report.columns import read_columns
from clipaudit.report.page import render_page
from clipaudit.report.thumbnails import Thumbnail, thumbnails
from clipaudit.samples.hugging_face import Dataset
from clipaudit.samples.reader import ImageReader

Theme = Literal["light", "dark", "auto"]
# One image at a time fills the screen: larger and better than in the report's gallery.
EDGE, QUALITY = 512, 80


@dataclass(frozen=True)
class ReviewPage:
    """What was written.

    Attributes:
        path: The HTML file.
        n_bytes: Its size.
        n_shown: Samples on it.
        n_without_image: Of these, samples whose image could not be read now.
        reason: Why the first of them could not; None where all could.
    """

    path: Path
    n_bytes: int
    n_shown: int
    n_without_image: int
    reason: str | None


def write_review_page(
    index: CleanIndex,
    rows: NDArray[np.int64],
    out: Path,
    *,
    show_suggestions: bool = False,
    theme: Theme = "auto",
    images: str | Path | Dataset | None = None,
    progress: Callable[[str], None] | None = None,
) -> ReviewPage:
    """Write the page; it says nothing of what the audit thinks of a label until the person has judged it.

    Args:
        index: The samples'.
        rows: (m,) int64, the readable samples to show, in this order.
        out: The HTML file; an existing one is replaced.
        show_suggestions: Show the suggested label at once.
        theme: "light", "dark" or "auto".
        images: Folder of the images, if they were moved.
        progress: Called with the name of each stage.

    Raises:
        UsageError: the theme is unknown, or `out` is a file that is needed or no file at all.
        ClipAuditError: the file cannot be written.
    """
    if theme not in get_args(Theme):
        raise UsageError(f"unknown theme {theme!r}. Choose {', '.join(get_args(Theme))}.")
    index.check_output(out, [index.file])
    report = progress or (lambda _: None)
    ids: list[str] = index.table["id"].take(pa.array(rows)).to_pylist()
    reader = ImageReader(index.metadata, images)
    pictures = thumbnails(
        ids, reader.read, lambda done: report(f"images {done:,} of {len(ids):,}"), edge=EDGE, quality=QUALITY
    )
    title = Path(index.metadata.source).name
    data = _data(index, rows, ids, pictures, show_suggestions)
    page = render_page("review", ("review.js",), title, theme, data).encode()
    write_atomically(out, page)
    missing = [picture.reason for picture in pictures if picture.reason]
    return ReviewPage(out, len(page), len(ids), len(missing), missing[0] if missing else None)


def _data(
    index: CleanIndex, rows: NDArray[np.int64], ids: list[str], pictures: list[Thumbnail], show_suggestions: bool
) -> dict[str, Any]:
    """What the script reads."""
    columns = read_columns(index)
    samples = [
        {
            "id": sample_id,
            "given": int(columns.labels[row]),
            "suggested": int(columns.suggested[row]),
            "image": picture.uri,
            "size": [picture.width, picture.height],
            "missing": picture.reason,
        }
        for row, sample_id, picture in zip(rows.tolist(), ids, pictures, strict=True)
    ]
    content = "\0".join([*ids, *(index.class_names[k] for k in columns.labels[rows].tolist())])
    return {
        "key": f"review-{sha256(content.encode()).hexdigest()[:16]}",
        "classes": index.class_names,
        "samples": samples,
        "showSuggestions": show_suggestions,
    }
