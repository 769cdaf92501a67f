"""An image file without its metadata: what holds pixels is kept, the orientation is read, the rest cannot do harm.

Decoders parse profiles, texts and EXIF before they reach the pixels, and give up where those are odd. So only the parts
that pixels depend on reach them. All of this walks over bytes and never decodes.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ORIENTATION = 0x0112
# Start of a JPEG 2000 code stream and of its size segment, which follows after boxes of colours and comments.
JPEG2000_SIZE, MAX_JPEG2000_HEADER = b"\xff\x4f\xff\x51", 100_000
PNG, TIFF_MAGICS = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*")
END_OF_JPEG = b"\xff\xd9"
START_OF_SCAN, MAX_SCAN_HEADER = re.compile(b"\xff\xda"), 12
EXIF_PREFIX = b"Exif\0\0"
# The tags that pixels depend on; resolution, dates, GPS, profiles and sub-directories are left out.
TIFF_PIXEL_TAGS = frozenset(
    {*range(254, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, *range(322, 326), 332, 334, 336}
    | {*range(338, 342), 347, *range(512, 522), *range(529, 533), 50674}
)
_AVIF_EXIF = re.compile(rb"(infe[\x02\x03].{3}(?:.{4}|.{6}))Exif", re.DOTALL)

Order = Literal["little", "big"]


@dataclass(frozen=True)
class Bare:
    """An image file without its metadata.

    Attributes:
        data: A complete file of the same format.
        orientation: EXIF's, 1 to 8; 1 where there is none or it cannot be read.
        canvas: (width, height) that the decoder takes memory for, where that is not what Pillow says before: WEBP takes
            it when the file is opened; ICO and JPEG 2000 hold a picture of a size of its own.
        scans: Headers of a JPEG's scans, each of which goes over all pixels; a progressive one has about ten.
        components: Colour components of a JPEG.
    """

    data: bytes
    orientation: int = 1
    canvas: tuple[int, int] | None = None
    scans: tuple[bytes, ...] = ()
    components: int = 0

    @property
    def has_all_scans(self) -> bool:
        """Whether the scans of a JPEG hold every coefficient to its last bit."""
        coefficients = set()
        for header in self.scans:
            n = header[0] if header else 0
            if len(header) < 4 + 2 * n:
                continue
            first, last, bits = header[1 + 2 * n : 4 + 2 * n]
            if bits & 0x0F == 0:  # Nothing is left for a later scan to refine.
                names = header[1 : 1 + 2 * n : 2]
                coefficients |= {(name, k) for name in names for k in range(first, min(last, 63) + 1)}
        return len(coefficients) == 64 * self.components


def without_metadata(data: bytes) -> Bare:
    """The parts of an image file that pixels depend on; a format that needs no help comes back as it is."""
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(TIFF_MAGICS):
        return _tiff(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"\0\0\1\0"):
        return Bare(data, canvas=_icon_canvas(data))
    if (start := data[:MAX_JPEG2000_HEADER].find(JPEG2000_SIZE)) >= 0:
        x1, y1, x0, y0 = (int.from_bytes(data[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
        return Bare(data, canvas=(max(1, x1 - x0), max(1, y1 - y0)))
    if data[4:8] == b"ftyp":
        # AVIF turns its pictures by other means, and its decoder fails on EXIF that it cannot parse.
        return Bare(_AVIF_EXIF.sub(rb"\1none", data))
    return Bare(data)


def exif_orientation(exif: bytes) -> int:
    """The orientation in EXIF data, 1 to 8; 1 where there is none. Other tags are not looked at."""
    exif = exif.removeprefix(EXIF_PREFIX)
    for entry, order in _tiff_entries(exif):
        if int.from_bytes(entry[:2], order) == ORIENTATION:
            # A whole number of one, two or four bytes: at the beginning of the field, whatever the byte order.
            width = {1: 1, 3: 2, 4: 4}.get(int.from_bytes(entry[2:4], order), 0)
            value = int.from_bytes(entry[8 : 8 + width], order)
            return value if 1 <= value <= 8 else 1
    return 1


def _tiff_entries(data: bytes) -> Iterator[tuple[bytes, Order]]:
    """The entries of the first directory, 12 bytes each, as far as they are there."""
    if not data.startswith(TIFF_MAGICS):
        return
    order: Order = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[start : start + 2], order)
    for position in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        yield data[position : position + 12], order


def _tiff(data: bytes) -> Bare:
    """The first directory is written again in its place, shorter, and names no further one."""
    kept = [entry for entry, order in _tiff_entries(data) if int.from_bytes(entry[:2], order) in TIFF_PIXEL_TAGS]
    if not kept:
        return Bare(data)
    order: Order = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)
    directory = len(kept).to_bytes(2, order) + b"".join(kept) + bytes(4)
    return Bare(data[:start] + directory + data[start + len(directory) :], exif_orientation(data))


def _png(data: bytes) -> Bare:
    kept, orientation, position = [PNG], 1, len(PNG)
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        chunk, kind = data[position:end], data[position + 4 : position + 8]
        # A small first letter marks what a reader may do without. A wrong checksum there concerns nobody else.
        if not kind[0] & 0x20 or (kind == b"tRNS" and _is_sound(chunk)):
            kept.append(chunk)
        elif kind == b"eXIf" and _is_sound(chunk):
            orientation = exif_orientation(chunk[8:-4])
        if kind == b"IEND":
            break
        position = end
    return Bare(b"".join(kept), orientation)


def _is_sound(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _jpeg(data: bytes) -> Bare:
    kept, orientation, position, components = [data[:2]], 0, 2, 0
    while (position := data.find(b"\xff", position)) >= 0:
        marker = data[position + 1 : position + 2]
        if marker == b"\xff" or b"\xd0" <= marker <= b"\xd8" or marker in (b"\0", b"\1"):
            position += 1 if marker == b"\xff" else 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in (b"\xd9", b"\xda") or length < 2:
            break
        segment = data[position : position + 2 + length]
        if b"\xc0" <= marker <= b"\xcf" and marker not in (b"\xc4", b"\xc8", b"\xcc"):
            components = segment[9] if len(segment) > 9 else 0
        if marker == b"\xe1" and segment[4:10] == EXIF_PREFIX:
            orientation = orientation or exif_orientation(segment[4:])
        if not (b"\xe0" <= marker <= b"\xef" or marker == b"\xfe") or _tells_the_colours(segment):
            kept.append(segment)
        position += 2 + length
    if position < 0:
        return Bare(data)
    # In compressed data this marker cannot occur.
    starts = [match.end() + 2 for match in START_OF_SCAN.finditer(data, position)]
    scans = tuple(data[start : start + MAX_SCAN_HEADER] for start in starts)
    return Bare(b"".join([*kept, data[position:]]), orientation or 1, scans=scans, components=components)


def _tells_the_colours(segment: bytes) -> bool:
    """Of the application segments, these two say whether a JPEG holds RGB, YCbCr, CMYK or YCCK."""
    jfif = segment.startswith(b"\xff\xe0") and segment[4:9] == b"JFIF\0" and len(segment) >= 18
    return jfif or (segment.startswith(b"\xff\xee") and segment[4:9] == b"Adobe" and len(segment) >= 16)


def _webp(data: bytes) -> Bare:
    kept, orientation, canvas, position = [], 1, None, 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length + length % 2
        chunk = data[position:end]
        canvas = canvas or _webp_canvas(kind, chunk[8:])
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes(flags & 0x12 for flags in chunk[8:9]) + chunk[9:]  # Transparent, animated.
        if kind in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            kept.append(chunk)
        elif kind == b"EXIF":
            orientation = exif_orientation(chunk[8:])
        position = end
    content = b"WEBP" + b"".join(kept)
    return Bare(b"RIFF" + len(content).to_bytes(4, "little") + content, orientation, canvas)


def _webp_canvas(kind: bytes, content: bytes) -> tuple[int, int] | None:
    def number(start: int, end: int) -> int:
        return int.from_bytes(content[start:end], "little")

    if kind == b"VP8X":
        return number(4, 7) + 1, number(7, 10) + 1
    if kind == b"VP8L":
        return (number(1, 5) & 0x3FFF) + 1, (number(1, 5) >> 14 & 0x3FFF) + 1
    return (number(6, 8) & 0x3FFF, number(8, 10) & 0x3FFF) if kind == b"VP8 " else None


def _icon_canvas(data: bytes) -> tuple[int, int] | None:
    """The largest picture of an ICO file, by its own header; the directory of the file may say anything."""
    sizes = []
    for entry in range(6, 6 + 16 * int.from_bytes(data[4:6], "little"), 16):
        start = int.from_bytes(data[entry + 12 : entry + 16], "little")
        header = data[start : start + 24]
        if header.startswith(PNG):
            sizes.append((int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")))
        else:
            width, height = (int.from_bytes(header[at : at + 4], "little", signed=True) for at in (4, 8))
            sizes.append((abs(width), abs(height)))
    return max(sizes, key=math.prod, default=None)
