"""What EXIF says of when and where a photo was taken, in the forms that cameras and programs really write.

EXIF 2.32 (JEITA CP-3451): tags 0x9003 DateTimeOriginal, 0x9004 DateTimeDigitized, 0x0132 DateTime, each with a tag for
its offset from UTC (0x9011, 0x9012, 0x9010); GPS tags 1 to 4.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from indexers.legacy import likely_encodings

MAX_FIELD_CHARS = 200
#: What is read of a text: more than is kept of any, and little enough to guess its encoding in milliseconds.
MAX_TEXT_BYTES = 32 * 1024
#: Each date with the tag of its offset; the first that can be read holds.
_DATES = ((0x9003, 0x9011), (0x9004, 0x9012), (0x0132, 0x9010))
_DATE = re.compile(
    r"(?P<year>\d{4}|\d\d)\s?[:\-/.]\s?(?P<month>\d{1,2})\s?[:\-/.]\s?(?P<day>\d{1,2})(?!\d)"
    r"(?:[ T_]{0,2}(?P<hour>\d{1,2})\s?[:.\-]\s?(?P<minute>\d{1,2})(?:\s?[:.\-]\s?(?P<second>\d{1,2}))?(?:[.,]\d*)?"
    r"\s?(?P<half>[AaPp][Mm])?(?P<rest>.*))?",
    re.ASCII,
)
_RUN_ON = re.compile(r"(\d{4})(\d\d)(\d\d)(?:[ T_]?(\d\d)(\d\d)(\d\d))?(?!\d)(.*)", re.ASCII)
_ZONE = re.compile(r"\s*(?P<sign>[+-])(?P<hours>\d{1,2}):?(?P<minutes>\d\d)?\s*\Z", re.ASCII)
_LAST_OFFSET_MINUTES = 14 * 60


def plain_text(value: Any, limit: int = MAX_FIELD_CHARS) -> str:
    """A value of EXIF as one line, "" for what is no text; in UTF-8, or the older encoding that it looks like."""
    if isinstance(value, str):
        # Pillow reads each byte as a character of Latin-1.
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:
            return one_line(value, limit)
    return one_line(decoded(value), limit) if isinstance(value, bytes) else ""


def decoded(data: bytes) -> str:
    """Bytes without a stated encoding as text: UTF-8, or the older encoding that they look like; the first 32 KiB."""
    is_whole = len(data) <= MAX_TEXT_BYTES
    data = data[:MAX_TEXT_BYTES].rstrip(b"\x00 ")
    try:
        return _strictly(data, "utf-8", is_whole)
    except UnicodeDecodeError:
        for name in likely_encodings(data):
            try:
                return _strictly(data, name, is_whole)
            except (UnicodeDecodeError, LookupError):
                continue
    return data.decode("cp1252", "replace")


def _strictly(data: bytes, encoding: str, is_whole: bool) -> str:
    # A character that the limit cuts is no error.
    return codecs.getincrementaldecoder(encoding)().decode(data, final=is_whole)


def one_line(text: str, limit: int) -> str:
    """Printable text with single spaces, at most `limit` characters of it."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])
    return " ".join(printable.split())[:limit]


def taken(of: Callable[[int], Any]) -> str | None:
    """When a photo was taken, as ISO 8601, with the offset from UTC if the file states one; None if it does not say.

    of: gives the value of a tag, None where there is none. A date without a time of day stays one.
    """
    for tag, offset in _DATES:
        moment = moment_of(plain_text(of(tag)), plain_text(of(offset)))
        if moment is not None:
            return moment
    return None


def moment_of(text: str, offset: str = "") -> str | None:
    """A date and time of EXIF or XMP as ISO 8601; None for what is none, such as zeros of a camera without a clock."""
    text = text.strip()
    match = _DATE.match(text)
    if match is None:
        return _run_on(text, offset)
    year = int(match["year"])
    if len(match["year"]) == 2:
        # The windows of POSIX: 69 is of the last century, 68 of this one.
        year += 1900 if year >= 69 else 2000
    date = (year, int(match["month"]), int(match["day"]))
    if match["hour"] is None:
        return _day(*date)
    hour = int(match["hour"])
    if match["half"] is not None and 1 <= hour <= 12:
        hour = hour % 12 + (12 if match["half"].lower() == "pm" else 0)
    return _moment(*date, hour, int(match["minute"]), int(match["second"] or 0), _zone(match["rest"]) or _zone(offset))


def _run_on(text: str, offset: str) -> str | None:
    match = _RUN_ON.match(text)
    if match is None:
        return None
    year, month, day, *clock = (int(part) for part in match.groups()[:6] if part is not None)
    if not clock:
        return _day(year, month, day)
    return _moment(year, month, day, clock[0], clock[1], clock[2], _zone(match[7]) or _zone(offset))


def _day(year: int, month: int, day: int) -> str | None:
    try:
        return datetime(year, month, day).date().isoformat()
    except ValueError:
        return None


def _moment(year: int, month: int, day: int, hour: int, minute: int, second: int, zone: str) -> str | None:
    # 24:00 is the end of the day, and :60 a leap second.
    if hour > 24 or minute > 59 or second > 60 or (hour == 24 and (minute or second)):
        return None
    try:
        moment = datetime(year, month, day) + timedelta(hours=hour, minutes=minute, seconds=second)
    except (ValueError, OverflowError):
        return None
    return moment.isoformat() + zone


def _zone(text: str) -> str:
    """An offset from UTC as ISO 8601 has it, "" for what is none."""
    text = text.strip()
    if text.upper() in ("Z", "UTC", "GMT"):
        return "+00:00"
    match = _ZONE.match(text)
    if match is None:
        return ""
    hours, minutes = int(match["hours"]), int(match["minutes"] or 0)
    if minutes > 59 or hours * 60 + minutes > _LAST_OFFSET_MINUTES:
        return ""
    return f"{match['sign']}{hours:02d}:{minutes:02d}"


def position(gps: Mapping[int, Any]) -> tuple[float, float] | None:
    """Latitude and longitude in degrees, south and west negative; None where EXIF does not say both."""
    latitude = _degrees(gps.get(2), gps.get(1), "S")
    longitude = _degrees(gps.get(4), gps.get(3), "W")
    if latitude is None or longitude is None or not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    # Cameras without a fix write zeros; nobody photographs the Gulf of Guinea's null point that exactly.
    return None if latitude == longitude == 0 else (latitude, longitude)


def _degrees(value: Any, reference: Any, negative: str) -> float | None:
    """An angle of degrees, minutes and seconds; those of the latter that are missing, or 0/0, are none."""
    parts = value if isinstance(value, (tuple, list)) else (value,)
    numbers = [_number(part) for part in parts[:3]]
    if not numbers or not math.isfinite(numbers[0]):
        return None
    total = abs(numbers[0])
    for number, unit in zip(numbers[1:], (60, 3600), strict=False):
        # Not-a-number is what 0/0 gives; an infinity is damage.
        if math.isinf(number) or not (math.isnan(number) or 0 <= number <= 60):
            return None
        total += 0 if math.isnan(number) else number / unit
    is_negative = plain_text(reference).upper().startswith(negative) or numbers[0] < 0
    return round(-total if is_negative else total, 7)


def _number(value: Any) -> float:
    try:
        return float(value)
    except ZeroDivisionError:
        return math.nan
    except (TypeError, ValueError, OverflowError):
        return math.inf
