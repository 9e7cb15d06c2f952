"""JPEGs whose end is missing, as after a copy that was broken off: shown as far as they go, if that is most of them."""

from __future__ import annotations

import io
from typing import IO

from PIL import Image, ImageChops

#: The share of a picture's rows that may be missing at its lower end.
MAX_MISSING = 0.25
_END = b"\xff\xd9"
_BLOCK_ROWS = 16
_STRIP_ROWS = 256


def with_end(file: IO[bytes]) -> IO[bytes]:
    """The file with the mark of a JPEG's end, at which its decoder fills in what has not come."""
    file.seek(0)
    return io.BytesIO(file.read() + _END)


def missing_share(image: Image.Image, full_height: int) -> float:
    """The share of a picture that was filled in: what is of one colour at its lower end. full_height: unscaled.

    A decoder fills in one colour, block by block. A picture that has one there itself looks as if more were missing.
    """
    width, height = image.size
    colour = image.getpixel((width - 1, height - 1))
    for bottom in range(height, 0, -_STRIP_ROWS):
        top = max(0, bottom - _STRIP_ROWS)
        shown = _box_of_others(image.crop((0, top, width, bottom)), colour)
        if shown is None:
            continue
        last = top + shown[3]
        # Of the row of blocks in which the data ended, the part to the right is filled in.
        row = _box_of_others(image.crop((0, last - 1, width, last)), colour) or (0, 0, width, 1)
        block = min(last, _BLOCK_ROWS * height / full_height)
        return (height - last + block * (width - row[2]) / width) / height
    return 1.0


def _box_of_others(strip: Image.Image, colour: float | tuple[int, ...] | None) -> tuple[int, int, int, int] | None:
    """Around the pixels of another colour."""
    return ImageChops.difference(strip, Image.new(strip.mode, strip.size, colour)).getbbox(alpha_only=False)
