"""The technical quality of images, as cleanvision measures and judges it: dark, blurred, of an odd size.

`embed` measures each image while it is decoded anyway; what counts as odd depends on all images, so `select` judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipaudit.errors import UsageError
from clipaudit.images.decoding import undecoded

# cleanvision's names: what it finds, and the numbers that it finds this by.
ISSUES = ("dark", "light", "blurry", "low_information", "odd_size", "odd_aspect_ratio")
MEASURES = (
    "brightness_perc_99",
    "brightness_perc_5",
    "blurriness",
    "blurriness_grayscale_std",
    "entropy",
    "size",
    "aspect_ratio",
)
# These two are about the file's own size, not about a picture that was decoded smaller.
_OF_THE_FILE = ("odd_size", "odd_aspect_ratio")
# A larger picture is measured at half its size, a third, ...: percentiles and entropy stay, the time does not.
MAX_MEASURED_PIXELS = 512 * 512

Measures = Mapping[str, float]


def flag_column(issue: str) -> str:
    """The column of an index that says whether an image has an issue, named as cleanvision does."""
    return f"is_{issue}_issue"


def score_column(issue: str) -> str:
    """The column of an index with cleanvision's score of it, 0 (bad) to 1."""
    return f"{issue}_score"


def measurer() -> Callable[[bytes, Image.Image], Measures]:
    """The function that gives the MEASURES of an image file and of the RGB picture that was decoded from it.

    Raises:
        UsageError: cleanvision is not installed.
    """
    properties = _manager().image_properties

    def measure(data: bytes, picture: Image.Image) -> Measures:
        factor = 1
        while picture.width * picture.height > MAX_MEASURED_PIXELS * factor**2:
            factor += 1
        small = picture.reduce(factor) if factor > 1 else picture
        found: dict[str, float] = {}
        with undecoded(data) as file:
            for issue in ISSUES:
                found |= properties[issue].calculate(file if issue in _OF_THE_FILE else small)
        return {name: float(found[name]) for name in MEASURES}

    return measure


@dataclass(frozen=True)
class QualityIssues:
    """What cleanvision finds odd among m images, by its default thresholds.

    Attributes:
        found: Of each of the ISSUES, (m,) bool.
        score: Of each, (m,) float32 in [0, 1], low where it is odd.
        measured: (m,) bool; the others were embedded without being measured, and nothing is said of them.
    """

    found: Mapping[str, NDArray[np.bool_]]
    score: Mapping[str, NDArray[np.float32]]
    measured: NDArray[np.bool_]


def quality_issues(measures: Mapping[str, NDArray[np.float64]], measured: NDArray[np.bool_]) -> QualityIssues:
    """Judge images.

    Args:
        measures: Of each of the MEASURES, (m,) numbers.
        measured: (m,) bool, those that have numbers; at least one.

    Raises:
        UsageError: cleanvision is not installed.
    """
    import pandas as pd

    manager = _manager()
    frame = pd.DataFrame({name: values[measured] for name, values in measures.items()})
    found, score = {}, {}
    for issue in ISSUES:
        judge, settings = manager.image_properties[issue], manager.params[issue]
        scores = judge.get_scores(frame[judge.score_columns], issue, **settings)
        flags = judge.mark_issue(scores, issue, settings.get("threshold"))
        found[issue], score[issue] = np.zeros(len(measured), bool), np.zeros(len(measured), np.float32)
        found[issue][measured] = flags[flag_column(issue)]
        score[issue][measured] = scores[score_column(issue)]
    return QualityIssues(found, score, measured)


def has_cleanvision() -> bool:
    """Whether quality can be measured and judged here."""
    try:
        _manager()
    except UsageError:
        return False
    return True


@cache
def _manager() -> Any:
    try:
        from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager
    except ImportError:
        raise UsageError("image quality needs cleanvision: pip install 'clipaudit[quality]'") from None
    return ImagePropertyIssueManager()
