"""What an image file says of itself without being decoded: size, format, and EXIF date, camera and place.

EXIF 2.32 (JEITA CP-3451): tags 0x010F/0x0110 make and model, 0x9003 DateTimeOriginal, 0x9011
OffsetTimeOriginal, 0xA434 lens; GPS tags 1 to 4.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile

from indexers.fields import Metadata
from retrieval.images.decode import open_image

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_MAKE, _MODEL, _DATE_TIME, _ORIENTATION = 0x010F, 0x0110, 0x0132, 0x0112
_ORIGINAL, _DIGITIZED, _OFFSET, _LENS = 0x9003, 0x9004, 0x9011, 0xA434
_DATE = re.compile(r"(\d{4})[:\-/](\d\d)[:\-/](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_ZONE = re.compile(r"[+-]\d\d:\d\d\Z")
MAX_FIELD_CHARS = 200
#: Pages of a TIFF that are items; an archive's whole volume may be one file.
MAX_PAGES = 256
#: Tag 254 of a TIFF: the page is a smaller copy of another one, or a mask.
_SUBFILE, _NO_PAGE = 254, 0b101


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture file without its pixels.

    facts: as `photo_facts` gives them. pages: of a TIFF of several, the parts after the first, such as ``page=2``, with
    their sizes. notes: what its owner should know of what was taken of it.
    """

    facts: Metadata
    pages: tuple[tuple[str, int, int], ...] = ()
    notes: tuple[str, ...] = ()


def read_photo(data: bytes, *, max_pixels: int | None = None) -> Photo:
    """What a picture file holds, without decoding it. Raises `ImageError` as `photo_facts` does."""
    with open_image(data, max_pixels=max_pixels) as image:
        facts = _facts_of(image, len(data))
        notes = ["its end is missing: taken as far as it goes"] if image.info.get("is_cut") else []
        if image.format == "TIFF":
            pages, more = _pages(image)
            if more:
                notes.append(f"it has more than {MAX_PAGES} pages: the first {MAX_PAGES} are taken")
            facts |= {"page": 1, "pages": len(pages) + 1} if pages else {}
            return Photo(facts, tuple(pages), tuple(notes))
        if image.format in ("GIF", "PNG", "WEBP", "AVIF") and _attempt(getattr, image, "is_animated", False):
            notes.append("it is an animation: its first frame is taken")
    return Photo(facts, (), tuple(notes))


def _pages(image: ImageFile) -> tuple[list[tuple[str, int, int]], bool]:
    """The pages of a TIFF after the first with their sizes, and whether there are more; what is damaged ends them."""
    found: list[tuple[str, int, int]] = []
    for number in range(1, MAX_PAGES + 1):
        try:
            image.seek(number)
            tags = getattr(image, "tag_v2", {})
            kind = tags.get(_SUBFILE, 0)
            is_page = not (isinstance(kind, int) and kind & _NO_PAGE)
        except Exception:
            return found, False
        if number == MAX_PAGES:
            return found, True
        if is_page:
            found.append((f"page={number + 1}", *image.size))
    return found, False


def photo_facts(data: bytes, *, max_pixels: int | None = None) -> Metadata:
    """width, height (upright, pixels), bytes, format, and where EXIF has them taken, camera, lens, latitude, longitude.

    `taken` is ISO 8601, with the zone only if the file states one; coordinates are in degrees, south and
    west negative. Damaged EXIF yields fewer fields. Raises `ImageError` for what has no readable header
    or more than `max_pixels`.
    """
    with open_image(data, max_pixels=max_pixels) as image:
        return _facts_of(image, len(data))


def _facts_of(image: ImageFile, size_bytes: int) -> Metadata:
    width, height = image.size
    facts: Metadata = {"bytes": size_bytes, "format": str(image.format or "").lower()}
    exif = _exif(image)
    if exif is not None:
        facts |= _fields(exif)
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


def _fields(exif: Image.Exif) -> Metadata:
    detail = _attempt(exif.get_ifd, _EXIF_IFD) or {}
    make, model = _text(_attempt(exif.get, _MAKE)), _text(_attempt(exif.get, _MODEL))
    if make and model.lower().startswith(make.split()[0].lower()):
        make = ""
    position = _attempt(_place, _attempt(exif.get_ifd, _GPS_IFD) or {})
    found: dict[str, Any] = {
        "taken": _taken(detail, _attempt(exif.get, _DATE_TIME)),
        "camera": f"{make} {model}".strip(),
        "lens": _text(_attempt(detail.get, _LENS)),
    }
    if position is not None:
        found["latitude"], found["longitude"] = position
    return {key: value for key, value in found.items() if value not in (None, "")}


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    printable = "".join(c if c.isprintable() else " " for c in value)
    return " ".join(printable.split())[:MAX_FIELD_CHARS]


def _taken(detail: Any, fallback: Any) -> str | None:
    for value in (_attempt(detail.get, _ORIGINAL), _attempt(detail.get, _DIGITIZED), fallback):
        match = _DATE.match(_text(value))
        if match is None:
            continue
        try:
            moment = datetime(*(int(part) for part in match.groups()))  # type: ignore[arg-type]
        except ValueError:
            continue
        zone = _text(_attempt(detail.get, _OFFSET))
        return moment.isoformat() + (zone if _ZONE.match(zone) else "")
    return None


def _place(gps: Any) -> tuple[float, float] | None:
    latitude = _degrees(gps[2], gps[1], "S")
    longitude = _degrees(gps[4], gps[3], "W")
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    # Cameras without a fix write zeros; nobody photographs the Gulf of Guinea's null point that exactly.
    if latitude == longitude == 0:
        return None
    return latitude, longitude


def _degrees(value: Any, reference: Any, negative: str) -> float:
    degrees, minutes, seconds = (float(part) for part in value)
    total = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(total):
        raise ValueError("no finite angle")
    return round(-total if _text(reference).upper().startswith(negative) else total, 7)
