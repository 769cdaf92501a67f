"""Odd and hostile image files: good pixels are read, a reason is true, and one image never ends a run."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets
from conftest import DIGITS
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import (
    encoded,
    exif,
    icon_of,
    jpeg_with,
    jpeg_with_exif,
    odd_exif,
    png_chunk,
    png_of,
    png_with,
    webp_bomb,
    webp_with,
    with_extra_scans,
)
from PIL import Image, ImageOps

import clipaudit
from clipaudit.clip.encoders import EncoderOptions, load_encoder
from clipaudit.errors import ImageError, UsageError
from clipaudit.images.decoding import MAX_WHOLE_PIXELS, Preprocessing, decode, one_unreadable
from clipaudit.images.formats import exif_orientation

PHOTO = sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))[0].read_bytes()
CLIP = Preprocessing(224, (224, 224), 3, 1 / 255, (0.5,) * 3, (0.5,) * 3)
SMALL = Preprocessing(32, (32, 32), 3, 1 / 255, (0.5,) * 3, (0.5,) * 3)
KINDS = {"JPEG": {}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}


def photo(width: int = 96, height: int = 64) -> Image.Image:
    return Image.open(io.BytesIO(PHOTO)).resize((width, height))


def put_exif(kind: str, data: bytes, content: bytes) -> bytes:
    if kind == "JPEG":
        return jpeg_with_exif(data, content)
    if kind == "PNG":
        return png_with(data, png_chunk(b"eXIf", content))
    return webp_with(data, (b"EXIF", content), flags=0x08)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_orientation_turns_as_pillow_does(kind: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    data = encoded(photo(), kind, exif=tags, **KINDS[kind])
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(expected))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_odd_tags_beside_the_orientation_do_not_matter(kind: str, order: str) -> None:
    """FAULTS 12."""
    plain = encoded(photo(), kind, **KINDS[kind])
    upright = np.asarray(decode(plain).transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(np.asarray(decode(put_exif(kind, plain, odd_exif(6, order)))), upright)


@pytest.mark.parametrize(
    "content", [b"", b"garbage" * 9, b"II*\0", b"MM\0*\xff\xff\xff\xff", exif(0), exif(9), exif(6)[:14]]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_cannot_be_read_means_no_orientation(kind: str, content: bytes) -> None:
    plain = encoded(photo(), kind, **KINDS[kind])
    np.testing.assert_array_equal(np.asarray(decode(put_exif(kind, plain, content))), np.asarray(decode(plain)))


@given(st.binary(max_size=200), st.booleans())
def test_no_exif_makes_the_reader_of_orientations_fail(content: bytes, headed: bool) -> None:
    assert 1 <= exif_orientation(b"II*\0\x08\0\0\0" * headed + content) <= 8


def test_orientation_may_be_of_any_whole_type() -> None:
    assert exif_orientation(exif(None, (0x0112, 4, 1, (8).to_bytes(4, "little")))) == 8
    assert exif_orientation(exif(None, (0x0112, 4, 1, (8).to_bytes(4, "big")), order=">")) == 8
    assert exif_orientation(exif(None, (0x0112, 5, 1, bytes(4)))) == 1


def test_tiff_is_read_whatever_its_other_tags() -> None:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E], tags[0x013B] = 6, "a description", "an author"
    data = bytearray(encoded(photo(), "TIFF", exif=tags))
    expected = np.asarray(decode(bytes(data)))
    assert expected.shape == (96, 64, 3)
    start = int.from_bytes(data[4:8], "little")
    for entry in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        if data[entry : entry + 2] in (b"\x0e\x01", b"\x3b\x01"):
            data[entry + 2 : entry + 12] = b"\x0c\0" + b"\xff" * 8  # 4 billion doubles, behind the end
    np.testing.assert_array_equal(np.asarray(decode(bytes(data))), expected)


def _odd_pngs() -> dict[str, bytes]:
    plain, big = encoded(photo()), zlib.compress(bytes(2_000_000))
    return {
        "huge zTXt": png_with(plain, png_chunk(b"zTXt", b"note\0\0" + big)),
        "huge zTXt at the end": png_with(plain, png_chunk(b"zTXt", b"note\0\0" + big), before=b"IEND"),
        "many zTXt": png_with(plain, *[png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(900_000)))] * 90),
        "huge iCCP": png_with(plain, png_chunk(b"iCCP", b"profile\0\0" + big)),
        "unknown compression in iCCP": png_with(plain, png_chunk(b"iCCP", b"profile\0\7" + big)),
        "wrong checksum of a text": png_with(plain, png_chunk(b"tEXt", b"a\0b", crc=1)),
        "wrong checksum of a time": png_with(plain, png_chunk(b"tIME", bytes(7), crc=1), before=b"IEND"),
        "garbage eXIf": png_with(plain, png_chunk(b"eXIf", b"\xde\xad\xbe\xef" * 30)),
        "short pHYs": png_with(plain, png_chunk(b"pHYs", b"\0")),
        "short cHRM": png_with(plain, png_chunk(b"cHRM", b"\0")),
        "odd acTL": png_with(plain, png_chunk(b"acTL", b"\0\0")),
        "not UTF-8 in iTXt": png_with(plain, png_chunk(b"iTXt", b"k\0\1\0\xff\0\xff\0\xff\xff")),
        "tRNS with a wrong checksum": png_with(plain, png_chunk(b"tRNS", bytes(6), crc=1)),
        "no IEND": plain[: plain.index(b"IEND") - 4],
        "cut in IEND": plain[:-3],
        "junk behind": plain + b"junk" * 100,
    }


@pytest.mark.parametrize("case", _odd_pngs())
def test_good_pixels_of_a_png_are_read(case: str) -> None:
    """FAULTS 13."""
    np.testing.assert_array_equal(np.asarray(decode(_odd_pngs()[case])), np.asarray(photo()))


def test_damage_of_pixels_is_called_so() -> None:
    plain = encoded(photo())
    broken = bytearray(plain)
    broken[plain.index(b"IDAT") + 30] ^= 0xFF
    for data in (bytes(broken), plain[: len(plain) // 2]):
        with pytest.raises(ImageError, match="damaged or truncated"):
            decode(data)
    for data in (plain[:30], encoded(photo(), "JPEG")[:300], b"GIF89a\0", plain[:8] + png_chunk(b"IEND", b"")):
        with pytest.raises(ImageError, match=r"damaged or truncated: (this|Truncated)"):
            decode(data)
    with pytest.raises(ImageError, match=r"\.heic"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


@pytest.mark.parametrize("size", [(32, 32), (33, 17), (300, 200)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}, {"optimize": True}])
def test_a_jpeg_without_its_end_marker_is_read(size: tuple[int, int], options: dict[str, object]) -> None:
    """FAULTS 13."""
    data = encoded(photo(*size), "JPEG", **options)
    expected = np.asarray(decode(data))
    for odd in (data[:-2], data[:-1], data[:-2] + bytes(100), data + b"behind"):
        np.testing.assert_array_equal(np.asarray(decode(odd)), expected)
    grey = decode(encoded(photo(*size).convert("L"), "JPEG", **options)[:-2])
    assert grey.size == size


@pytest.mark.parametrize("part", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("target", [None, 32])
def test_a_jpeg_that_lacks_rows_is_not_read(part: float, end: bytes, mode: str, target: int | None) -> None:
    data = encoded(photo(400, 300).convert(mode), "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        decode(data[: int(part * len(data))] + end, target=target)


def test_a_progressive_jpeg_that_lacks_scans_is_not_read() -> None:
    data = encoded(photo(400, 300), "JPEG", progressive=True)
    with pytest.raises(ImageError, match="before all of its scans"):
        decode(data[: len(data) // 2])


def test_grey_and_black_below_are_no_damage() -> None:
    for level in (0, 127, 128, 255):
        pixels = np.full((300, 300, 3), level, np.uint8)
        pixels[:100] = np.asarray(photo(300, 100))
        for options in ({}, {"progressive": True}):
            data = encoded(Image.fromarray(pixels), "JPEG", **options)
            assert decode(data, target=32).width < 300
            assert decode(data).size == (300, 300)
            if level not in (127, 128):
                assert decode(data[:-2]).size == (300, 300)


def test_odd_segments_of_a_jpeg_do_not_matter() -> None:
    plain = encoded(photo(), "JPEG")
    odd = [
        (0xE0, b"JFIF"),  # cut
        (0xEE, b"Adobe"),  # cut
        (0xE2, b"MPF\0" + b"\xff" * 40),
        (0xE2, b"ICC_PROFILE\0\x01"),
        (0xED, b"Photoshop 3.0\0" + b"8BIM\xff\xff"),
        (0xE1, b"Exif\0\0" + odd_exif(1)),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 60_000),
        (0xFE, b"\xff\xd9\xff\xda"),
    ]
    np.testing.assert_array_equal(np.asarray(decode(jpeg_with(plain, *odd))), np.asarray(decode(plain)))
    cmyk = encoded(photo().convert("CMYK"), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode(cmyk)), expected)


def test_odd_chunks_of_a_webp_do_not_matter() -> None:
    plain = encoded(photo(), "WEBP", lossless=True)
    odd = webp_with(plain, (b"EXIF", b"garbage"), (b"XMP ", b"<"), (b"ABCD", bytes(9)), flags=0x2C)
    for data in (odd, odd[:-5], plain + b"behind"):
        np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(photo()))
    clear = photo().convert("RGBA")
    clear.putalpha(100)
    expected = np.asarray(decode(encoded(clear)))
    np.testing.assert_array_equal(np.asarray(decode(encoded(clear, "WEBP", lossless=True))), expected)


def _peak(code: str) -> tuple[str, int]:
    """Output and growth in MB of a process that has imported the module and then runs the code."""
    script = f"""
