"""What an image file says of itself without being decoded: size, format, EXIF date, camera and place, and words.

EXIF 2.32 (JEITA CP-3451): tags 0x010F/0x0110 make and model, 0xA434 lens; dates and places are in `indexers.exif`, the
words in `indexers.embedded`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from indexers.embedded import embedded_words
from indexers.exif import plain_text, position, taken
from indexers.fields import Metadata
from retrieval.images.decode import MAX_PIXELS, open_image

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_MAKE, _MODEL, _ORIENTATION, _LENS = 0x010F, 0x0110, 0x0112, 0xA434


def photo_facts(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Metadata:
    """width, height (upright, pixels), bytes, format, and where EXIF has them taken, camera, lens, latitude, longitude;
    and the words that the file has, see `indexers.embedded`.

    `taken` is ISO 8601, with the zone only if the file states one; coordinates are in degrees, south and
    west negative. Damaged EXIF yields fewer fields. Raises `ImageError` for what has no readable header
    or more than `max_pixels`.
    """
    with open_image(data, max_pixels=max_pixels) as image:
        width, height = image.size
        facts: Metadata = {"bytes": len(data), "format": str(image.format or "").lower()}
        exif = _exif(image)
        detail = (_attempt(exif.get_ifd, _EXIF_IFD) or {}) if exif is not None else {}
        facts |= embedded_words(image, data, exif, detail)
        if exif is not None:
            facts |= _fields(exif, detail)
            # TIFF, AVIF and HEIF tell their upright size themselves.
            if image.format in ("JPEG", "MPO", "PNG", "WEBP") and _attempt(exif.get, _ORIENTATION) in (5, 6, 7, 8):
                width, height = height, width
    return {"width": width, "height": height, **facts}


def _exif(image: Image.Image) -> Image.Exif | None:
    # PngImageFile.getexif() would decode every pixel to look for a chunk behind them.
    if image.format == "PNG" and "exif" not in image.info:
        return None
    return _attempt(image.getexif)  # type: ignore[no-any-return]


def _attempt(function: Any, *arguments: Any) -> Any:
    """What `function` returns, None if it fails: hostile EXIF makes Pillow raise nearly anything."""
    try:
        return function(*arguments)
    except Exception:
        return None


def _fields(exif: Image.Exif, detail: Mapping[int, Any]) -> Metadata:
    make, model = plain_text(_attempt(exif.get, _MAKE)), plain_text(_attempt(exif.get, _MODEL))
    if make and model.lower().startswith(make.split()[0].lower()):
        make = ""
    place = _attempt(position, _attempt(exif.get_ifd, _GPS_IFD) or {})
    found: dict[str, Any] = {
        "taken": _attempt(taken, lambda tag: _attempt(detail.get, tag) or _attempt(exif.get, tag)),
        "camera": f"{make} {model}".strip(),
        "lens": plain_text(_attempt(detail.get, _LENS)),
    }
    if place is not None:
        found["latitude"], found["longitude"] = place
    return {key: value for key, value in found.items() if value not in (None, "")}
