"""What XMP says of a picture: description, title, keywords, rating, people, date and place.

ISO 16684-1; the schemas dc, xmp, photoshop, exif and mwg-rs. XML is parsed without entities, external or its own: one
that has any is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from indexers.fields import Metadata
from indexers.files import Unreadable

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DC = "{http://purl.org/dc/elements/1.1/}"
XMP = "{http://ns.adobe.com/xap/1.0/}"
PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_REGIONS = "{http://www.metadataworkinggroup.com/schemas/regions/}"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_ANGLE = re.compile(r"(\d{1,3}),(\d{1,2}(?:\.\d+)?)(?:,(\d{1,2}(?:\.\d+)?))?([NSEW])\Z")
_DATE = re.compile(r"\d{4}(?:-\d\d(?:-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?)?)?\Z")
MAX_TAGS = 200


@dataclass(slots=True)
class Said:
    """What a sidecar says: captions, fields that a person set, and hints that the picture itself overrules."""

    captions: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    hints: Metadata = field(default_factory=dict)


def parsed(data: bytes) -> Any:
    """The root of an XMP document or packet. Raises `Unreadable` for what is no XML, or XML with entities."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        return fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise Unreadable("has XML entities or a document type, which are not read") from None
    except (ParseError, ValueError, LookupError) as error:
        raise Unreadable(f"is not XML: {error}") from None


def read_xmp(data: bytes) -> Said:
    """What an XMP document or packet says. Raises `Unreadable` for what is no XML, or XML with entities."""
    root = parsed(data)
    values = _Values(list(root.iter(f"{RDF}Description")))
    title, words = values.text(f"{DC}title"), values.text(f"{DC}description")
    found: dict[str, Any] = {
        "title": title,
        "tags": values.list(f"{DC}subject")[:MAX_TAGS],
        "rating": _rating(values.text(f"{XMP}Rating")),
        "creator": values.list(f"{DC}creator")[:MAX_TAGS],
        "city": values.text(f"{PHOTOSHOP}City"),
        "country": values.text(f"{PHOTOSHOP}Country"),
        "people": _people(root),
    }
    dates = (values.text(name) for name in (f"{_EXIF}DateTimeOriginal", f"{PHOTOSHOP}DateCreated", f"{XMP}CreateDate"))
    hints: dict[str, Any] = {
        "taken": next((date for date in dates if _DATE.match(date)), ""),
        "latitude": _angle(values.text(f"{_EXIF}GPSLatitude")),
        "longitude": _angle(values.text(f"{_EXIF}GPSLongitude")),
    }
    if None in (hints["latitude"], hints["longitude"]):
        hints["latitude"] = hints["longitude"] = None
    return Said((words,) if words else (), _filled(found), _filled(hints))


def _filled(fields: dict[str, Any]) -> Metadata:
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


class _Values:
    """Properties of the descriptions, written as attributes or as elements."""

    def __init__(self, descriptions: list[Any]) -> None:
        self._descriptions = descriptions

    def text(self, name: str) -> str:
        """One text: of several languages the default, of a list the first."""
        return next(iter(self.list(name)), "")

    def list(self, name: str) -> list[str]:
        """All texts of a property, each once, those of the default language first."""
        found: list[tuple[bool, str]] = []
        for description in self._descriptions:
            found.append((True, description.get(name, "")))
            for element in description.findall(name):
                items = list(element.iter(f"{RDF}li")) or [element]
                found += [(item.get(LANGUAGE, "x-default") == "x-default", item.text or "") for item in items]
        texts = (" ".join(text.split()) for _, text in sorted(found, key=lambda pair: not pair[0]))
        return list(dict.fromkeys(text for text in texts if text))


def _rating(text: str) -> int | None:
    try:
        rating = round(float(text))
    except (ValueError, OverflowError):
        return None
    return rating if -1 <= rating <= 5 else None


def _angle(text: str) -> float | None:
    match = _ANGLE.match(text)
    if match is None:
        return None
    degrees = int(match[1]) + float(match[2]) / 60 + float(match[3] or 0) / 3600
    most = 90 if match[4] in "NS" else 180
    return round(-degrees if match[4] in "SW" else degrees, 7) if degrees <= most else None


def _people(root: Any) -> list[str]:
    """The names of faces that are marked."""
    names = []
    for region in root.iter():
        kind = region.get(f"{_REGIONS}Type") or getattr(region.find(f"{_REGIONS}Type"), "text", None)
        name = region.get(f"{_REGIONS}Name") or getattr(region.find(f"{_REGIONS}Name"), "text", None)
        if kind == "Face" and name and name.strip():
            names.append(" ".join(name.split()))
    return list(dict.fromkeys(names))[:MAX_TAGS]
