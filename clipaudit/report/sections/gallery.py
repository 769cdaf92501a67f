"""The gallery: how many samples it holds; which ones, the script's data say."""

from __future__ import annotations

from dataclasses import dataclass

from clipaudit.report.sections.base import Material


@dataclass(frozen=True)
class Gallery:
    """What stands around the images.

    Attributes:
        n_top: Samples that are there as the most doubtful of all.
        n_shown: All that are there.
        n: Samples of the index.
        has_truth: The audit's own errors can be chosen.
    """

    n_top: int
    n_shown: int
    n: int
    has_truth: bool


def gallery(material: Material) -> Gallery:
    """The numbers of the gallery."""
    choice = material.choice
    return Gallery(choice.n_top, len(choice.rows), len(material.columns), material.truth is not None)
