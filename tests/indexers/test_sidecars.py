"""Which file says something of which picture, and what XMP and Google's files say."""

from __future__ import annotations

import json
import unicodedata

import pytest

from indexers.files import Unreadable
from indexers.kinds import split_name
from indexers.sidecars import looks_like_sidecar, pair
from indexers.takeout import read_takeout
from indexers.xmp import read_xmp
from tests.support.folders import BOMB, XMP


@pytest.mark.parametrize(
    ("sidecar", "image"),
    [
        ("a.txt", "a.jpg"),
        ("a.jpg.txt", "a.jpg"),
        ("a.jpg.xmp", "a.jpg"),
        ("A.XMP", "a.jpg"),
        ("a.JPG.TXT", "a.jpg"),
        (unicodedata.normalize("NFD", "Ärmel.jpg.txt"), unicodedata.normalize("NFC", "Ärmel.jpg")),
        (unicodedata.normalize("NFC", "ÄRMEL.txt"), unicodedata.normalize("NFD", "ärmel.jpg")),
        ("IMG.jpg.json", "IMG.jpg"),
        ("IMG.jpg(1).json", "IMG(1).jpg"),
        ("IMG(1).jpg.json", "IMG(1).jpg"),
        ("IMG.jpg.supplemental-metadata.json", "IMG.jpg"),
        ("IMG.jpg.supplemental-me.json", "IMG.jpg"),
        ("IMG.jpg.s.json", "IMG.jpg"),
        ("IMG.jpg.supplemental-metadata(2).json", "IMG(2).jpg"),
        ("IMG_2020(1).jpg.supplemental-metadata.json", "IMG_2020(1).jpg"),
        (
            "a name that is much too long for Google to keep it.json",
            "a name that is much too long for Google to keep it all.jpg",
        ),
        ("PXL.MP.jpg.supplemental-metadata.json", "PXL.MP.jpg"),
    ],
)
def test_a_sidecar_belongs_to_its_picture(sidecar: str, image: str) -> None:
    others = ["other.png", "IM.png", "b.a.jpg"]
    assert pair([sidecar, image, *others], [image, *others]).owners == {sidecar: [image]}


def test_a_sidecar_of_several_pictures_of_one_name_belongs_to_all_of_them() -> None:
    assert pair(["a.txt"], ["a.jpg", "a.png"]).owners == {"a.txt": ["a.jpg", "a.png"]}
    edited = ["IMG.jpg", "IMG-edited.jpg", "IMG2-edited.jpg"]
    assert pair(["IMG.jpg.json"], edited).owners == {"IMG.jpg.json": ["IMG.jpg", "IMG-edited.jpg"]}


@pytest.mark.parametrize(
    ("sidecar", "images"),
    [
        ("twin.txt", ["Twin.jpg", "TWIN.jpg"]),
        ("ab.jpg.txt", ["AB.jpg", "Ab.jpg"]),
        (f"{'long' * 10}.json", [f"{'long' * 10}{n}.jpg" for n in range(2)]),
    ],
)
def test_one_that_could_belong_to_several_belongs_to_none(sidecar: str, images: list[str]) -> None:
    found = pair([sidecar], images)
    assert found.owners == {}
    assert found.unclear == {sidecar: sorted(images)}


@pytest.mark.parametrize("name", ["b.txt", "a.jpg.md", "a.jpeg.json", "short.json", "a.json", "ajpg.txt"])
def test_others_belong_to_none(name: str) -> None:
    found = pair([name, "a.jpg"], ["a.jpg", "shorter.jpg"])
    assert (found.owners, found.unclear) == ({}, {})


@pytest.mark.parametrize(
    ("name", "is_sidecar"),
    [
        ("a.xmp", True),
        ("a.mp4.json", True),
        ("a.jpg.supplemental-meta(3).json", True),
        ("data.json", False),
        ("a.b.json", False),
        ("a.jpg.txt", False),
    ],
)
def test_what_is_said_of_a_sidecar_without_a_picture(name: str, is_sidecar: bool) -> None:
    assert looks_like_sidecar(name) is is_sidecar


def test_many_films_with_long_names_take_no_time() -> None:
    images = [f"{'long' * 10}{number:05}.jpg" for number in range(5000)]
    jsons = [f"{'film' * 10}{number:05}.mp4.json" for number in range(5000)]
    found = pair(jsons, images)
    assert (found.owners, found.unclear) == ({}, {})


