"""From any pixel mode, colour profile and orientation to upright 8-bit sRGB, strip by strip."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageCms

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Pixels that are converted at a time: what a conversion needs beside the picture is then some megabytes.
STRIP_PIXELS = 1_000_000

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Names of profiles that change nothing; a linear sRGB is called otherwise.
_IS_SRGB = re.compile(r"sRGB( IEC61966.*| built-in)?$|c2$")
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


def upright_rgb(image: Image.Image, *, shrink: int = 1, consume: bool = False) -> Image.Image:
    """A new RGB image of the same picture: turned upright, on white, in sRGB, without metadata.

    Decodes the image if that has not happened yet; what Pillow raises then passes through. ValueError
    for float samples of which none is a number.

    shrink: both sides are divided by it, rounded up, by averaging squares of so many pixels. consume: the image is
    not used any more and may be closed, which spares a copy of its pixels.
    """
    image.load()
    rgb = _converted(image, shrink, consume)
    # Read after decoding: the TIFF, AVIF and HEIF decoders turn the image themselves and then say so.
    transpose = _TRANSPOSE.get(_orientation(image))
    if consume:
        image.close()
    if transpose is not None:
        rgb = rgb.transpose(transpose)
    # A second pass over this image must not turn or convert it again.
    rgb.info.clear()
    return rgb


def is_transposed(image: Image.Image) -> bool:
    """Whether `upright_rgb` turns the picture, for which it needs another copy of it; decodes nothing."""
    # PngImageFile.getexif() would decode every pixel to look for a chunk behind them.
    known = image.format != "PNG" or "exif" in image.info
    return known and _orientation(image) in _TRANSPOSE


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        # Damaged EXIF says nothing of the pixels, which are whole.
        return 1
    return value if isinstance(value, int) else 1


def _converted(image: Image.Image, shrink: int, consume: bool) -> Image.Image:
    """The picture as a new RGB image, not turned yet."""
    width, height = image.size
    convert = _Converter(image)
    if shrink == 1 and convert.is_done(image):
        return image._new(image.im) if consume else image.copy()
    rows = max(1, STRIP_PIXELS // width // shrink) * shrink
    if rows >= height:
        rgb = convert(image)
        # JPEG 2000's class has a number in the place of the method.
        return Image.Image.reduce(rgb, shrink) if shrink > 1 else rgb
    result = Image.new("RGB", (-(-width // shrink), -(-height // shrink)))
    for top in range(0, height, rows):
        strip = convert(image.crop((0, top, width, min(height, top + rows))))
        result.paste(strip.reduce(shrink) if shrink > 1 else strip, (0, top // shrink))
    return result


@dataclass(frozen=True, slots=True)
class _Range:
    """What samples are taken to lie between."""

    low: float
    high: float
    finite: bool


class _Converter:
    """Turns strips of one image into RGB; what holds for the whole image is looked at once."""

    def __init__(self, image: Image.Image) -> None:
        self._range = _sample_range(image) if image.mode.startswith(("I", "F")) else None
        self._profile = image.info.get("icc_profile")
        self._transforms: dict[str, ImageCms.ImageCmsTransform | None] = {}

    def is_done(self, image: Image.Image) -> bool:
        """Whether there is nothing to convert."""
        return image.mode == "RGB" and not image.has_transparency_data and self._transform("RGB") is None

    def __call__(self, strip: Image.Image) -> Image.Image:
        colour, alpha = _split_alpha(strip, self._range)
        rgb = self._to_srgb(colour)
        if alpha is None:
            return rgb
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        return white

    def _to_srgb(self, image: Image.Image) -> Image.Image:
        """Convert by the embedded ICC profile where it fits the image, else by Pillow's formulas."""
        transform = self._transform(image.mode)
        if transform is not None:
            return ImageCms.applyTransform(image, transform) or image
        return image if image.mode == "RGB" else image.convert("RGB")

    def _transform(self, mode: str) -> ImageCms.ImageCmsTransform | None:
        if mode not in self._transforms:
            self._transforms[mode] = _transform(self._profile, mode)
        return self._transforms[mode]


def _transform(icc_profile: object, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What converts a mode's numbers to sRGB; None if the profile does not fit, is damaged or changes nothing."""
    space = _SPACES.get(mode)
    if not (isinstance(icc_profile, bytes) and icc_profile and space):
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        fits = profile.profile.xcolor_space.strip() == space
        if not fits or _IS_SRGB.match(profile.profile.profile_description or ""):
            return None
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        # A damaged profile is no reason to lose the picture: its numbers are then taken as sRGB.
        return None


def _split_alpha(image: Image.Image, samples: _Range | None) -> tuple[Image.Image, Image.Image | None]:
    """The colours, in a mode of 8-bit bands, and the opacity if the image has one."""
    if samples is not None:
        return _scale_to_8_bits(image, samples)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        grey = image.mode in ("L", "LA", "1")
        return (rgba.getchannel("R") if grey else rgba.convert("RGB")), rgba.getchannel("A")
    if image.mode == "P":
        return image.convert("RGB"), None
    if image.mode == "1":
        return image.convert("L"), None
    return image, None


def _sample_range(image: Image.Image) -> _Range:
    """The range of 16-bit, 32-bit and float greys, which Pillow's `convert` would clip at 255.

    16-bit samples span 0..65535. The range of the wider types is not written in the file: it is taken as
    0..1 (floats), 0..255 or 0..65535, the first that holds all values, else as what the values span.
    """
    import numpy as np

    low, high, all_finite = np.inf, -np.inf, True
    width, height = image.size
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        values = _numbers(image.crop((0, top, width, min(height, top + rows))))
        finite = np.isfinite(values)
        low = min(low, float(values.min(where=finite, initial=np.inf)))
        high = max(high, float(values.max(where=finite, initial=-np.inf)))
        all_finite = all_finite and bool(finite.all())
    if not all_finite and low > high:
        raise ValueError("it has no finite sample")
    ranges = [65535.0] if image.mode.startswith("I;16") else [1.0] * (image.mode == "F") + [255.0, 65535.0]
    if low >= 0 and high <= ranges[-1]:
        low, high = 0.0, next(limit for limit in ranges if high <= limit)
    return _Range(low, high, all_finite)


def _numbers(image: Image.Image) -> NDArray[Any]:
    import numpy as np

    return np.asarray(image).astype(np.float32)


def _scale_to_8_bits(image: Image.Image, samples: _Range) -> tuple[Image.Image, Image.Image | None]:
    import numpy as np

    opaque = None
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        opaque = Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8))
    numbers = _numbers(image)
    if not samples.finite:
        numbers = np.nan_to_num(numbers, nan=samples.low, posinf=samples.high, neginf=samples.low)
    numbers -= samples.low
    numbers *= 255.0 / max(samples.high - samples.low, 1e-30)
    return Image.fromarray(np.rint(numbers).astype(np.uint8)), opaque
