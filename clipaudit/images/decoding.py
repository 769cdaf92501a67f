"""Bytes to pixels: one image file becomes an RGB array of the model's size, or a reason why it could not.

Every picture is turned upright (EXIF), composed over white where it is transparent, reduced to its first frame where
it is animated, and converted to 8-bit RGB. Whatever goes wrong on the way is one unreadable image.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from clipaudit.errors import ImageError
from clipaudit.images.formats import Bare, exif_orientation, without_metadata
from clipaudit.images.truncation import load_whole

# Formats that Pillow decodes by itself. Others start external programs (EPS) or are no pictures.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
# How such files begin: a file that begins so but cannot be opened has a damaged header.
BEGINNINGS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
}
MAX_PIXELS = 100_000_000
# Memory that one image may take while it is decoded. Images that take more than LARGE wait for each other, so that
# this much is needed once and not in every thread.
MAX_DECODING_BYTES, LARGE = 512 << 20, 64 << 20
# Bytes a pixel that decoders take beside the image: WEBP's canvases, planes of AVIF, 32-bit components of JPEG 2000.
DECODER_BYTES = {"WEBP": 8, "AVIF": 6, "JPEG2000": 16}
# All coefficients of a JPEG of several scans, which a small decoding does not save.
SCANS_BYTES = 6
# A progressive JPEG has about ten scans, and each costs as much time as a picture.
MAX_SCANS, MAX_SCANNED_PIXELS = 100, 1_000_000_000
# JPEG files are decoded at 1/2, 1/4 or 1/8 of their size as long as this many times the target remains; then the
# embedding differs from that of the full decoding by less than 0.001 in cosine (tests/test_images.py).
REDUCED_DECODING_MARGIN = 2
# A picture that is no larger after resizing is resized whole; of larger ones only what the crop keeps is computed.
MAX_WHOLE_PIXELS = 4_000_000
MAX_RESIZED_PIXELS = 16_000_000
CONVERTED_AT_ONCE = 1_000_000
MAX_REASON = 200

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_one_large_image = Lock()


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

    def prepare(self, data: bytes) -> NDArray[np.uint8]:
        """An image file as the model sees it, but for scaling and normalising, which are left to the device.

        Returns:
            (height, width, 3) uint8.

        Raises:
            ImageError: the image cannot be read, for whatever reason.
        """
        with opened(data, target=self.target) as image:
            return self.apply(image)

    def apply(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop: an RGB image to (height, width, 3) uint8.

        Raises:
            ImageError: without a crop, the image would become far larger than any model reads.
        """
        size = self._resized(image.width, image.height)
        if math.prod(size) > MAX_WHOLE_PIXELS:
            return np.asarray(self._resized_centre(image, size))
        image = image.resize(size, Image.Resampling(self.resample))
        if self.crop:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.asarray(image)

    def _resized_centre(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Of a picture that would have `size`, (width, height), the crop alone; equal to it within a level."""
        crop = self.crop[::-1] if self.crop else size
        # A crop that is larger than the picture has a black margin.
        kept = min(crop[0], size[0]), min(crop[1], size[1])
        if math.prod(kept) > MAX_RESIZED_PIXELS:
            raise ImageError(f"{image.width} x {image.height} pixels would become {size[0]} x {size[1]}, too many")
        left, top = (size[0] - kept[0]) // 2, (size[1] - kept[1]) // 2
        across, down = image.width / size[0], image.height / size[1]
        box = (left * across, top * down, (left + kept[0]) * across, (top + kept[1]) * down)
        part = image.resize(kept, Image.Resampling(self.resample), box=box)
        margin = (kept[0] - crop[0]) // 2, (kept[1] - crop[1]) // 2
        return part.crop((*margin, margin[0] + crop[0], margin[1] + crop[1]))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if not isinstance(self.resize, int):
            return self.resize[1], self.resize[0]
        edge = self.resize
        if width <= height:
            return edge, int(edge * height / width)
        return int(edge * width / height), edge


def decode(data: bytes, *, target: int | None = None) -> Image.Image:
    """An upright 8-bit RGB picture from the bytes of an image file; arguments and errors as those of `opened`."""
    with opened(data, target=target) as image:
        return image


@contextmanager
def opened(data: bytes, *, target: int | None = None) -> Iterator[Image.Image]:
    """An upright 8-bit RGB picture from the bytes of an image file, and a guard around what is done with it.

    Args:
        data: The whole file.
        target: Edge in pixels that the picture will be shrunk to, which allows the reduced decoding of JPEG. None
            decodes exactly.

    Raises:
        ImageError: not an image of a known format, truncated, damaged or too large, or what was done with the picture
            failed, be it for want of memory; the message says which.
    """
    with ExitStack() as stack:
        with one_unreadable("damaged or truncated"):
            image = _decode(data, target, stack)
        with one_unreadable("cannot be prepared for the model"):
            yield image


@contextmanager
def one_unreadable(fault: str) -> Iterator[None]:
    """Whatever fails inside makes one image unreadable and never ends a run; only interrupts pass.

    Args:
        fault: What to say before the error's own words.

    Raises:
        ImageError: instead of any other exception.
    """
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("this machine has too little memory left for it") from None
    except Exception as error:
        # Decoders raise many types on damaged data; each of them means one unreadable image, no fault of ours.
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImageError(f"{fault}: {words[:MAX_REASON]}") from None


def _decode(data: bytes, target: int | None, stack: ExitStack) -> Image.Image:
    bare = without_metadata(data)
    if bare.canvas:
        # Nothing more is known of the picture: four bytes a pixel, and four for another one of RGB.
        in_decoder = DECODER_BYTES["WEBP" if data.startswith(b"RIFF") else "JPEG2000"]
        _make_room(stack, bare.canvas, math.prod(bare.canvas) * (8 + in_decoder))
    image = stack.enter_context(_open(bare.data))
    _check_scans(bare, image.size)
    coefficients = math.prod(image.size) * SCANS_BYTES if len(bare.scans) > 1 else 0
    _draft(image, target)
    if not bare.canvas:
        tags = getattr(image, "tag_v2", {})  # The tiles of a TIFF file may be larger than the picture.
        pixels = max(math.prod(image.size), int(tags.get(322, 0)) * int(tags.get(323, 0)))
        pixel_bytes = _image_bytes(image, bare.orientation) + DECODER_BYTES.get(image.format or "", 0)
        _make_room(stack, image.size, pixels * pixel_bytes + coefficients)
    picture = load_whole(image, bare, lambda data: _draft(_open(data), target))
    orientation = exif_orientation(image.info.get("exif", b"")) if image.format == "AVIF" else bare.orientation
    if orientation in _TURNS:
        picture = picture.transpose(_TURNS[orientation])
    return _to_rgb(picture)


def undecoded(data: bytes) -> ImageFile:
    """An image file whose size is known, and whose pixels are not decoded; ImageError where it is none."""
    return _open(without_metadata(data).data)


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow knows: AVIF came with 11.3."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(data: bytes) -> ImageFile:
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        raise ImageError(_unknown(data)) from None
    except Image.DecompressionBombError:
        raise ImageError(f"far more than the limit of {MAX_PIXELS:,} pixels") from None
    if math.prod(image.size) > MAX_PIXELS:
        raise ImageError(f"{image.width} x {image.height} pixels, over the limit of {MAX_PIXELS:,}")
    return image


def _unknown(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif"):
        return "a HEIF picture (.heic), which is not read: convert it to JPEG or PNG"
    for beginning, kind in BEGINNINGS.items():
        if data.startswith(beginning):
            return f"damaged or truncated: this {kind} file is broken before its pixels begin"
    return "not an image of a known format"


def _draft(image: ImageFile, target: int | None) -> ImageFile:
    if target is not None:
        image.draft("RGB", (REDUCED_DECODING_MARGIN * target, REDUCED_DECODING_MARGIN * target))
    return image


def _check_scans(bare: Bare, size: tuple[int, int]) -> None:
    scans = len(bare.scans)
    if scans > MAX_SCANS:
        raise ImageError(f"this JPEG goes over its pixels {scans:,} times (scans), over the limit of {MAX_SCANS}")
    if scans * math.prod(size) > MAX_SCANNED_PIXELS:
        raise ImageError(f"this JPEG has {scans} scans of {size[0]} x {size[1]} pixels, which take too long")


def _make_room(stack: ExitStack, size: tuple[int, int], needed: int) -> None:
    """Refuse an image that would need too much memory; let one that needs much wait for its turn."""
    if needed > MAX_DECODING_BYTES:
        raise ImageError(
            f"{size[0]} x {size[1]} pixels take about {needed / 1e9:.1f} GB to decode,"
            f" over the limit of {MAX_DECODING_BYTES / 1e9:.1f} GB: shrink the image"
        )
    if needed > LARGE:
        stack.enter_context(_one_large_image)


def _image_bytes(image: Image.Image, orientation: int) -> int:
    """Bytes a pixel that Pillow takes: for the picture, for turning it, for another one of RGB."""
    stored = {"1": 1, "L": 1, "P": 1, "I;16": 2}.get(image.mode, 4)
    return stored * (2 if orientation > 1 else 1) + (0 if _is_plain(image) else 4)


def _is_plain(image: Image.Image) -> bool:
    return image.mode == "RGB" and not image.has_transparency_data


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert in bands of rows, so that steps in between take little memory."""
    if _is_plain(image):
        return image
    if image.mode == "F":
        raise ImageError("32-bit float pixels have no known range: convert the image to 8 or 16 bits")
    result, rows = Image.new("RGB", image.size), max(1, CONVERTED_AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(_band_to_rgb(band), (0, top))
    return result


def _band_to_rgb(image: Image.Image) -> Image.Image:
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
