"""The gallery: how many samples it holds; which ones, the script's data say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipaudit.report.sections.base import Material
from clipaudit.report.wording import failing


@dataclass(frozen=True)
class Gallery:
    """What stands around the images.

    Attributes:
        n_top: Samples that are there as the most doubtful of all.
        n_shown: All that are there.
        n: Samples of the index.
        failing: How many verdicts a label can fail, and the same in words.
        n_off_topic: Samples that show none of the classes.
        has_truth: The audit's own errors can be chosen.
    """

    n_top: int
    n_shown: int
    n: int
    failing: Sequence[tuple[int, str]]
    n_off_topic: int
    has_truth: bool


def gallery(material: Material) -> Gallery:
    """The numbers of the gallery."""
    columns, choice = material.columns, material.choice
    options = failing(len(columns.failed))
    n_off_topic = int(columns.is_off_topic.sum())
    return Gallery(choice.n_top, len(choice.rows), len(columns), options, n_off_topic, material.truth is not None)
