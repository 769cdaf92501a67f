"""What a person may say of a label, and what it does to the flags."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# "unsure": the person looked and cannot tell, which settles nothing.
RIGHT, RELABEL, DROP, UNSURE = "right", "relabel", "drop", "unsure"
MARKS = (RIGHT, RELABEL, DROP, UNSURE)

Strings: TypeAlias = "pa.Array | pa.ChunkedArray"


def _is(marks: Strings, *words: str) -> NDArray[np.bool_]:
    return np.asarray(pc.is_in(marks, pa.array(words, pa.string())).to_numpy(zero_copy_only=False))


def settled_by(marks: Strings) -> NDArray[np.bool_]:
    """(n,) bool: a person has decided about the sample.

    Args:
        marks: n strings, each one of MARKS, or null where nobody looked.
    """
    return _is(marks, RIGHT, RELABEL, DROP)


def kept_by(marks: Strings) -> NDArray[np.bool_]:
    """(n,) bool: a person keeps the sample, with the label that it has after the review.

    Args:
        marks: As `settled_by` takes them.
    """
    return _is(marks, RIGHT, RELABEL)


def overrule(is_clean: NDArray[np.bool_], marks: Strings, readable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Flags after a review: a person's word beats every selector, but makes no image readable.

    Args:
        is_clean: (n,) what the selectors decided.
        marks: As `settled_by` takes them.
        readable: (n,) the image could be read.
    """
    return np.where(settled_by(marks), kept_by(marks) & readable, is_clean)
