"""The HTTP service on a real server in a thread, over the exact oracle and a small test encoder."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from app.http.app import Limits, create_app
from backends import connect
from backends.base import CollectionSpec, Record
from tests.support.counting_encoder import CountingEncoder
from tests.support.service import ids, is_problem
from tests.support.serving import serving
from tests.support.three_colours import COLOURS, ColourEncoder, picture


class Broken(ColourEncoder):
    """A test encoder that fails on one word, as only a bug would."""

    def encode_texts(self, texts):
        if "bug" in texts[0]:
            raise RuntimeError("secret detail")
        return super().encode_texts(texts)


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("photos of ü")
    backend, encoder = connect("exact://"), Broken()
    backend.create(CollectionSpec("c", 3, encoder=encoder.fingerprint))
    backend.create(CollectionSpec("other", 3, encoder="another:1"))
    records = []
    for name, colour in COLOURS.items():
        path = folder / f"{name}.png"
        picture(*colour).resize((900, 300)).save(path)
        records.append(
            Record(f"img/{name}", encoder.encode_images([picture(*colour)])[0], "image", name, path.as_uri())
        )
        records.append(Record(f"txt/{name}", encoder.encode_texts([name])[0], "text", name, None, {"n": len(name)}))
    gone = (folder / "gone.png").as_uri()
    records.append(Record("img/gone", encoder.encode_texts(["red"])[0], "image", "gone", gone, {"gone": True}))
    backend.upsert("c", records)
    with serving(create_app(backend, encoder, "c", roots=[folder])) as client:
        yield client


def png(*colour: int) -> bytes:
    buffer = io.BytesIO()
    picture(*colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_search_by_text_image_and_terms(client):
    assert ids(client.post("/v1/search", json={"text": "green", "modality": "image", "k": 1})) == ["img/green"]
    image = base64.b64encode(png(0, 0, 250)).decode()
    assert ids(client.post("/v1/search", json={"image": image, "modality": "text", "k": 1})) == ["txt/blue"]
    terms = [{"text": "red"}, {"image": image, "weight": 3}]
    assert ids(client.post("/v1/search", json={"terms": terms, "modality": "image", "k": 1})) == ["img/blue"]


def test_filters_and_pages(client):
    body = {"text": "red", "where": {"n": {"$gt": 3}}}
    assert set(ids(client.post("/v1/search", json=body))) == {"txt/green", "txt/blue"}
    pages = [ids(client.post("/v1/search", json={"text": "red", "k": 3, "offset": o})) for o in (0, 3, 6)]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert len({i for page in pages for i in page}) == 7


def test_lookup_similar_and_item(client):
    assert ids(client.post("/v1/lookup", files={"image": png(0, 255, 0)}, data={"k": 1})) == ["txt/green"]
    assert ids(client.get("/v1/items/img/red/similar", params={"k": 1})) == ["img/gone"]
    item = client.get("/v1/items/txt/red").json()
    assert (item["text"], item["metadata"]) == ("red", {"n": 3})


def test_thumbnails_fit_and_are_cached_by_their_tag(client):
    response = client.get("/v1/items/img/red/image", params={"size": 160})
    assert response.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(response.content)).size == (160, 53)
    again = client.get("/v1/items/img/red/image?size=160", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    is_problem(client.get("/v1/items/img/red/image?size=161"), 422, "size")
    is_problem(client.get("/v1/items/img/gone/image"), 404, "cannot be read")
    is_problem(client.get("/v1/items/txt/red/image"), 404, "no local image")


def test_collections_and_readiness(client):
    listed = {entry["name"]: entry for entry in client.get("/v1/collections").json()}
    assert listed["c"]["count"] == 7
    assert (listed["c"]["searchable"], listed["other"]["searchable"]) == (True, False)
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_problems(client):
    is_problem(client.post("/v1/search", json={}), 422, "exactly one")
    is_problem(client.post("/v1/search", json={"text": "red", "k": 0}), 422, "k")
    is_problem(client.post("/v1/search", json={"text": "red", "oops": 1}), 422, "oops")
    is_problem(client.post("/v1/search", json={"text": "red", "where": {"a": {"$x": 1}}}), 422, "$x")
    is_problem(client.post("/v1/search", json={"image": "%%%"}), 422, "base64")
    is_problem(client.post("/v1/search", json={"image": base64.b64encode(b"GIF").decode()}), 422)
    is_problem(client.post("/v1/search", content=b"{", headers={"Content-Type": "application/json"}), 422)
    is_problem(client.get("/v1/items/none"), 404, "none")
    is_problem(client.post("/v1/search?collection=absent", json={"text": "red"}), 404, "absent")
    is_problem(client.post("/v1/search?collection=other", json={"text": "red"}), 409, "another:1")
    is_problem(client.get("/nowhere"), 404)


def test_a_bug_in_the_service_shows_no_trace(client):
    response = client.post("/v1/search", json={"text": "bug"})
    is_problem(response, 500)
    assert "secret" not in response.text


def test_large_bodies_are_refused_declared_or_not(client):
    limit_bytes, json_type = Limits().max_body_bytes, {"Content-Type": "application/json"}
    is_problem(client.post("/v1/search", content=b" " * (limit_bytes + 1), headers=json_type), 413)

    def stream() -> Iterator[bytes]:
        for _ in range(limit_bytes // 2**20 + 2):
            yield b" " * 2**20

    is_problem(client.post("/v1/search", content=stream(), headers=json_type), 413)


def test_the_page_and_its_parts_come_with_security_headers(client):
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for part in ("/static/page.js", "/static/page.css"):
        assert part in page.text
        assert client.get(part).headers["x-content-type-options"] == "nosniff"
    is_problem(client.get("/static/..%2f..%2fpyproject.toml"), 404)


def test_a_name_that_another_domain_points_here_is_refused(client):
    is_problem(client.get("/healthz", headers={"Host": "evil.example"}), 400, "Host")


@pytest.mark.parametrize("collection", ["c", "not-there-yet"])
def test_what_the_first_search_would_wait_for_is_done_at_the_start(collection: str) -> None:
    backend, encoder = connect("exact://"), CountingEncoder()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    words = ("red", "green", "blue")
    vectors = encoder.encode_texts(words)
    backend.upsert("c", [Record(word, row, "text", word) for word, row in zip(words, vectors, strict=True)])
    encoder.texts.clear()
    app = create_app(backend, encoder, collection)
    app.state.service.prepare()
    with serving(app) as client:
        for thread in threading.enumerate():
            if thread.name == "sightline-prepare":
                thread.join(10)
                assert not thread.is_alive()
        prepared = len(encoder.texts)
        assert bool(prepared) == (collection == "c")
        assert ids(client.post("/v1/search?collection=c", json={"text": "red", "k": 1})) == ["red"]
        if prepared:
            assert encoder.texts[prepared:] == ["red"]
