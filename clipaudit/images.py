"""Bytes to pixels: one image file becomes an RGB array of the model's size, or a reason why it could not.

Every picture is turned upright (EXIF), composed over white where it is transparent, reduced to its first frame where
it is animated, and converted to 8-bit RGB.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clipaudit.errors import ImageError

# Formats that Pillow decodes by itself. Others start external programs (EPS) or are no pictures.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MAX_PIXELS = 100_000_000
# JPEG files are decoded at 1/2, 1/4 or 1/8 of their size as long as this many times the target remains; then the
# embedding differs from that of the full decoding by less than 0.001 in cosine (tests/test_images.py).
REDUCED_DECODING_MARGIN = 2


@dataclass(frozen=True)
class Preprocessing:
    """What a model's image processor does, as data: resize, centre crop, rescale, normalise.

    Attributes:
        resize: Length of the shortest edge in pixels, or exact (height, width).
        crop: (height, width) of the centre crop; None for none.
        resample: Pillow's number of the resampling filter (3 is bicubic).
        scale: Factor on the 8-bit values.
        mean: Of each channel, subtracted after scaling.
        std: Of each channel, divided by.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int] | None
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_processor(cls, config: Mapping[str, Any]) -> Preprocessing | None:
        """Read a Hugging Face image processor's `to_dict()`; None where it does anything that is not covered here."""
        size, crop = config.get("size") or {}, config.get("crop_size") or {}
        edge, height, width = (int(size.get(key) or 0) for key in ("shortest_edge", "height", "width"))
        covered = (
            all(config.get(step) for step in ("do_resize", "do_rescale", "do_normalize"))
            and not config.get("do_pad")
            and not size.get("longest_edge")
            and (edge or (height and width))
            and len(config.get("image_mean") or ()) == len(config.get("image_std") or ()) == 3
        )
        if not covered:
            return None
        return cls(
            resize=edge or (height, width),
            crop=(int(crop["height"]), int(crop["width"])) if config.get("do_center_crop") else None,
            resample=int(config["resample"]),
            scale=float(config["rescale_factor"]),
            mean=tuple(map(float, config["image_mean"])),
            std=tuple(map(float, config["image_std"])),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything that embeddings depend on, as JSON has it, for a file's metadata."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain | {"reduced_jpeg_margin": REDUCED_DECODING_MARGIN}

    @property
    def target(self) -> int:
        """The shorter edge after resizing, in pixels."""
        return self.resize if isinstance(self.resize, int) else max(self.resize)

    def apply(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop: an RGB image to (height, width, 3) uint8. Scaling and normalising are left to the device."""
        image = image.resize(self._resized(image.width, image.height), Image.Resampling(self.resample))
        if self.crop:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.asarray(image)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if not isinstance(self.resize, int):
            return self.resize[1], self.resize[0]
        edge = self.resize
        if width <= height:
            return edge, int(edge * height / width)
        return int(edge * width / height), edge


def decode(data: bytes, *, target: int | None = None) -> Image.Image:
    """An upright 8-bit RGB picture from the bytes of an image file.

    Args:
        data: The whole file.
        target: Edge in pixels that the picture will be shrunk to, which allows the reduced decoding of JPEG. None
            decodes exactly.

    Raises:
        ImageError: not an image of a known format, truncated, damaged or too large; the message says which.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width} x {image.height} pixels, over the limit of {MAX_PIXELS:,}")
            if target is not None:
                edge = REDUCED_DECODING_MARGIN * target
                image.draft("RGB", (edge, edge))
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
    except Image.DecompressionBombError:
        raise ImageError(f"far more than the limit of {MAX_PIXELS:,} pixels") from None
    except ImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise many types on damaged data; each of them means one unreadable image, no fault of ours.
        raise ImageError(f"damaged or truncated: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("32-bit float pixels have no known range: convert the image to 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow's own conversion to 8 bits clips, which turns nearly every 16-bit picture white.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ImageError("32-bit integer pixels have no known range: convert the image to 8 or 16 bits")
        image = Image.fromarray((values // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
