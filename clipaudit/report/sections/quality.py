"""Images that are dark, blurred or of an odd size: a reason to look at them, whatever their label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipaudit.report.sections.base import Material


@dataclass(frozen=True)
class Odd:
    """One issue: its name in the script's data, how many images have it, how many of these labels are in doubt."""

    name: str
    n: int
    n_in_doubt: int
    n_shown: int


@dataclass(frozen=True)
class Quality:
    """All issues, also those that no image has, and how many images have any."""

    n: int
    issues: Sequence[Odd]


def quality(material: Material) -> Quality | None:
    """The issues of the images, where these were measured and there are any."""
    columns, odd = material.columns, material.choice.odd
    if not odd:
        return None
    issues = [
        Odd(name, int(found.sum()), int((found & columns.in_doubt).sum()), len(odd.get(name, ())))
        for name, found in columns.quality.items()
    ]
    return Quality(int(np.any(list(columns.quality.values()), axis=0).sum()), issues)
