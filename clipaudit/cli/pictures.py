"""Small pictures in the terminal, of half blocks: each character cell is two pixels, one in each of its colours.

Sixel and the protocols of kitty and iTerm2 are sharper, but a terminal has to be asked whether it knows them, and the
answer arrives among the keys typed. Half blocks need true colour only, which the environment tells, and no dependency.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from clipaudit.text import printable

if TYPE_CHECKING:
    from PIL import Image

    from clipaudit.samples.reader import ImageReader

# The longer edge in pixels; half as many lines are needed.
EDGE = 20
UPPER_HALF = "▀"


def can_draw(console: Console) -> bool:
    """A person is looking, in true colour, with a font that has block characters; in a pipe never."""
    return (
        sys.stdout.isatty()
        and console.color_system == "truecolor"
        and not console.no_color
        and console.encoding.lower().startswith("utf")
    )


def picture(reader: ImageReader, sample_id: str) -> Text:
    """The image of a sample, or why it cannot be shown."""
    from clipaudit.errors import ImageError
    from clipaudit.images.ahead import decoded_or_reason
    from clipaudit.images.decoding import opened

    def drawn(sample_id: str) -> Text:
        with opened(reader.read(sample_id), target=EDGE) as image:
            return half_blocks(image)

    found = decoded_or_reason(drawn, sample_id)
    return Text(printable(str(found)), style="dim") if isinstance(found, ImageError) else found


def half_blocks(image: Image.Image) -> Text:
    """An RGB image, shrunk or enlarged so that its longer edge has EDGE pixels."""
    import numpy as np

    scale = EDGE / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    pixels = np.asarray(image.resize((width, height))).tolist()
    text = Text(no_wrap=True)
    for y in range(0, height, 2):
        if y:
            text.append("\n")
        for x in range(width):
            lower = Color.from_rgb(*pixels[y + 1][x]) if y + 1 < height else None
            text.append(UPPER_HALF, Style(color=Color.from_rgb(*pixels[y][x]), bgcolor=lower))
    return text
