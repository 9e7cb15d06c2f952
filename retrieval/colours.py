"""From any pixel mode, colour profile and orientation to upright 8-bit sRGB."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image, ImageCms

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


def upright_rgb(image: Image.Image) -> Image.Image:
    """A new RGB image of the same picture: turned upright, on white, in sRGB, without metadata.

    Decodes the image if that has not happened yet; what Pillow raises then passes through. ValueError
    for float samples of which none is a number.
    """
    image.load()
    colour, alpha = _split_alpha(image)
    rgb = _to_srgb(colour, image.info.get("icc_profile"))
    if alpha is not None:
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        rgb = white
    # Read after decoding: the TIFF, AVIF and HEIF decoders turn the image themselves and then say so.
    transpose = _TRANSPOSE.get(_orientation(image))
    if transpose is not None:
        rgb = rgb.transpose(transpose)
    elif rgb is image:
        rgb = rgb.copy()
    # A second pass over this image must not turn or convert it again.
    rgb.info.clear()
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        # Damaged EXIF says nothing of the pixels, which are whole.
        return 1
    return value if isinstance(value, int) else 1


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours, in a mode of 8-bit bands, and the opacity if the image has one."""
    if image.mode.startswith(("I", "F")):
        return _scale_to_8_bits(image)
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


def _scale_to_8_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16-bit, 32-bit and float greys, which Pillow's `convert` would clip at 255.

    16-bit samples span 0..65535. The range of the wider types is not written in the file: it is taken as
    0..1 (floats), 0..255 or 0..65535, the first that holds all values, else as what the values span.
    """
    values = np.asarray(image)
    opaque = None
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        opaque = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    numbers = values.astype(np.float32)
    finite = np.isfinite(numbers)
    low, high = float(numbers.min(where=finite, initial=np.inf)), float(numbers.max(where=finite, initial=-np.inf))
    if not finite.all():
        if low > high:
            raise ValueError("it has no finite sample")
        numbers = np.nan_to_num(numbers, nan=low, posinf=high, neginf=low)
    ranges = [65535.0] if image.mode.startswith("I;16") else [1.0] * (image.mode == "F") + [255.0, 65535.0]
    if low >= 0 and high <= ranges[-1]:
        low, high = 0.0, next(limit for limit in ranges if high <= limit)
    numbers -= low
    numbers *= 255.0 / max(high - low, 1e-30)
    return Image.fromarray(np.rint(numbers).astype(np.uint8)), opaque


def _to_srgb(image: Image.Image, icc_profile: object) -> Image.Image:
    """Convert by the embedded ICC profile where it fits the image, else by Pillow's formulas."""
    space = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}.get(image.mode)
    if isinstance(icc_profile, bytes) and icc_profile and space:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            fits = profile.profile.xcolor_space.strip() == space
            if fits and not _IS_SRGB.match(profile.profile.profile_description or ""):
                srgb = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            # A damaged profile is no reason to lose the picture: its numbers are then taken as sRGB.
            return image.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
