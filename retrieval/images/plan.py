"""How a picture is decoded so that no more is made of it than is wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import IO

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile

from retrieval.images.colours import upright_rgb
from retrieval.images.headers import Header, HeaderError
from retrieval.images.memory import Work, peak_bytes
from retrieval.images.truncated import MAX_MISSING, missing_share

#: Pictures of more pixels are made smaller while they are decoded or converted, where the caller permits it.
SHRINK_ABOVE = 3_000_000
#: Of those, one that is longer than so many times its short side is cut to its middle.
MAX_ASPECT = 8.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller needs of a picture, so that no more is made.

    target_size: as in `images.load_image`. fit: the longest side, in pixels; a larger picture is resized to it, whole
    or, with `middle`, what `images.crop_elongated` leaves of it.
    """

    target_size: int | None = None
    fit: int | None = None
    middle: bool = False

    @property
    def short_side(self) -> int | None:
        """What the short side may be reduced to; None where the picture is wanted as it is."""
        return self.target_size if self.fit is None else self.fit

    def of(self, image: Image.Image) -> Image.Image:
        """What is wanted of a decoded picture, which may be changed."""
        if self.fit is None:
            return image
        box = middle_box(image.size) if self.middle else (0, 0, *image.size)
        if box != (0, 0, *image.size):
            image = image.crop(box)
        image.thumbnail((self.fit, self.fit), Image.Resampling.LANCZOS)
        return image


class Plan:
    """One opened image, told to decode smaller where its format can; `peak_bytes` is what `decode` takes."""

    def __init__(self, image: ImageFile, wanted: Wanted, *, header: Header, size_bytes: int) -> None:
        self._image, self._wanted, self.header = image, wanted, header
        full, self._full_height = image.size, image.height
        self._size = image.size if wanted.short_side is None else _scale(image, wanted.short_side)
        self._box = middle_box(self._size) if self._is_cut() else (0, 0, *self._size)
        self._shrink = self._factor()
        width, height = self._box[2] - self._box[0], self._box[3] - self._box[1]
        self.result = (-(-width // self._shrink), -(-height // self._shrink))
        work = Work(
            size=self._size,
            full=full,
            scans=header.scans,
            size_bytes=size_bytes,
            result=self.result,
            shrink=self._shrink,
        )
        self.peak_bytes = peak_bytes(image, work)

    def decode(self) -> Image.Image:
        """The picture. The opened image is used up. Raises `HeaderError` where too much of it is missing."""
        image = self._image
        image.load()
        if self.header.is_cut and (missing := missing_share(image, self._full_height)) > MAX_MISSING:
            raise HeaderError(f"is truncated: {missing:.0%} of it are missing")
        # The decoders of WebP and AVIF keep whole pictures of their own.
        vars(image).pop("_decoder", None)
        decoded: Image.Image = image
        if self._box != (0, 0, *self._size):
            decoded = image.crop(self._box)
            image.close()
        rgb = upright_rgb(decoded, shrink=self._shrink, consume=True)
        if self._wanted.fit is not None:
            rgb.thumbnail((self._wanted.fit, self._wanted.fit), Image.Resampling.LANCZOS)
        return rgb

    def _is_cut(self) -> bool:
        """Whether only the middle is taken of a very long picture."""
        width, height = self._size
        if self._wanted.fit is not None:
            return self._wanted.middle
        return self._wanted.target_size is not None and width * height > SHRINK_ABOVE

    def _factor(self) -> int:
        """By what the sides are divided after decoding, 1 for a picture that is small enough."""
        width, height = self._box[2] - self._box[0], self._box[3] - self._box[1]
        needed = math.ceil(math.sqrt(width * height / SHRINK_ABOVE))
        if self._wanted.fit is not None:
            # Twice what is wanted is left for the resize, which looks better.
            return max(1, min(needed, max(width, height) // (2 * self._wanted.fit)))
        if self._wanted.target_size is None:
            return 1
        return max(1, min(needed, min(width, height) // self._wanted.target_size))


def result_pixels(size: tuple[int, int], image_format: str, wanted: Wanted) -> int:
    """How many pixels come of a picture of this size and format (in lower case), at most."""
    width, height = size
    pixels = width * height
    if wanted.fit is not None:
        return min(pixels, wanted.fit**2)
    short = wanted.target_size
    if short is None:
        return pixels
    if image_format in ("jpeg", "mpo"):
        pixels //= max((scale for scale in (1, 2, 4, 8) if min(size) // scale >= short), default=1) ** 2
    if pixels <= SHRINK_ABOVE:
        return pixels
    # Averaged down by whole numbers, and cut to its middle.
    return min(pixels, max(SHRINK_ABOVE, int(MAX_ASPECT * (2 * short) ** 2)))


def middle_box(size: tuple[int, int], max_aspect: float = MAX_ASPECT) -> tuple[int, int, int, int]:
    """The middle of a picture whose sides differ by more than `max_aspect`, else all of it."""
    width, height = size
    if max(width, height) <= min(width, height) * max_aspect:
        return (0, 0, width, height)
    longest = max(1, round(min(width, height) * max_aspect))
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return (left, top, left + min(width, longest), top + min(height, longest))


def _scale(image: ImageFile, short_side: int) -> tuple[int, int]:
    """Have JPEG and JPEG 2000 decoded at a half, a quarter or an eighth; gives the size that comes out."""
    if isinstance(image, JpegImageFile):
        image.draft(None, (short_side, short_side))
    if not isinstance(image, Jpeg2KImageFile) or image.width * image.height <= SHRINK_ABOVE or image.fp is None:
        return image.size
    halvings = min(_wavelet_levels(image.fp), max(0, (min(image.size) // short_side).bit_length() - 1), 3)
    # Not to be read again: without a reduction of its own, the image has the method of this name.
    image.reduce = halvings
    power = 1 << halvings
    return ((image.width + power // 2) // power, (image.height + power // 2) // power)


def _wavelet_levels(file: IO[bytes]) -> int:
    """How many times a JPEG 2000 can be halved: the decomposition levels of its COD marker; 0 if there is none."""
    place = file.tell()
    file.seek(0)
    head = file.read(64 * 1024)
    file.seek(place)
    start = head.find(b"\xff\x4f\xff\x51")
    at = head.find(b"\xff\x52", start) if start >= 0 else -1
    return head[at + 9] if 0 <= at < len(head) - 9 else 0
