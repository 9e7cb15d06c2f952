"""Words inside pictures: XMP, IPTC, EXIF and PNG's text, in every format that can hold them, and what is no word."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from backends import connect
from backends.base import Record
from indexers import embedded, index
from indexers.embedded import is_junk, words_of
from indexers.exif import decoded
from indexers.photos import photo_facts
from tests.support.counting_encoder import CountingEncoder

PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4">
<dc:title><rdf:Alt><rdf:li xml:lang="de">Hafen</rdf:li>
<rdf:li xml:lang="x-default">Harbour</rdf:li></rdf:Alt></dc:title>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">Fischerboote bei Dämmerung</rdf:li></rdf:Alt></dc:description>
<dc:subject><rdf:Bag><rdf:li>boat</rdf:li><rdf:li>夕焼け</rdf:li></rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
EXPECTED = {
    "title": "Harbour",
    "description": "Fischerboote bei Dämmerung",
    "tags": ["boat", "夕焼け"],
    "rating": 4,
}
FIELDS = ("title", "headline", "description", "comment", "tags", "rating")


def saved(kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, kind, **options)
    return out.getvalue()


def words(data: bytes) -> dict[str, Any]:
    facts = photo_facts(data)
    return {name: facts[name] for name in FIELDS if name in facts}


def exif_of(main: dict[int, Any], detail: dict[int, Any] | None = None) -> Image.Exif:
    exif = Image.Exif()
    for tag, value in main.items():
        exif[tag] = value
    for tag, value in (detail or {}).items():
        exif.get_ifd(0x8769)[tag] = value
    return exif


def iptc(*datasets: tuple[int, int, bytes]) -> bytes:
    """The Photoshop segment of a JPEG with these datasets."""
    block = b"".join(struct.pack(">BBBH", 0x1C, record, number, len(v)) + v for record, number, v in datasets)
    resource = b"8BIM" + struct.pack(">HHL", 0x0404, 0, len(block)) + block + b"\x00" * (len(block) % 2)
    body = b"Photoshop 3.0\x00" + resource
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def with_segment(data: bytes, segment: bytes) -> bytes:
    return data[:2] + segment + data[2:]


def with_last_chunk(data: bytes, chunk: bytes) -> bytes:
    """A PNG with a chunk, its kind and content given, behind the pixels."""
    end = data.rindex(b"IEND") - 4
    return data[:end] + struct.pack(">L", len(chunk) - 4) + chunk + struct.pack(">L", zlib.crc32(chunk)) + data[end:]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_xmp_is_read_in_every_format(kind: str) -> None:
    packet = PACKET.encode()
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", PACKET)
        data = saved(kind, pnginfo=info)
    elif kind == "TIFF":
        data = saved(kind, tiffinfo={700: packet})
    elif kind == "HEIF":
        heif = pytest.importorskip("pillow_heif")
        heif.register_heif_opener()
        data = saved(kind, xmp=packet)
    else:
        data = saved(kind, xmp=packet)
    assert words(data) == EXPECTED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_words_are_read_with_their_character_sets(kind: str) -> None:
    main = {
        0x010E: "Ein Schloß am See".encode(),
        0x9C9B: "Der Titel ✓\x00".encode("utf-16-le"),
        0x9C9E: "castle; lake;\x00".encode("utf-16-le"),
        0x9C9C: "a comment\x00".encode("utf-16-le"),
        0x4746: 3,
    }
    assert words(saved(kind, exif=exif_of(main))) == {
        "title": "Der Titel ✓",
        "description": "Ein Schloß am See",
        "comment": "a comment",
        "tags": ["castle", "lake"],
        "rating": 3,
    }


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"ASCII\x00\x00\x00at the lake\x00\x00", "at the lake"),
        (b"UNICODE\x00" + "am See ✓".encode("utf-16-le"), "am See ✓"),
        (b"UNICODE\x00" + "am See ✓".encode("utf-16-be"), "am See ✓"),
        (b"UNICODE\x00\xfe\xff" + "湖のそば".encode("utf-16-be"), "湖のそば"),
        (b"UNICODE\x00plain after all", "plain after all"),
        (b"JIS\x00\x00\x00\x00\x00" + "湖のそば".encode("iso2022_jp"), "湖のそば"),
        (b"\x00" * 8 + "am See, größer".encode(), "am See, größer"),
        (b"ASCII\x00\x00\x00" + b" " * 40, None),
        (b"\x00" * 64, None),
        (b"", None),
    ],
)
def test_user_comments(value: bytes, read: str | None) -> None:
    assert words(saved(exif=exif_of({}, {0x9286: value}))).get("comment") == read


def test_iptc_with_and_without_its_escape_for_utf8() -> None:
    texts = ((2, 5, "Die Brücke"), (2, 105, "Neue Brücke eröffnet"), (2, 120, "Menschen auf der Brücke"))
    keywords = ((2, 25, "brücke"), (2, 25, "menschen"))
    expected = {
        "title": "Die Brücke",
        "headline": "Neue Brücke eröffnet",
        "description": "Menschen auf der Brücke",
        "tags": ["brücke", "menschen"],
    }
    for encoding, escape in (("utf-8", ((1, 90, b"\x1b%G"),)), ("latin-1", ()), ("utf-8", ())):
        block = iptc(*escape, *((r, n, text.encode(encoding)) for r, n, text in (*texts, *keywords)))
        assert words(with_segment(saved(), block)) == expected


def test_png_chunks_before_and_behind_the_pixels() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "A title")
    info.add_text("Description", "packed words", zip=True)
    info.add_itxt("Keywords", "猫, dog", zip=True)
    info.add_text("Software", "somebody's program")
    data = saved("PNG", pnginfo=info)
    assert words(data) == {"title": "A title", "description": "packed words", "tags": ["猫", "dog"]}
    assert words(with_last_chunk(data, b"tEXtComment\x00said at the end"))["comment"] == "said at the end"


def test_few_of_very_many_chunks_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked, inflated = 0, embedded._inflated

    def counting(packed: bytes) -> bytes:
        nonlocal unpacked
        unpacked += 1
        return inflated(packed)

    monkeypatch.setattr(embedded, "_inflated", counting)
    body = b"comment\x00\x00" + zlib.compress(b"\xe9" * 500_000)
    other = b"date:create\x00\x00" + zlib.compress(b"2020")
    chunks = [struct.pack(">L", len(each)) + b"zTXt" + each + b"\x00" * 4 for each in [other] * 200 + [body] * 200]
    assert set(words(saved("PNG")[:-12] + b"".join(chunks))["comment"]) == {"é"}
    assert unpacked <= embedded.MAX_PNG_TEXTS


def test_a_long_text_is_cut_within_no_character() -> None:
    assert decoded(b"x" + "船".encode() * 20_000).startswith("x船船")
    assert decoded(b"x" + "一只黑白相间的猫坐在窗台上".encode("gb18030") * 4000).startswith(
        "x一只黑白相间的猫坐在窗台上一只"
    )
    assert len(decoded(b"a" * 100_000)) < 40_000


def test_the_first_that_speaks_holds_and_nothing_is_said_twice() -> None:
    exif = exif_of({0x010E: "of EXIF", 0x9C9B: "Harbour".encode("utf-16-le"), 0x9C9E: "boat;pier".encode("utf-16-le")})
    found = words(with_segment(saved(xmp=PACKET.encode(), exif=exif), iptc((2, 120, b"of IPTC"), (2, 25, b"sea"))))
    assert found == EXPECTED | {"tags": ["boat", "夕焼け", "sea", "pier"]}


@pytest.mark.parametrize(
    "line",
    [
        "OLYMPUS DIGITAL CAMERA",
        "          ",
        "SONY DSC",
        "KONICA MINOLTA DIGITAL CAMERA",
        "Digital StillCamera".replace("Still", "Still "),
        "DCF 1.0",
        "IMG_1234.JPG",
        "DSC00012",
        "20210704_123005",
        "Exif_JPEG_PICTURE",
        "untitled",
        "dav",
        "Created with GIMP",
        "charset=Ascii",
        "Lavc58.134.100",
        '{"effect":{"id":1}}',
        "binary comment",
        "1234",
        "<KENOX S630  / Samsung S630>",
    ],
)
def test_what_machines_write_is_not_taken_for_words(line: str) -> None:
    assert is_junk(line)


@pytest.mark.parametrize(
    "line",
    [
        "my new digital camera",
        "David",
        "May 2019",
        "Adobe houses in Taos",
        "Image of a dog",
        "Hdr of the bay",
        "猫",
        "Comment te dire",
    ],
)
def test_what_people_write_is(line: str) -> None:
    assert not is_junk(line)


def test_the_cameras_own_name_is_no_description() -> None:
    exif = exif_of({0x010E: "Nikon D850", 0x010F: "NIKON CORPORATION", 0x0110: "NIKON D850"})
    assert words(saved(exif=exif)) == {}


def test_hostile_xml_costs_its_words_and_nothing_else() -> None:
    entities = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">]>' + PACKET.partition("?>")[2].replace("Harbour", "&a;")
    bombs = [
        entities.encode(),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'),
        b"<a>" * 20_000,
        b"\x00" * 1000,
        PACKET.encode()[:200],
    ]
    for packet in bombs:
        assert words(saved(xmp=packet)) == {}
    title = words(with_last_chunk(saved("PNG"), b"zTXtTitle\x00\x00" + zlib.compress(b"a " * 20_000_000)))["title"]
    assert len(title) <= 2000


@given(st.binary(max_size=300))
def test_noise_costs_words_not_the_picture(noise: bytes) -> None:
    for data in (
        with_segment(saved(), iptc((2, 120, noise))),
        saved(xmp=noise),
        saved(exif=exif_of({}, {0x9286: noise})),
    ):
        assert photo_facts(data)["width"] == 40


def test_words_are_searched_and_kept_apart_from_captions(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(saved(xmp=PACKET.encode()))
    (folder / "a.txt").write_text("a caption of mine")
    with connect("exact://") as backend:
        index(folder, backend, CountingEncoder(), "photos")
        records = {r.id: r for page in backend.scan("photos") for r in page.records}
        (image,) = (r for r in records.values() if r.modality == "image")
        assert image.text == "a caption of mine\nHarbour\nFischerboote bei Dämmerung\nboat, 夕焼け"
        assert {name: image.metadata[name] for name in EXPECTED} == EXPECTED
        assert [r.text for r in records.values() if r.modality == "text"] == ["a caption of mine"]
        for asked in ("harbour", "dammerung", "夕焼け", "boat", "caption"):
            assert [hit.id for hit in backend.search_text("photos", asked, 5) if hit.modality == "image"] == [image.id]
        # A person's manifest corrects what the file says.
        (folder / "captions.jsonl").write_text('{"file": "a.jpg", "rating": 1, "tags": ["quay"]}')
        report = index(folder, backend, CountingEncoder(), "photos")
        assert (report.updated, report.images) == (1, 0)
        (image,) = backend.get("photos", [image.id])
        assert (image.metadata["rating"], image.metadata["tags"]) == (1, ["quay"])
        assert image.text == "a caption of mine\nHarbour\nFischerboote bei Dämmerung"


def test_a_library_of_an_earlier_version_gets_them_without_embedding(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(saved(xmp=PACKET.encode()))
    with connect("exact://") as backend:
        index(folder, backend, CountingEncoder(), "photos", ledger=tmp_path / "ledger")
        (now,) = (r for page in backend.scan("photos") for r in page.records)
        # As it was stored before words were read.
        before = {name: value for name, value in now.metadata.items() if name not in FIELDS}
        backend.upsert("photos", [Record(now.id, now.vector, "image", None, now.uri, before)])
        encoder = CountingEncoder()
        report = index(folder, backend, encoder, "photos", ledger=tmp_path / "ledger")
        assert (report.updated, encoder.images, encoder.texts) == (1, [], [])
        assert [r for page in backend.scan("photos") for r in page.records] == [now]


def test_the_lines_of_words() -> None:
    assert words_of({}) == ()
    assert words_of({"title": "t", "tags": ["a", "b"], "rating": 3, "width": 4}) == ("t", "a, b")
