"""The digits that the demo audits, and the other digits that its model was trained on.

Scikit-learn bundles 1,797 handwritten digits (Alpaydin and Kaynak, UCI, 1998). Their labels repeat one sequence
fourteen times: fourteen copies of one form, filled in one after the other. The split falls between two forms, so that
no form gives digits to both sides; with thirteen writers, at most one of them can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Side of a picture in pixels: what the demo's model reads, and large enough for people.
PICTURE_SIZE = 32
# The first six forms.
_TRAIN_ROWS = 776
# The darkest pixel of scikit-learn's digits; 0 is bare paper.
_FULL_INK = 16


@dataclass(frozen=True)
class DigitsSplit:
    """Dark ink (0) on white paper (255), with each digit's value as its label.

    Images are `(n, 8, 8) uint8`, labels `(n,) int64` in 0..9: 776 digits to train on, 1,021 to audit.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    audit_images: NDArray[np.uint8]
    audit_labels: NDArray[np.int64]


def load_split() -> DigitsSplit:
    """Scikit-learn's digits in their own order: the first six forms to train on, the other eight to audit."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(255 * (1 - digits.images / _FULL_INK)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    return DigitsSplit(
        train_images=images[:_TRAIN_ROWS],
        train_labels=labels[:_TRAIN_ROWS],
        audit_images=images[_TRAIN_ROWS:],
        audit_labels=labels[_TRAIN_ROWS:],
    )


def as_picture(image: NDArray[np.uint8]) -> Image.Image:
    """Enlarge one `(8, 8) uint8` digit to a grey picture of 32 x 32 pixels, smooth enough to read."""
    from PIL import Image

    return Image.fromarray(image).resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BICUBIC)
