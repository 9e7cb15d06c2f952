"""What is read out of single files: passages of documents, EXIF of photos; and rates from counts."""

from __future__ import annotations

import io
import resource
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from indexers.files import MAX_IMAGE_BYTES, Unreadable, decode_text, read_bounded
from indexers.passages import count_words, passage_words, split_passages
from indexers.photos import photo_facts
from indexers.progress import Meter
from retrieval.images.decode import ImageError

EXIF_IFD, GPS_IFD = 0x8769, 0x8825


def photo(exif: Image.Exif | bytes | None = None, kind: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind, **({} if exif is None else {"exif": exif}))
    return out.getvalue()


def full_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "NIKON CORPORATION", "NIKON D850", 6
    detail = exif.get_ifd(EXIF_IFD)
    detail[0x9003], detail[0x9011], detail[0xA434] = "2021:07:04 12:30:05", "+02:00", "50mm f/1.8\x00"
    gps = exif.get_ifd(GPS_IFD)
    gps[1], gps[3] = "S", "W"
    gps[2] = (IFDRational(33), IFDRational(51), IFDRational(3540, 100))
    gps[4] = (IFDRational(151), IFDRational(12), IFDRational(0))
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_gives_date_camera_lens_place_and_upright_size(kind: str) -> None:
    data = photo(full_exif(), kind)
    assert photo_facts(data) == {
        "width": 30,
        "height": 40,
        "bytes": len(data),
        "format": kind.lower(),
        "taken": "2021-07-04T12:30:05+02:00",
        "camera": "NIKON D850",
        "lens": "50mm f/1.8",
        "latitude": -33.8598333,
        "longitude": -151.2,
    }


def test_maker_is_named_unless_the_model_says_it() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = " Google ", "Pixel  8", "2023/01/02 03:04:05"
    facts = photo_facts(photo(exif))
    assert facts["camera"] == "Google Pixel 8"
    assert facts["taken"] == "2023-01-02T03:04:05"


@pytest.mark.parametrize(
    "date",
    ["0000:00:00 00:00:00", "    :  :     :  :  ", "2021:13:40 25:61:61", "yesterday", "", "2021:02:30 00:00:00"],
)
def test_impossible_dates_are_left_out(date: str) -> None:
    exif = Image.Exif()
    exif[0x0132] = date
    assert "taken" not in photo_facts(photo(exif))


@pytest.mark.parametrize(
    "latitude",
    [(0, 0, 0), (91, 0, 0), (IFDRational(1, 0), 0, 0), (1, 99), ("x", "y", "z"), 500, (float("nan"), 0, 0)],
)
def test_impossible_places_are_left_out(latitude: object, monkeypatch: pytest.MonkeyPatch) -> None:
    data, gps = photo(full_exif()), {1: "N", 2: latitude, 3: "E", 4: (0, 0, 0)}
    monkeypatch.setattr(Image.Exif, "get_ifd", lambda _self, tag: gps if tag == GPS_IFD else {})
    assert "latitude" not in photo_facts(data)


@given(st.binary(max_size=200))
def test_damaged_exif_costs_fields_not_the_photo(noise: bytes) -> None:
    data = bytearray(photo(full_exif()))
    start = data.index(b"Exif\x00\x00") + 6
    data[start + 8 : start + 8 + len(noise)] = noise[: max(0, 150)]
    try:
        facts = photo_facts(bytes(data))
    except ImageError:
        return
    assert {"width", "height", "bytes", "format"} <= facts.keys()


def test_header_bounds_hold() -> None:
    with pytest.raises(ImageError, match="40 x 30 pixels"):
        photo_facts(photo(), max_pixels=1000)
    with pytest.raises(ImageError, match="not an image"):
        photo_facts(b"x" * 100)


def test_plain_text_is_packed_from_paragraphs() -> None:
    paragraph = " ".join(["word"] * 60) + "."
    found = split_passages("\n\n\n".join([paragraph] * 5), max_words=150)
    assert [count_words(p.text) for p in found] == [120, 120, 60]
    assert [p.line for p in found] == [1, 7, 13]


def test_long_paragraphs_split_at_sentences_then_words_then_characters() -> None:
    text = "One two three. Four five! Six seven eight nine ten eleven twelve."
    assert [p.text for p in split_passages(text, max_words=5)] == [
        "One two three. Four five!",
        "Six seven eight nine ten",
        "eleven twelve.",
    ]
    assert [len(p.text) for p in split_passages("x" * 100, max_words=3)] == [36, 36, 28]
    chinese = split_passages("今天天气很好。" * 20, max_words=40)
    assert all(count_words(p.text) <= 40 and p.text.endswith("。") for p in chinese)


