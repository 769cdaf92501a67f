"""JPEG files that break off: read where only their end marker is missing, refused where pixels are.

Pillow refuses every JPEG without an end marker, and fills up with grey, without a word, where one follows too early.
Decoding with and without the marker tells what is really there: pixels that are grey with it and zero without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from clipaudit.errors import ImageError
from clipaudit.images.formats import END_OF_JPEG, Bare

# Share of its pixels that a JPEG may lack: a few blocks in the lower right corner.
MAX_MISSING = 0.05
# Rows that a decoder holds back at the end of its data: one row of blocks, and two that chroma is interpolated from.
BLOCK_ROWS, CHROMA_ROWS = 16, 2


def load_whole(image: ImageFile, bare: Bare, reopen: Callable[[bytes], ImageFile]) -> Image.Image:
    """Decode an image that has been opened.

    Args:
        image: Opened from `bare.data`, not yet decoded.
        bare: The file.
        reopen: Opens other bytes in the same way.

    Raises:
        ImageError: pixels are missing.
        Exception: whatever Pillow raises on damaged data.
    """
    if image.format != "JPEG":
        image.load()
        return image
    if _has_end(image):
        if len(bare.scans) == 1 and _ends_in_grey(image):
            cut = reopen(bare.data[: bare.data.rfind(END_OF_JPEG)])
            _has_end(cut)
            scale = (*image.decoderconfig, 1)[0]
            _refuse_missing(image, cut, -(-BLOCK_ROWS // scale) + CHROMA_ROWS)
        return image
    if not bare.has_all_scans:
        raise ImageError("truncated: the file ends before all of its scans")
    whole = reopen(bare.data + END_OF_JPEG)
    whole.load()
    _refuse_missing(whole, image, 0)
    return whole


def _has_end(image: ImageFile) -> bool:
    """Decode as far as the data goes; where they break off, the rest stays zero."""
    try:
        image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        image.tile = []  # Nothing more to load: what is there can be looked at.
        return False
    return True


def _refuse_missing(whole: Image.Image, cut: Image.Image, spared: int) -> None:
    """Compare the last rows.

    Args:
        whole: Decoded with an end marker.
        cut: Decoded without.
        spared: Rows at the bottom that do not count, since they may be zero in any `cut`.

    Raises:
        ImageError: more than MAX_MISSING of the pixels are missing.
    """
    bottom = max(0, whole.height - spared)
    top = max(0, bottom - whole.height // 10 - 1)
    missing = _middle_grey(whole, top, bottom) & (_rows(cut, top, bottom) == 0).all(axis=2)
    if missing.sum() > MAX_MISSING * math.prod(whole.size):
        raise ImageError(f"truncated: more than {MAX_MISSING:.0%} of its pixels are missing")


def _ends_in_grey(image: Image.Image) -> bool:
    """What a decoder fills up ends in the lower right corner."""
    corner = image.getpixel((image.width - 1, image.height - 1))
    return set(corner if isinstance(corner, tuple) else (corner,)) <= {127, 128}


def _middle_grey(image: Image.Image, top: int, bottom: int) -> NDArray[np.bool_]:
    """Where the rows of a picture have the colour that a decoder fills up with."""
    return np.asarray((_rows(image, top, bottom) + np.uint8(1) >> 1 == 64).all(axis=2))  # 127 or 128


def _rows(image: Image.Image, top: int, bottom: int) -> NDArray[np.uint8]:
    rows = np.asarray(image.crop((0, top, image.width, bottom)))
    return rows.reshape(*rows.shape[:2], -1)
