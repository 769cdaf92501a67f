"""What a person may say of a label, and what it does to the flags."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

RIGHT, RELABEL, DROP = "right", "relabel", "drop"
MARKS = (RIGHT, RELABEL, DROP)


def kept_by(marks: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """(n,) bool: a person keeps the sample, with the label that it has after the review; False where nobody looked.

    Args:
        marks: n strings: "right", "relabel", "drop", or null where nobody looked.
    """
    return np.asarray(pc.fill_null(pc.not_equal(marks, DROP), False).to_numpy(zero_copy_only=False))


def overrule(
    is_clean: NDArray[np.bool_], marks: pa.Array | pa.ChunkedArray, readable: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Flags after a review: a person's word beats every selector, but makes no image readable.

    Args:
        is_clean: (n,) what the selectors decided.
        marks: As `kept_by` takes them.
        readable: (n,) the image could be read.
    """
    marked = np.asarray(pc.is_valid(marks).to_numpy(zero_copy_only=False))
    return np.where(marked, kept_by(marks) & readable, is_clean)
