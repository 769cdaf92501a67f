"""`review`: which labels a person should look at, so that the marks speak for all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipaudit.certainty.survey import draw
from clipaudit.errors import UsageError
from clipaudit.files import write_atomically
from clipaudit.index.building import with_column
from clipaudit.index.check import REVIEW_CHANCE
from clipaudit.index.clean_index import CleanIndex
from clipaudit.options.arguments import typed
from clipaudit.options.shared import BUDGET, REVIEW_SEED
from clipaudit.remote import to_path
from clipaudit.report.review_page import ReviewPage, Theme, write_review_page
from clipaudit.reviews.marks_file import COLUMNS
from clipaudit.reviews.survey import surveyed
from clipaudit.samples.hugging_face import Dataset
from clipaudit.text import escape_formulas

PAGE, QUEUE = "review.html", "queue.csv"


@dataclass(frozen=True)
class Queue:
    """Samples to review.

    Attributes:
        index: The index, in whose column `review_chance` the drawn samples have their chance. Write it: marks applied
            to an index without it do not count as drawn by chance.
        rows: (m,) int64, the samples' rows, in random order.
    """

    index: CleanIndex
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of samples to review."""
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        """The samples' ids, in the same order."""
        taken: list[str] = self.index.table["id"].take(pa.array(self.rows)).to_pylist()
        return taken

    @typed
    def check_outputs(self, folder: str | Path) -> None:
        """Refuse a folder that `write` cannot write to.

        Raises:
            UsageError, ClipAuditError: as `write`.
        """
        for name in (PAGE, QUEUE):
            self.index.check_output(to_path(folder) / name, [self.index.file])
        if _is_filled_in(to_path(folder) / QUEUE):
            raise UsageError(
                f"{to_path(folder) / QUEUE} is filled in already. Apply its marks, and name another folder."
            )

    @typed
    def write(
        self,
        folder: str | Path,
        *,
        show_suggestions: bool = False,
        theme: Theme = "auto",
        images: str | Path | Dataset | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> ReviewPage:
        """Write `review.html`, the page to mark them on, and `queue.csv`, a table to fill in instead.

        Args:
            folder: It is made where it is missing; files of these names in it are replaced.
            show_suggestions: Show the suggested label before the mark is set.
            theme: "light", "dark", or "auto": as the reader's system has it.
            images: Folder of the images, if they were moved.
            progress: Called with the name of each stage.

        Raises:
            UsageError, ClipAuditError: something cannot be written, or would replace an input or a queue that is filled
                in.
        """
        place = to_path(folder)
        self.check_outputs(place)
        page = write_review_page(
            self.index,
            self.rows,
            place / PAGE,
            show_suggestions=show_suggestions,
            theme=theme,
            images=images,
            progress=progress,
        )
        escaped = escape_formulas(pa.chunked_array([self.ids], pa.string())).to_pylist()
        lines = io.StringIO(newline="")
        csv.writer(lines).writerows([COLUMNS, *((name, "", "") for name in escaped)])
        write_atomically(place / QUEUE, lines.getvalue().encode())
        return page


@typed
def review(index: CleanIndex, *, budget: int = 100, seed: int = 0) -> Queue:
    """Draw labels for a person to look at, where a mark teaches most; each has a known chance above zero.

    Reviewed samples are not drawn again. On an index with a review, the next marks are drawn where they help most.

    Args:
        index: From `select`, `apply_marks` or `read_index`.
        budget: Number of samples, at most; there may be fewer that nobody has marked.
        seed: Another seed draws other samples.

    Raises:
        UsageError: `budget` or `seed` is out of range, or every readable sample is marked; or none is readable.
    """
    budget, seed = BUDGET.take(budget), REVIEW_SEED.take(seed)
    held, generator = surveyed(index), np.random.default_rng(seed)
    unseen = held.found.marks.unseen(held.same)
    if not len(unseen):
        raise UsageError("every sample whose image could be read has a mark: there is nothing left to review.")
    drawn, chance = draw(held.found, unseen, held.ranking, held.labels, len(index.class_names), budget, generator)
    rows = np.flatnonzero(index.readable)[drawn]
    return Queue(_with_chances(index, rows, chance), generator.permutation(rows))


def _is_filled_in(queue: Path) -> bool:
    """The file exists, and is more than a queue without marks."""
    if not queue.exists():
        return False
    with queue.open(newline="", encoding="utf-8", errors="replace") as file:
        header, *rows = [*csv.reader(file)] or [[]]
    return tuple(header) != COLUMNS or any("".join(row[1:]).strip() for row in rows)


def _with_chances(index: CleanIndex, rows: NDArray[np.int64], chance: NDArray[np.float64]) -> CleanIndex:
    """The chance to be drawn now; a sample drawn before had two chances."""
    before = np.zeros(len(index))
    if REVIEW_CHANCE in index.table.column_names:
        before = np.nan_to_num(index.table[REVIEW_CHANCE].to_numpy())
    now = before.copy()
    now[rows] = 1 - (1 - before[rows]) * (1 - chance)
    column = pa.array(now, mask=now == 0)
    return CleanIndex(with_column(index.table, REVIEW_CHANCE, column), index.metadata, index.file)
