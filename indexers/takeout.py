"""What Google Takeout says of a photograph, in the JSON file beside it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from indexers.fields import Metadata
from indexers.files import Unreadable
from indexers.xmp import MAX_TAGS, Said

#: One of these is in every such file.
_KNOWN = ("photoTakenTime", "geoData", "creationTime", "photoLastModifiedTime")


def read_takeout(text: str, image: str) -> Said | None:
    """What the text of a JSON file says of the picture called `image`; None for JSON that is not Google's.

    Raises `Unreadable` for what is no JSON. The date is in UTC, and place and date are hints: a picture's own EXIF has
    the local time, and comes first.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is not JSON: {error}") from None
    if not isinstance(data, dict) or not any(name in data for name in _KNOWN):
        return None
    title, words = _text(data.get("title")), _text(data.get("description"))
    metadata: Metadata = {"title": title} if title and title.casefold() != image.casefold() else {}
    people = data.get("people")
    names = [_text(each.get("name")) for each in people if isinstance(each, dict)] if isinstance(people, list) else []
    if named := list(dict.fromkeys(name for name in names if name))[:MAX_TAGS]:
        metadata["people"] = named
    if data.get("favorited") is True:
        metadata["favorite"] = True
    return Said((words,) if words else (), metadata, _taken(data) | _place(data))


def _text(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _taken(data: dict[str, Any]) -> Metadata:
    moment = data.get("photoTakenTime")
    try:
        seconds = int(str(moment["timestamp"])) if isinstance(moment, dict) else 0
        return {"taken": datetime.fromtimestamp(seconds, UTC).isoformat()} if seconds else {}
    except (KeyError, ValueError, OverflowError, OSError):
        return {}


def _place(data: dict[str, Any]) -> Metadata:
    for name in ("geoData", "geoDataExif"):
        place = data.get(name)
        if not isinstance(place, dict):
            continue
        latitude, longitude = place.get("latitude"), place.get("longitude")
        if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
            continue
        if not math.isfinite(latitude) or not math.isfinite(longitude):
            continue
        if (latitude, longitude) != (0, 0) and abs(latitude) <= 90 and abs(longitude) <= 180:
            return {"latitude": float(latitude), "longitude": float(longitude)}
    return {}