import resource, sys, threading
sys.path[:0] = {sys.path!r}
from image_files import *
from clipaudit.images.decoding import *
from clipaudit.errors import ImageError
CLIP = Preprocessing(224, (224, 224), 3, 1 / 255, (0.5,) * 3, (0.5,) * 3)
def tried(data, preprocessing=CLIP):
    try:
        return str(preprocessing.prepare(data).shape)
    except ImageError as error:
        return str(error)
tried(png_of(3, 3))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{code}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    *output, peak = done.stdout.split("\n")[:-1]
    return "\n".join(output), int(peak)


@pytest.mark.parametrize(("width", "height"), [(1, 10_000), (1, 65_535), (1, 900_000), (65_535, 1), (3, 400_000)])
def test_memory_does_not_grow_with_the_sides(width: int, height: int) -> None:
    """FAULTS 14 and 28: gigabytes and many seconds before."""
    output, peak = _peak(f"print(tried(png_of({width}, {height})))")
    assert output == "(224, 224, 3)"
    assert peak < 60


def test_a_tiny_file_of_a_huge_picture_is_refused_without_decoding() -> None:
    """FAULTS 28."""
    output, peak = _peak("print(len(webp_bomb())); print(tried(webp_bomb()))")
    assert output.startswith("34\n10000 x 10000 pixels take about")
    assert peak < 50
    assert len(webp_bomb()) == 34


