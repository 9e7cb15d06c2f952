"""What an image file says of itself without being decoded: size, format, EXIF date, camera and place, and words.

EXIF 2.32 (JEITA CP-3451): tags 0x010F/0x0110 make and model, 0xA434 lens; dates and places are in `indexers.exif`, the
words in `indexers.embedded`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile

from indexers.embedded import embedded_words
from indexers.exif import plain_text, position, taken
from indexers.fields import Metadata
from retrieval.images.decode import open_image

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_MAKE, _MODEL, _ORIENTATION, _LENS = 0x010F, 0x0110, 0x0112, 0xA434
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
        facts = _facts_of(image, data)
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
    """width, height (upright, pixels), bytes, format, and where EXIF has them taken, camera, lens, latitude, longitude;
    and the words that the file has, see `indexers.embedded`.

    `taken` is ISO 8601, with the zone only if the file states one; coordinates are in degrees, south and
    west negative. Damaged EXIF yields fewer fields. Raises `ImageError` for what has no readable header
    or more than `max_pixels`.
    """
    with open_image(data, max_pixels=max_pixels) as image:
        return _facts_of(image, data)


def _facts_of(image: ImageFile, data: bytes) -> Metadata:
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
