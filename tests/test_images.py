"""Decoding: odd images are handled, bad ones become a reason, and shortcuts agree with the model's own processor."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
from conftest import DIGITS, any_image
from PIL import Image

from clipaudit.clip.encoders import Encoder, EncoderOptions, load_encoder
from clipaudit.errors import ImageError
from clipaudit.images.decoding import Preprocessing, decode

PHOTOS = sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(DIGITS)


@pytest.fixture(scope="module")
def exact_encoder() -> Encoder:
    return load_encoder(EncoderOptions(DIGITS.model, device="cpu", precision="float32", exact=True))


def test_exif_orientation_is_applied() -> None:
    image = any_image()
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: rows are columns.
    assert decode(encoded(image, "JPEG", exif=exif)).size == (image.height, image.width)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_all_modes_become_rgb(mode: str, kind: str) -> None:
    if kind == "PNG" and mode in ("CMYK", "YCbCr"):
        pytest.skip("PNG has no such mode")
    image = decode(encoded(any_image().convert(mode), kind))
    assert (image.mode, image.size) == ("RGB", (40, 30))


def test_transparency_is_composed_over_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert np.asarray(decode(encoded(clear))).min() == 255
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0] * 256)
    assert np.asarray(decode(encoded(palette, transparency=0))).min() == 255


def test_sixteen_bits_keep_their_shades() -> None:
    gradient = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = np.asarray(decode(encoded(Image.fromarray(gradient))))[..., 0]
    assert (pixels.min(), pixels.max(), len(np.unique(pixels))) == (0, 255, 256)


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((0, 0)) == (255, 0, 0)


def _bad_images() -> dict[str, bytes]:
    jpeg, png = encoded(any_image((300, 300)), "JPEG"), encoded(any_image((300, 300)))
    float_pixels = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    return {
        "text": b"this is no image",
        "html": b"<html><body>404</body></html>",
        "truncated jpeg": jpeg[: len(jpeg) // 2],
        "truncated png": png[: len(png) // 2],
        "only a header": png[:30],
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
        "float": encoded(float_pixels, "TIFF"),
    }


@pytest.mark.parametrize("kind", _bad_images())
def test_bad_images_give_a_reason(kind: str) -> None:
    with pytest.raises(ImageError, match=r"\w+ \w+"):
        decode(_bad_images()[kind], target=224)


def test_huge_images_are_refused_before_decoding() -> None:
    with pytest.raises(ImageError, match=r"20000 x 5001 .*limit of 100,000,000"):
        decode(encoded(Image.new("1", (20_000, 5_001))))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_damage_is_a_reason_and_never_a_crash() -> None:
    generator = np.random.default_rng(0)
    originals = [encoded(any_image(), kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")]
    reasons = 0
    for trial in range(600):
        data = bytearray(originals[trial % len(originals)])
        for position in generator.integers(0, len(data), 8):
            data[position] = generator.integers(0, 256)
        try:
            assert decode(bytes(data), target=32).mode == "RGB"
        except ImageError:
            reasons += 1
    assert 0 < reasons < 600


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (224, 224), (500, 301), (33, 1000), (3, 5)])
@pytest.mark.parametrize("target", [{"shortest_edge": 224}, {"height": 96, "width": 64}])
def test_preprocessing_equals_the_models_own_processor(size: tuple[int, int], target: dict[str, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    crop = {"height": 224, "width": 224} if "shortest_edge" in target else {"height": 64, "width": 64}
    processor = CLIPImageProcessorPil(size=target, crop_size=crop)
    preprocessing = Preprocessing.from_processor(processor.to_dict())
    assert preprocessing is not None
    image = any_image(size)
    ours = (preprocessing.apply(image) * preprocessing.scale - preprocessing.mean) / preprocessing.std
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(ours.transpose(2, 0, 1), theirs, atol=1e-5)


def test_unusual_processors_are_left_to_themselves() -> None:
    config = {"do_resize": True, "size": {"longest_edge": 224, "shortest_edge": 100}, "do_rescale": True}
    assert Preprocessing.from_processor(config) is None


def test_reduced_decoding_agrees_with_exact_mode(encoder: Encoder, exact_encoder: Encoder) -> None:
    assert len(PHOTOS) == 2
    for photo in PHOTOS:
        data = photo.read_bytes()
        assert decode(data, target=32).size != decode(data).size, "the shortcut was not taken"
        ours = encoder.encode_images(np.stack([encoder.prepare(data)]))
        theirs = exact_encoder.encode_images(np.stack([exact_encoder.prepare(data)]))
        assert float((ours * theirs).sum()) > 0.999


def test_half_precision_agrees_with_float32(encoder: Encoder) -> None:
    half = load_encoder(EncoderOptions(DIGITS.model, device="cpu", precision="bfloat16"))
    from clipaudit.demo.digits import as_picture, load_split

    pixels = np.stack([encoder.prepare(encoded(as_picture(image))) for image in load_split().audit_images[:200]])
    cosine = (encoder.encode_images(pixels) * half.encode_images(pixels)).sum(1)
    assert float(cosine.min()) >= 0.999
