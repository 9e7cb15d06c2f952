"""The results page: self-contained, escaped, whatever the items hold."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli.results_page import Part, Section, make_thumbnail, parts_of, render
from backends.base import Hit
from retrieval.search.query import Stored, Term
from tests.support.cli import paint

HOSTILE = """<script>alert(1)</script>"'&<img src=x onerror=alert(2)>{{ 7919*7919 }}\u202e"""


class Reader(HTMLParser):
    """All tags with their attributes, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def hit(uri: str | None, text: str | None = "a square", modality: str = "image", **metadata: object) -> Hit:
    return Hit("id-1", 0.98765, modality, text, uri, metadata, exact=True)  # type: ignore[arg-type]


def test_page_shows_everything_and_fetches_nothing(tmp_path: Path) -> None:
    picture = paint(tmp_path / "red square.png", "red", size=(900, 600))
    section = Section("Search", [Part("red"), Part(str(picture), picture, -0.5)], [hit(picture.as_uri(), year=1990)])
    page = render("red", [section], ["collection default"])
    reader = Reader(page)
    text = " ".join(reader.words)
    for shown in ("red", "0.988", "a square", "red square.png", str(picture), "1990", "id-1", "exact search", "× 0.5"):
        assert shown in text
    sources = [attributes["src"] or "" for tag, attributes in reader.tags if tag == "img"]
    assert len(sources) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    image = Image.open(io.BytesIO(base64.b64decode(sources[1].partition(",")[2])))
    assert image.size == (480, 320)
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "link", "iframe", "object"})
    links = [attributes["href"] or "" for tag, attributes in reader.tags if tag == "a"]
    assert links == [picture.as_uri()]
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page)
    assert "url(" not in page
    policies = [a.get("content") for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_a_stored_item_in_a_query_is_named() -> None:
    stored = Stored("photo-7", "image", np.ones(4, np.float32))
    page = render("alike", [Section("Search", parts_of([Term("red"), Term(stored, -0.5)]), [])])
    assert "photo-7" in " ".join(Reader(page).words)


def test_every_text_is_escaped() -> None:
    hostile = Hit(HOSTILE, 0.5, "image", HOSTILE, "/" + HOSTILE, {"note": HOSTILE, "tags": [HOSTILE]}, exact=False)
    page = render(
        HOSTILE, [Section(HOSTILE, [Part(HOSTILE)], [hostile, hit(None, HOSTILE, "text")], [HOSTILE])], [HOSTILE]
    )
    reader = Reader(page)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not [a for _, attributes in reader.tags for a in attributes if a.startswith("on")]
    # All but the override, which would turn round what stands beside it.
    assert HOSTILE.removesuffix("\u202e") in "".join(reader.words)
    assert "\u202e" not in page
    assert "62710561" not in "".join(reader.words).replace(HOSTILE.removesuffix("\u202e"), "")
    assert "approximate search" in page


@pytest.mark.parametrize("uri", ["javascript:alert(1)", "https://example.org/a.png", "file://elsewhere/a.png", None])
def test_only_files_are_linked_or_read(uri: str | None) -> None:
    page = render("x", [Section("Search", [Part("x")], [hit(uri)])])
    hrefs = [attributes["href"] or "" for tag, attributes in Reader(page).tags if tag == "a"]
    assert all(href.startswith("file:///") for href in hrefs)
    assert "<img" not in page


def test_a_missing_picture_has_a_placeholder(tmp_path: Path) -> None:
    gone = tmp_path / "gone.png"
    (tmp_path / "bad.png").write_bytes(b"bad")
    page = render("x", [Section("Search", [Part("x")], [hit(gone.as_uri()), hit((tmp_path / "bad.png").as_uri())])])
    assert page.count("no picture at") == 2
    assert page.count("file is gone: no picture at") == 1


def test_passages_and_nothing() -> None:
    page = render(
        "x", [Section("Lookup", [Part("x")], [hit(None, "line one\nline two", "text")]), Section("N", [], [])]
    )
    assert "line one\nline two" in page
    assert "Nothing found" in page


def test_texts_that_unicode_files_cannot_hold(tmp_path: Path) -> None:
    from app.cli.context import write_atomically

    write_atomically(tmp_path / "page.html", render("x", [Section("S", [Part("\udcff")], [])]))
    assert (tmp_path / "page.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_thumbnails_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    thumbnail = make_thumbnail(tmp_path / "turned.jpg", 100)
    assert thumbnail is not None
    assert thumbnail.ratio == pytest.approx(0.5)
    assert make_thumbnail(tmp_path / "missing.jpg", 100) is None
