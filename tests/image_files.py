"""Image files as cameras, editors and attackers write them, byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int | None, *others: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A TIFF structure with an orientation and any other entries: (tag, type, count, four bytes)."""
    entries = sorted([*others, *([(0x0112, 3, 1, struct.pack(f"{order}HH", orientation, 0))] if orientation else [])])
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        directory += struct.pack(f"{order}HHI", tag, kind, count) + value
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", 8) + directory + bytes(4) + struct.pack(f"{order}ii", -7, 3)


def odd_exif(orientation: int, order: str = "<") -> bytes:
    """`Make` as a RATIONAL, a negative SRATIONAL, a text far behind the end, a directory that contains itself."""
    offset = struct.pack(f"{order}I", 8 + 2 + 12 * 5 + 4)
    return exif(
        orientation,
        (0x010F, 5, 1, offset),
        (0x9204, 10, 1, offset),
        (0x010E, 2, 1 << 30, b"\xff\xff\xff\x7f"),
        (0x8769, 4, 1, struct.pack(f"{order}I", 8)),
        order=order,
    )


def jpeg_with(data: bytes, *segments: tuple[int, bytes]) -> bytes:
    """Segments (marker, content) after the start marker."""
    inserted = b"".join(bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return data[:2] + inserted + data[2:]


def jpeg_with_exif(data: bytes, content: bytes) -> bytes:
    return jpeg_with(data, (0xE1, b"Exif\0\0" + content))


def png_chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_with(data: bytes, *chunks: bytes, before: bytes = b"IDAT") -> bytes:
    at = data.index(before) - 4
    return data[:at] + b"".join(chunks) + data[at:]


def png_of(width: int, height: int) -> bytes:
    """A grey PNG of any size, which compresses to next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    compressor, rows = zlib.compressobj(9), []
    row = bytes(1) + bytes([90]) * width
    for _ in range(height):
        rows.append(compressor.compress(row))
    rows.append(compressor.flush())
    return PNG + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"".join(rows)) + png_chunk(b"IEND", b"")


def webp_with(data: bytes, *chunks: tuple[bytes, bytes], flags: int = 0) -> bytes:
    """An extended WEBP file of a simple one and more chunks."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    header = bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + webp_chunk(b"VP8X", header) + data[12:] + b"".join(webp_chunk(*chunk) for chunk in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def webp_bomb() -> bytes:
    """34 bytes that say 10,000 x 10,000 pixels (VP8L, one colour)."""
    bits = 9999 | 9999 << 14 | 0 << 28
    content = b"\x2f" + struct.pack("<I", bits) + bytes.fromhex("8888888800000000")[:9]
    content = content.ljust(14, b"\0")
    body = b"WEBP" + webp_chunk(b"VP8L", content)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def icon_of(picture: bytes) -> bytes:
    """An ICO file whose directory says 16 x 16, whatever the picture is."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture), 22) + picture


def with_extra_scans(progressive: bytes, count: int) -> bytes:
    """The last scan of a progressive JPEG again and again."""
    last = progressive.rindex(b"\xff\xda")
    return progressive[:-2] + progressive[last:-2] * count + b"\xff\xd9"