def test_names_are_taken_apart_a_few_times_each_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    taken_apart = 0

    def counting(name: str) -> tuple[str, str]:
        nonlocal taken_apart
        taken_apart += 1
        return split_name(name)

    monkeypatch.setattr("indexers.sidecars.split_name", counting)
    images = [f"IMG_{number:04}.jpg" for number in range(300)] + [
        f"{'long' * 10}({number}).jpg" for number in range(300)
    ]
    whole = [f"{image}.supplemental-metadata.json" for image in images[:300]]
    cut = [f"{'long' * 9}({number}).json" for number in range(300)]
    found = pair([*whole, *cut], images)
    assert found.owners == {
        **{name: [image] for name, image in zip(whole, images[:300], strict=True)},
        **{name: [image] for name, image in zip(cut, images[300:], strict=True)},
    }
    assert taken_apart < 10 * len(images)


def test_a_picture_that_was_changed_is_found_in_another_unicode_form() -> None:
    images = [unicodedata.normalize("NFD", "été-modifié.jpg"), unicodedata.normalize("NFC", "été.jpg")]
    name = unicodedata.normalize("NFC", "été.jpg.json")
    assert pair([name], images).owners == {name: images[::-1]}


def test_what_xmp_says() -> None:
    said = read_xmp(XMP.encode())
    assert said.captions == ("A boat",)
    assert said.metadata == {"tags": ["harbour", "evening"], "rating": 4}
    assert said.hints == {"latitude": 52.525, "longitude": -13.405}


def test_xmp_of_elements_faces_and_dates() -> None:
    said = read_xmp(
        b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
        xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
        xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
        xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/">
        <dc:title>The  quay</dc:title><xmp:Rating>9</xmp:Rating>
        <photoshop:City>Kiel</photoshop:City><photoshop:DateCreated>2020-05-06T07:08:09+02:00</photoshop:DateCreated>
        <mwg-rs:RegionList><rdf:Bag><rdf:li mwg-rs:Name="Lena" mwg-rs:Type="Face"/>
        <rdf:li><rdf:Description><mwg-rs:Name>Max</mwg-rs:Name><mwg-rs:Type>Face</mwg-rs:Type></rdf:Description></rdf:li>
        <rdf:li mwg-rs:Name="Rex" mwg-rs:Type="Pet"/></rdf:Bag></mwg-rs:RegionList></rdf:Description></rdf:RDF>"""
    )
    assert said.captions == ()
    assert said.metadata == {"title": "The quay", "city": "Kiel", "people": ["Lena", "Max"]}
    assert said.hints == {"taken": "2020-05-06T07:08:09+02:00"}


@pytest.mark.parametrize(
    "document",
    [
        BOMB,
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        "<!DOCTYPE a><a/>",
    ],
)
def test_xml_with_entities_or_a_document_type_is_refused(document: str) -> None:
    with pytest.raises(Unreadable, match="entities or a document type"):
        read_xmp(document.encode())


@pytest.mark.parametrize(
    "data", [b"", b"words", b"<a>", b"<a>\xff</a>", b'<?xml version="1.0" encoding="nonsense"?><a/>']
)
def test_what_is_no_xml_is_told(data: bytes) -> None:
    with pytest.raises(Unreadable, match="is not XML"):
        read_xmp(data)


def test_what_google_says() -> None:
    data = {
        "title": "IMG.HEIC",
        "description": " by the\nsea ",
        "photoTakenTime": {"timestamp": "1500000000"},
        "geoData": {"latitude": 0.0, "longitude": 0.0},
        "geoDataExif": {"latitude": -33.5, "longitude": 151},
        "people": [{"name": "Lena"}, {"name": "Max"}, {"name": "Lena"}, {}],
        "favorited": True,
    }
    said = read_takeout(json.dumps(data), "IMG.jpg")
    assert said is not None
    assert said.captions == ("by the sea",)
    assert said.metadata == {"title": "IMG.HEIC", "people": ["Lena", "Max"], "favorite": True}
    assert said.hints == {"taken": "2017-07-14T02:40:00+00:00", "latitude": -33.5, "longitude": 151.0}


@pytest.mark.parametrize(
    "fields",
    [
        {"photoTakenTime": 5, "geoData": [], "people": "Lena", "title": 7, "description": None},
        {"photoTakenTime": {"timestamp": "9" * 40}, "geoData": {"latitude": "x", "longitude": None}},
        {"photoTakenTime": {"timestamp": "soon"}, "geoData": {"latitude": 1e999, "longitude": 5}, "people": [1]},
        {"photoTakenTime": {}, "geoData": {"latitude": 91, "longitude": 5}},
    ],
)
def test_what_makes_no_sense_is_passed_over(fields: dict[str, object]) -> None:
    said = read_takeout(json.dumps(fields), "a.jpg")
    assert said is not None
    assert (said.captions, said.metadata, said.hints) == ((), {}, {})


def test_json_of_others_is_no_sidecar() -> None:
    assert read_takeout('{"title": "a"}', "a.jpg") is None
    assert read_takeout("[1]", "a.jpg") is None
    with pytest.raises(Unreadable, match="is not JSON"):
        read_takeout("{", "a.jpg")
