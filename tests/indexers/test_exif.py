"""EXIF dates and places in the forms that are met in the wild."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from indexers.exif import moment_of, position, taken
from indexers.photos import photo_facts


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2021:07:04 12:30:05", "2021-07-04T12:30:05"),
        ("2021-07-04 12:30:05", "2021-07-04T12:30:05"),
        ("2021-07-04T12:30:05", "2021-07-04T12:30:05"),
        ("2021/07/04 12:30", "2021-07-04T12:30:00"),
        ("2021.07.04 12.30.05", "2021-07-04T12:30:05"),
        ("2021:07:04", "2021-07-04"),
        ("2021: 7: 4 12:30: 5", "2021-07-04T12:30:05"),
        ("2021:7:4 2:3:5", "2021-07-04T02:03:05"),
        ("  2021:07:04  12:30:05 ", "2021-07-04T12:30:05"),
        ("2021:07:04 24:00:00", "2021-07-05T00:00:00"),
        ("2020:12:31 23:59:60", "2021-01-01T00:00:00"),
        ("2021:07:04 12:30:05.123", "2021-07-04T12:30:05"),
        ("2021:07:04 12:30:05.123+02:00", "2021-07-04T12:30:05+02:00"),
        ("2021-07-04T12:30:05Z", "2021-07-04T12:30:05+00:00"),
        ("2021:07:04 12:30:05-0330", "2021-07-04T12:30:05-03:30"),
        ("2021:07:04 12:30:05+25:00", "2021-07-04T12:30:05"),
        ("21:07:04 12:30:05", "2021-07-04T12:30:05"),
        ("98-07-04 12:30:05", "1998-07-04T12:30:05"),
        ("20210704 123005", "2021-07-04T12:30:05"),
        ("20210704_123005", "2021-07-04T12:30:05"),
        ("20210704", "2021-07-04"),
        ("2021:07:04 01:30:05 PM", "2021-07-04T13:30:05"),
        ("2021:07:04 12:05:00 am", "2021-07-04T00:05:00"),
        ("0000:00:00 00:00:00", None),
        ("0000:00:00", None),
        ("    :  :     :  :  ", None),
        ("2021:00:00 00:00:00", None),
        ("2021:02:30 10:00:00", None),
        ("2021:07:04 24:30:00", None),
        ("2021:07:04 25:00:00", None),
        ("9999:12:31 24:00:00", None),
        ("20211399", None),
        ("yesterday", None),
        ("", None),
        ("----:--:-- --:--:--", None),
    ],
)
def test_dates(written: str, read: str | None) -> None:
    assert moment_of(written) == read


def test_each_date_has_the_offset_of_its_own_tag_and_the_first_readable_one_holds() -> None:
    tags: dict[int, Any] = {
        0x9003: "0000:00:00 00:00:00",
        0x9011: "+09:00",
        0x9004: b"2021:07:04 12:30:05\x00",
        0x9012: "-5:00",
        0x0132: "2022:01:01 00:00:00",
    }
    assert taken(tags.get) == "2021-07-04T12:30:05-05:00"
    assert taken({0x9003: "2021:07:04 12:30:05", 0x9011: "   :  "}.get) == "2021-07-04T12:30:05"
    assert taken({0x9003: "2021:07:04 12:30:05+01:00", 0x9011: "+02:00"}.get) == "2021-07-04T12:30:05+01:00"


def test_a_files_trailing_nul_and_sub_seconds_do_no_harm() -> None:
    exif = Image.Exif()
    detail = exif.get_ifd(0x8769)
    detail[0x9003], detail[0x9011], detail[0x9291] = "2021:07:04 12:30:05\x00\x00", "+02:00\x00", "123"
    out = io.BytesIO()
    Image.new("RGB", (9, 9)).save(out, "JPEG", exif=exif)
    assert photo_facts(out.getvalue())["taken"] == "2021-07-04T12:30:05+02:00"


@pytest.mark.parametrize(
    ("latitude", "degrees"),
    [
        ((33, 30, 36), 33.51),
        ((IFDRational(33), IFDRational(0, 0), IFDRational(0, 0)), 33.0),
        ((IFDRational(33), IFDRational(3051, 100), IFDRational(0, 0)), 33.5085),
        ((33, 30), 33.5),
        ((33.51,), 33.51),
        (33.51, 33.51),
        ((IFDRational(0, 0), 30, 0), None),
        ((), None),
        (None, None),
        ((33, 99, 0), None),
        ((91, 0, 0), None),
        (("x", "y", "z"), None),
        ((float("inf"), 0, 0), None),
        ((33, float("inf"), 0), None),
    ],
)
def test_parts_of_a_place_that_are_missing_count_as_none(latitude: Any, degrees: float | None) -> None:
    found = position({1: "S\x00", 2: latitude, 3: b"E", 4: (10, 0, 0)})
    assert found == (None if degrees is None else (-degrees, 10.0))


def test_a_place_that_is_half_there_is_none() -> None:
    assert position({1: "N", 2: (33, 0, 0)}) is None
    assert position({1: "N", 2: (0, 0, 0), 3: "E", 4: (0, 0, 0)}) is None
    assert position({1: "N", 2: (IFDRational(0, 0),) * 3, 3: "E", 4: (IFDRational(0, 0),) * 3}) is None
    assert position({}) is None