def test_markdown_keeps_code_and_tables_whole_and_lines_true() -> None:
    code = "```py\n" + "x = 1\n\n" * 100 + "```"
    text = (
        f"---\ntitle: T\n---\n# A\n\nfirst\n\n{code}\n\n## B #\n\n|a|b|\n|-|-|\n" + "|1|2|\n" * 60 + "\nA2\n==\n\nend\n"
    )
    found = split_passages(text, markdown=True, max_words=40)
    assert [(p.heading, p.text.split("\n")[0]) for p in found] == [
        ("", "title: T"),
        ("A", "first"),
        ("A", "```py"),
        ("A > B", "|a|b|"),
        ("A2", "end"),
    ]
    assert found[2].text == code
    lines = text.split("\n")
    assert all(lines[p.line - 1] == p.text.split("\n")[0] for p in found)


def test_a_file_of_headings_alone_is_text() -> None:
    assert [p.text for p in split_passages("# Only\n\n## Headings\n", markdown=True)] == ["# Only\n\n## Headings"]


def test_code_beyond_a_records_limit_is_cut_at_lines() -> None:
    found = split_passages("```\n" + ("ö" * 99 + "\n") * 1000 + "```\n", markdown=True)
    assert len(found) > 1
    assert all(len(p.text.encode()) <= 65_535 for p in found)
    assert sum(p.text.count("ö") for p in found) == 99_000


@given(st.text(alphabet="ab .!\n#-`>|*字é", max_size=400), st.booleans(), st.integers(1, 12))
def test_no_word_of_a_paragraph_is_lost_and_no_passage_too_long(text: str, markdown: bool, most: int) -> None:
    found = split_passages(text, markdown=markdown, max_words=most)
    if not markdown:
        assert "".join("".join(p.text.split()) for p in found) == "".join(text.split())
        assert all(count_words(p.text) <= most for p in found)
    assert all(p.text.strip() for p in found)
    assert [p.line for p in found] == sorted(p.line for p in found)
    assert bool(found) == bool(text.strip()) or markdown


def test_passages_fit_the_encoder() -> None:
    assert passage_words(None) == 150
    assert passage_words(77) == 53
    assert (passage_words(8), passage_words(100_000)) == (40, 200)


def test_text_encodings() -> None:
    assert decode_text("é".encode()) == "é"
    assert decode_text("é\r\nx\ry".encode("utf-8-sig")) == "é\nx\ny"
    assert decode_text("é".encode("utf-16")) == "é"
    assert decode_text("\ufeffé".encode("utf-16-be")) == "é"
    with pytest.raises(Unreadable, match=r"not UTF-8 text \(byte 1\)"):
        decode_text(b"a\xe9b")
    with pytest.raises(Unreadable, match="not UTF-16"):
        decode_text(b"\xff\xfea")


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 11)
    assert read_bounded(path, 11)[0] == b"x" * 11
    with pytest.raises(Unreadable, match="11 bytes, more than the 10"):
        read_bounded(path, 10)
    with pytest.raises(Unreadable, match="is a folder"):
        read_bounded(tmp_path, 10)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the page faults of a thread")
def test_a_read_takes_no_more_room_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * 4_000_000)

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt

    for _ in range(3):
        read_bounded(path, MAX_IMAGE_BYTES)
    before = faults()
    for _ in range(20):
        read_bounded(path, MAX_IMAGE_BYTES)
    # The file has 977 pages. Room for the limit came from the system, and went back, at each read.
    assert faults() - before < 20 * 100


def test_meter_follows_a_change_of_pace() -> None:
    now = [0.0]
    meter = Meter(lambda: now[0])
    for _ in range(10):
        now[0] += 1
        fast = meter.read("indexing", int(now[0]) * 100, 2000, 0, "")
    assert (fast.rate_per_s, fast.remaining_s) == (100, 10)
    for step in range(60):
        now[0] += 1
        slow = meter.read("indexing", 1000 + step + 1, 2000, 0, "")
    assert slow.rate_per_s == pytest.approx(1)
    assert slow.remaining_s == pytest.approx(940, rel=0.01)
    assert meter.read("listing", 0, None, 0, "").remaining_s is None
