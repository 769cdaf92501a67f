"""Small pictures as data URIs: each shown image is read and decoded once, in threads."""

from __future__ import annotations

import io
import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from clipaudit.errors import ImageError
from clipaudit.images.ahead import decoded_ahead
from clipaudit.images.decoding import opened

# The longer edge in pixels. A smaller image keeps its size: the browser enlarges it as well as we could.
EDGE = 96
QUALITY = 60
REPORT_EVERY = 50


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, or why there is none.

    Attributes:
        uri: `data:image/webp;base64,...`, empty where the image could not be read.
        width, height: Of the small picture, in pixels; 0 without one.
        reason: Why there is none, else empty.
    """

    uri: str
    width: int
    height: int
    reason: str


def thumbnails(
    ids: Sequence[str], read: Callable[[str], bytes], report: Callable[[int], None] | None = None
) -> list[Thumbnail]:
    """Thumbnails of some samples; an image that is gone or damaged becomes a reason, never an error.

    Args:
        ids: What `read` takes.
        read: The bytes of one image, from several threads; raises ImageError.
        report: Called now and then with the number done.
    """
    done: list[Thumbnail] = []
    shares = (ids[start : start + REPORT_EVERY] for start in range(0, len(ids), REPORT_EVERY))
    pairs = ((share, share) for share in shares)
    for _, results in decoded_ahead(pairs, lambda sample_id: _thumbnail(read(sample_id)), os.cpu_count() or 1):
        done += [Thumbnail("", 0, 0, str(made)) if isinstance(made, ImageError) else made for made in results]
        if report:
            report(len(done))
    return done


def _thumbnail(data: bytes) -> Thumbnail:
    buffer = io.BytesIO()
    with opened(data, target=EDGE) as image:
        image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
        # A colour profile or a comment in the original may be larger than the thumbnail, and is nobody's business.
        image.info.clear()
        image.save(buffer, "WEBP", quality=QUALITY, method=4)
        width, height = image.size
    return Thumbnail(f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}", width, height, "")