def test_a_picture_larger_than_its_file_says_is_refused() -> None:
    with pytest.raises(ImageError, match="9000 x 9000 pixels take about"):
        decode(icon_of(png_of(9_000, 9_000)))
    assert decode(icon_of(encoded(photo(16, 16)))).size == (16, 16)
    assert decode(encoded(photo(16, 16), "ICO")).size == (16, 16)
    plain = encoded(photo(), "JPEG2000")
    at = plain.index(b"\xff\x4f\xff\x51")
    large = plain[: at + 8] + (50_000).to_bytes(4, "big") * 2 + plain[at + 16 :]
    with pytest.raises(ImageError, match="50000 x 50000 pixels take about"):
        decode(large)
    assert decode(plain).size == (96, 64)


def test_large_pictures_take_their_memory_one_after_the_other() -> None:
    code = """
data = png_of(8_000, 8_000)
threads = [threading.Thread(target=lambda: print(tried(data))) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    output, peak = _peak(code)
    assert output.split("\n") == ["(224, 224, 3)"] * 6
    assert peak < 600  # each takes 64 MB as grey and 256 MB as RGB


def test_too_little_memory_is_a_reason() -> None:
    output, _ = _peak("""
import mmap
data = png_of(9_000, 9_000)
taken = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
resource.setrlimit(resource.RLIMIT_AS, (taken + (80 << 20),) * 2)
print(tried(data))
""")
    assert output == "this machine has too little memory left for it"


def test_scans_without_end_are_refused_and_a_few_are_not() -> None:
    """FAULTS 28: 27 seconds before."""
    progressive = encoded(photo(600, 400), "JPEG", progressive=True)
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"310 times \(scans\)"):
        decode(with_extra_scans(progressive, 300))
    assert time.monotonic() - began < 5
    assert decode(with_extra_scans(progressive, 5)).size == (600, 400)
    large = encoded(Image.new("RGB", (9_000, 9_000)), "JPEG", progressive=True, quality=20)
    with pytest.raises(ImageError, match="which take too long"):
        decode(with_extra_scans(large, 20), target=32)


def _tiled_tiff(side: int, tile: int) -> bytes:
    """Grey, deflated, in one tile of any size."""
    content = zlib.compress(bytes(min(side, tile) ** 2))
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: len(content)}
    start = 8 + len(content) + len(content) % 2
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    body = content.ljust(start - 8, b"\0") + struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + body


def test_tiles_larger_than_the_picture_are_counted() -> None:
    assert decode(_tiled_tiff(64, 64)).size == (64, 64)
    with pytest.raises(ImageError, match="to decode, over the limit"):
        decode(_tiled_tiff(64, 1 << 16))


@settings(max_examples=50)
@given(
    st.integers(1, 3),
    st.integers(32, 200),
    st.integers(1, 210),
    st.sampled_from([0, 1, 2, 3, 4, 5]),
    st.booleans(),
)
def test_the_kept_part_equals_the_whole_resized_and_cropped(
    short: int, edge: int, crop: int, resample: int, upright: bool
) -> None:
    """FAULTS 14: what is computed for long strips is what was computed before."""
    # As long as is just too large to be resized whole.
    ratio = MAX_WHOLE_PIXELS // edge**2 + 1
    sides, size = ((n, n * ratio) for n in (short, edge))
    image = photo(*(sides if upright else sides[::-1]))
    whole = image.resize(size if upright else size[::-1], Image.Resampling(resample))
    left, top = (whole.width - crop) // 2, (whole.height - crop) // 2
    expected = np.asarray(whole.crop((left, top, left + crop, top + crop)))
    part = Preprocessing(edge, (crop, crop), resample, 1 / 255, (0.5,) * 3, (0.5,) * 3).apply(image)
    assert part.shape == expected.shape == (crop, crop, 3)
    difference = np.abs(part.astype(int) - expected)
    # With a filter that has an edge, a pixel on that edge may fall to either side. The others round twice, once a pass.
    assert resample in (Image.Resampling.NEAREST, Image.Resampling.BOX) or difference.max() <= 2


def test_a_strip_without_a_crop_is_refused() -> None:
    whole = Preprocessing(224, None, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ImageError, match="1 x 10000 pixels would become 224 x 2240000"):
        whole.prepare(png_of(1, 10_000))


def test_exact_mode_has_the_same_bounds() -> None:
    encoder = load_encoder(EncoderOptions(DIGITS.model, device="cpu", precision="float32", exact=True))
    with pytest.raises(ImageError, match="too long a strip for exact mode"):
        encoder.prepare(png_of(1, 900_000))
    assert encoder.prepare(png_of(5, 300)).shape == (3, 32, 32)


def test_nothing_but_an_interrupt_leaves_the_guard() -> None:
    for error in (
        MemoryError(),
        TypeError("odd"),
        RecursionError(),
        AssertionError(),
        KeyError("x"),
        OSError("x" * 9999),
    ):
        with pytest.raises(ImageError) as caught, one_unreadable("cannot be read"):
            raise error
        assert 0 < len(str(caught.value)) < 300
    for interrupt in (KeyboardInterrupt, SystemExit):
        with pytest.raises(interrupt), one_unreadable("cannot be read"):
            raise interrupt


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("the processor is broken"), AttributeError("no such")])
def test_a_fault_in_preparing_is_one_unreadable_image(
    error: Exception, small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, calls = Preprocessing.apply, iter(range(1000))

    def failing(self: Preprocessing, image: Image.Image) -> np.ndarray:
        if next(calls) == 10:  # The first three are the trial of the model.
            raise error
        return apply(self, image)

    monkeypatch.setattr(Preprocessing, "apply", failing)
    summary = clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    assert (summary.n_samples, summary.n_unreadable) == (24, 1)


def test_hostile_images_among_others_cost_only_themselves(small_images: Path, tmp_path: Path) -> None:
    """FAULTS 14, 28, kind G: the run goes on, and each has its reason."""
    folder = next(path for path in sorted(small_images.iterdir()) if path.is_dir())
    progressive = encoded(photo(600, 400), "JPEG", progressive=True)
    readable = {"strip.png": png_of(1, 900_000), "turned.jpg": jpeg_with_exif(encoded(photo(), "JPEG"), odd_exif(6))}
    hostile = {"bomb.webp": webp_bomb(), "scans.jpg": with_extra_scans(progressive, 300), "empty.png": b""}
    for name, data in {**readable, **hostile}.items():
        (folder / name).write_bytes(data)
    summary = clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    assert (summary.n_samples, summary.n_unreadable) == (29, 3)
    assert {Path(sample_id).name for sample_id, _ in summary.unreadable} == set(hostile)


@pytest.mark.parametrize("workers", [0, -1, 1_000_000, 10**30])
def test_workers_have_a_range(workers: int, small_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers must be a whole number from 1 to 256"):
        clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS, workers=workers)
    assert not (tmp_path / "c").exists()


def test_a_thumbnail_of_a_strip_is_drawn() -> None:
    from clipaudit.report.thumbnails import thumbnails

    drawn = thumbnails(["a", "b"], lambda name: png_of(1, 900_000) if name == "a" else webp_bomb())
    assert drawn[0].uri.startswith("data:image/webp")
    assert "to decode" in drawn[1].reason


def test_training_and_prediction_have_the_same_guard(tmp_path: Path) -> None:
    import torch

    from clipaudit.images.ahead import decoded_ahead
    from clipaudit.samples import Sample, read_sample
    from clipaudit.training.data import Samples
    from clipaudit.training.pixels import load_pixels

    def read(name: str) -> bytes:
        if name == "broken":
            raise RuntimeError("the source is broken")
        return {"strip": png_of(1, 900_000), "bomb": webp_bomb()}[name]

    names = ["strip", "bomb", "broken"]
    options = {"place": "device", "folder": tmp_path, "workers": 2, "report": lambda done, total: None}
    samples = Samples(names, np.zeros(3, np.int64), read)
    _, unreadable = load_pixels(samples, np.arange(3), SMALL, torch.device("cpu"), **options)
    assert unreadable.tolist() == [1, 2]
    source = SimpleNamespace(read=read)
    batches = [("all", [Sample(name, "a", 1, 1) for name in names])]
    ((_, decoded),) = decoded_ahead(batches, lambda sample: SMALL.prepare(read_sample(source, sample)), 2)
    assert decoded[0].shape == (*SMALL.crop, 3)
    assert [str(reason)[:20] for reason in decoded[1:]] == ["10000 x 10000 pixels", "cannot be read: the "]


def test_every_format_that_this_pillow_lacks_is_left_out() -> None:
    # As an older Pillow, which has no AVIF, or one built without JPEG 2000.
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from PIL import Image
Image.init()
for name in ("AVIF", "JPEG2000"):
    Image.OPEN.pop(name, None)
from image_files import png_of
from clipaudit.images.decoding import decode
print(decode(png_of(9, 7)).size)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "(9, 7)\n"
