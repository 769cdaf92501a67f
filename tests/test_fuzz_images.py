"""Damaged image files by the hundred: each gives pixels of the right shape, or one reason."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import sklearn.datasets
from image_files import encoded, exif, jpeg_with_exif, odd_exif, png_chunk, png_with, webp_with
from PIL import Image

from clipaudit.errors import ImageError
from clipaudit.images.decoding import Preprocessing, decode

PREPROCESSING = Preprocessing(32, (32, 32), 3, 1 / 255, (0.5,) * 3, (0.5,) * 3)
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
# Values that lengths, counts and offsets are read from.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def originals(kind: str) -> list[bytes]:
    photo = Image.open(sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))[0]).resize((90, 60))
    plain = encoded(photo, kind)
    if kind == "JPEG":
        variants = [{"progressive": True}, {"mode": "CMYK"}, {"mode": "L"}]
        extra = [jpeg_with_exif(plain, odd_exif(6))]
    elif kind == "PNG":
        variants = [{"mode": "P", "transparency": 3}, {"mode": "RGBA"}]
        extra = [png_with(plain, png_chunk(b"eXIf", exif(8)), png_chunk(b"tEXt", b"a\0b"))]
    elif kind == "TIFF":
        variants = [{"compression": how} for how in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
        extra = [encoded(photo, kind, big_tiff=True)]
    elif kind == "BMP":
        variants, extra = [{"mode": "P"}], []
    else:
        variants, extra = [{"save_all": True, "append_images": [photo.rotate(90)]}], []
    if kind == "WEBP":
        extra = [webp_with(plain, (b"EXIF", exif(3)), flags=8), encoded(photo, kind, lossless=True)]
    return [
        plain,
        *extra,
        *(encoded(photo.convert(options.pop("mode", "RGB")), kind, **options) for options in variants),
    ]


def damaged(kind: str, count: int) -> Iterator[bytes]:
    """Flipped bytes, mostly near the beginning; files cut, with a piece missing, doubled or of extreme numbers."""
    generator, sources = np.random.default_rng(KINDS.index(kind)), originals(kind)
    for number in range(count):
        data = bytearray(sources[number % len(sources)])
        near = min(len(data), 200 if generator.random() < 0.6 else len(data))
        at = int(generator.integers(0, near))
        length = int(generator.integers(1, 64))
        way = int(generator.integers(0, 5))
        if way == 0:
            for position in generator.integers(0, near, int(generator.integers(1, 9))).tolist():
                data[position] = int(generator.integers(0, 256))
        elif way == 1:
            del data[int(generator.integers(0, len(data))) :]
        elif way == 2:
            del data[at : at + length]
        elif way == 3:
            data[at:at] = data[at : at + length]
        else:
            value, width = int(generator.choice(EXTREMES)), int(generator.choice((2, 4)))
            order = "little" if generator.random() < 0.5 else "big"
            data[at : at + width] = (value & (256**width - 1)).to_bytes(width, order)
        yield bytes(data)


def prepare(data: bytes) -> None:
    pixels = PREPROCESSING.prepare(data)
    if (pixels.shape, pixels.dtype) != ((32, 32, 3), np.uint8):
        raise fuzzing.LostError(f"pixels of shape {pixels.shape} and type {pixels.dtype}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_give_pixels_or_a_reason(kind: str) -> None:
    counts = fuzzing.campaign(f"images: {kind}", damaged(kind, fuzzing.size(250)), prepare)
    assert counts.results
    assert counts.clean_errors


@pytest.mark.filterwarnings("ignore")
def test_a_jpeg_that_is_cut_anywhere_is_whole_or_refused() -> None:
    """Never a grey half that passes for a picture."""
    photo = Image.open(sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))[0]).resize((160, 120))
    data = encoded(photo, "JPEG")
    expected = np.asarray(decode(data)).astype(int)

    def call(length: int) -> None:
        found = np.asarray(decode(data[:length])).astype(int)
        wrong = (np.abs(found - expected).max(axis=2) > 16).mean()
        if wrong > 0.08:
            raise fuzzing.LostError(f"{wrong:.0%} of the pixels are others after {length} of {len(data)} bytes")

    lengths = np.random.default_rng(0).integers(1, len(data), fuzzing.size(150)).tolist()
    counts = fuzzing.campaign("images: JPEG cut", [*lengths, len(data) - 1, len(data) - 2], call)
    assert counts.clean_errors


@pytest.mark.filterwarnings("ignore")
def test_the_originals_are_read() -> None:
    for kind in KINDS:
        for data in originals(kind):
            try:
                assert PREPROCESSING.prepare(data).shape == (32, 32, 3)
            except ImageError as error:
                pytest.fail(f"{kind}: {error}")
            assert Image.open(io.BytesIO(data)).format == kind
