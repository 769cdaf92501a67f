"""What tells an image from others at a glance: hashes of its bytes and pixels, and one of how it looks."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DIGEST_BYTES = 16
# The difference hash has eight rows of eight bits: is a cell brighter than its neighbour to the left?
EDGE = 8


@dataclass(frozen=True)
class ImageHashes:
    """Hashes of one image.

    Attributes:
        content: Of the file's bytes.
        pixels: Of the decoded picture: the same for a lossless copy in another format, unless this one is a large JPEG
            image, which is decoded no finer than the model needs.
        look: 64 bits, the difference hash: nearly the same for a copy that was recompressed, scaled or brightened.
    """

    content: bytes
    pixels: bytes
    look: int


def image_hashes(data: bytes, image: Image.Image) -> ImageHashes:
    """The hashes of an image file and of the RGB picture that was decoded from it."""
    size = f"{image.width}x{image.height}".encode()
    pixels = blake2b(image.tobytes(), digest_size=DIGEST_BYTES, key=size).digest()
    return ImageHashes(blake2b(data, digest_size=DIGEST_BYTES).digest(), pixels, difference_hash(image))


def difference_hash(image: Image.Image) -> int:
    """The 64 bits of `ImageHashes.look`."""
    grey = np.asarray(image.convert("L").resize((EDGE + 1, EDGE), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


def differing_bits(looks: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """(n,) how many bits of two looks differ; a mirror image counts as the image itself."""
    return np.minimum(_set_bits(looks ^ others), _set_bits(looks ^ _mirrored(others)))


def _set_bits(numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    bits: NDArray[np.uint8] = np.unpackbits(numbers.view(np.uint8).reshape(-1, 8), axis=1).sum(1, dtype=np.uint8)
    return bits


def _mirrored(looks: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The looks of the mirror images: each row backwards, and what was brighter to the right is darker."""
    bits = np.unpackbits(looks.astype(">u8").view(np.uint8)).reshape(-1, EDGE, EDGE)
    return np.packbits(1 - bits[:, :, ::-1]).view(">u8").astype(np.uint64)
