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
    ids: Sequence[str],
    read: Callable[[str], bytes],
    report: Callable[[int], None] | None = None,
    *,
    edge: int = EDGE,
    quality: int = QUALITY,
) -> list[Thumbnail]:
    """Thumbnails of some samples; an image that is gone or damaged becomes a reason, never an error.

    Args:
        ids: What `read` takes.
        read: The bytes of one image, from several threads; raises ImageError.
        report: Called now and then with the number done.
        edge: The longer edge in pixels, at most.
        quality: Of the WebP file, 0 to 100.
    """

    def made(sample_id: str) -> Thumbnail:
        return _thumbnail(read(sample_id), edge, quality)

    done: list[Thumbnail] = []
    shares = (ids[start : start + REPORT_EVERY] for start in range(0, len(ids), REPORT_EVERY))
    pairs = ((share, share) for share in shares)
    for _, results in decoded_ahead(pairs, made, os.cpu_count() or 1):
        done += [Thumbnail("", 0, 0, str(one)) if isinstance(one, ImageError) else one for one in results]
        if report:
            report(len(done))
    return done


def _thumbnail(data: bytes, edge: int, quality: int) -> Thumbnail:
    buffer = io.BytesIO()
    with opened(data, target=edge) as image:
        image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
        # A colour profile or a comment in the original may be larger than the thumbnail, and is nobody's business.
        image.info.clear()
        image.save(buffer, "WEBP", quality=quality, method=4)
        width, height = image.size
    return Thumbnail(f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}", width, height, "")
