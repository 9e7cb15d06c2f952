"""What the page asks of the API beyond the rest: terms by stored items, facets with a search, and engines."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from app.http.app import Limits, create_app
from backends import connect
from backends.base import Backend, CollectionSpec, Record, Unavailable
from retrieval.search.query import Term
from retrieval.search.retriever import ItemNotFound, Retriever
from tests.support.cli import paint
from tests.support.service import ids, is_problem
from tests.support.serving import serving
from tests.support.toy import ColourEncoder

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")


@pytest.fixture
def store(tmp_path: Path) -> Backend:
    backend, encoder = connect("exact://"), ColourEncoder()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    rows = []
    for number, colour in enumerate(COLOURS):
        path = paint(tmp_path / "photos" / f"{colour}.png", colour)
        vector = encoder.encode_images([path])[0]
        facts: dict[str, Any] = {"warm": number < 3, "year": 1990 + number % 2, "tags": ["all", colour]}
        rows.append(Record(f"img/{colour}", vector, "image", colour, path.as_uri(), facts))
    rows.append(Record("txt/red", encoder.encode_texts(["red"])[0], "text", "red", None, {"year": 2001}))
    backend.upsert("c", rows)
    return backend


@pytest.fixture
def client(store: Backend, tmp_path: Path) -> Iterator[httpx.Client]:
    app = create_app(
        store,
        ColourEncoder(),
        "c",
        home=tmp_path / "home",
        roots=[tmp_path / "photos"],
        limits=Limits(rate=None),
        settings=Settings(backend="exact://", home=tmp_path / "home"),
    )
    with serving(app) as client:
        yield client


def test_terms_by_item_steer_to_it_and_away_and_leave_it_out(client: httpx.Client) -> None:
    def found(*terms: dict[str, Any], **more: Any) -> list[str]:
        return ids(client.post("/v1/search", json={"terms": list(terms), "modality": "image", **more}))

    alike = ids(client.get("/v1/items/img/red/similar?k=5"))
    assert found({"item": "img/red"}, k=5) == alike
    assert "img/red" not in found({"item": "img/red"}, k=50)
    both = found({"text": "yellow blue"}, {"item": "img/yellow", "weight": -0.7}, k=50)
    assert both[0] == "img/blue"
    assert len(both) == len(COLOURS) - 1
    # The text itself is left out; the picture of its colour is not.
    assert found({"item": "txt/red"}, k=1) == ["img/red"]


def test_pages_fit_together_where_items_are_left_out(client: httpx.Client) -> None:
    body = {"terms": [{"item": "img/red"}, {"item": "img/blue"}], "modality": "image"}
    whole = ids(client.post("/v1/search", json={**body, "k": 10}))
    pages = [ids(client.post("/v1/search", json={**body, "k": 1, "offset": rank})) for rank in range(5)]
    assert [found for page in pages for found in page] == whole
    assert set(whole) == {f"img/{colour}" for colour in COLOURS} - {"img/red", "img/blue"}


@pytest.mark.parametrize(
    ("term", "status", "word"),
    [
        ({"item": "img/none"}, 404, "img/none"),
        ({"item": "img/red", "text": "red"}, 422, "exactly one"),
        ({}, 422, "exactly one"),
        ({"item": ""}, 422, "item"),
        ({"item": "x" * 513}, 422, "item"),
        ({"item": "img/red", "weight": 0}, 422, "other than 0"),
    ],
)
def test_impossible_terms(client: httpx.Client, term: dict[str, Any], status: int, word: str) -> None:
    is_problem(client.post("/v1/search", json={"terms": [term]}), status, word)


def test_an_items_weight_means_the_same_whatever_its_vectors_length() -> None:
    backend, encoder = connect("exact://"), ColourEncoder()
    backend.create(CollectionSpec("c", encoder.dim, metric="dot", encoder=encoder.fingerprint))
    red, blue = encoder.encode_texts(["red", "blue"])
    backend.upsert("c", [Record("a", red, "text", "a"), Record("b", blue, "text", "b")])
    backend.upsert("c", [Record("long", 100 * red, "text", "long")])
    retriever = Retriever(backend, encoder, "c", calibrate=False)
    query = [Term(retriever.stored(["long"])["long"]), Term("blue", 2.0)]
    assert [hit.id for hit in retriever.search(query)] == ["b", "a"]
    with pytest.raises(ItemNotFound, match="'none'"):
        retriever.stored(["a", "none"])


def test_a_search_says_how_it_was_answered(client: httpx.Client) -> None:
    body = {"text": "red", "where": {"warm": True}, "explain": True}
    plans = client.post("/v1/search", json=body).json()["plans"]
    kinds = [{"modality": {"$eq": kind}} for kind in ("image", "text")]
    # Those that judge relevance by captions have no filter of the caller's.
    filtered = [plan for plan in plans if "$and" in plan["where"]]
    assert [plan["where"]["$and"][0] for plan in filtered] == kinds
    assert [(plan["kind"], plan["candidates"], plan["k"]) for plan in filtered] == [("scan", 3, 10), ("scan", 0, 10)]
    assert client.post("/v1/search", json={"text": "red"}).json()["plans"] is None


def test_a_search_counts_facets_over_what_it_finds(client: httpx.Client) -> None:
    body = {"text": "red", "modality": "image", "k": 1, "facets": ["warm", "tags", "absent", "modality"]}
    answer = client.post("/v1/search", json=body).json()
    assert len(answer["hits"]) == 1
    facets = answer["facets"]
    assert facets["warm"]["values"] == [{"value": False, "count": 3}, {"value": True, "count": 3}]
    assert facets["tags"]["values"][0] == {"value": "all", "count": 6}
    assert facets["absent"] == {"values": [], "more": 0, "missing": 6, "items": 6}
    assert facets["modality"]["values"] == [{"value": "image", "count": 6}]
    narrowed = client.post("/v1/search", json={**body, "where": {"warm": True}}).json()["facets"]
    assert narrowed["warm"]["values"] == [{"value": True, "count": 3}]
    assert client.post("/v1/search", json={"text": "red"}).json()["facets"] is None


def test_facets_of_fields_in_any_script(client: httpx.Client) -> None:
    composed, apart = (unicodedata.normalize(form, "año") for form in ("NFC", "NFD"))
    body = {"text": "red", "facets": [apart, "拍摄地点", "वर्ष"], "where": {apart: {"$exists": False}}}
    answer = client.post("/v1/search", json=body).json()
    assert sorted(answer["facets"]) == sorted([composed, "拍摄地点", "वर्ष"])
    assert answer["facets"][composed]["missing"] > 0


def test_facets_are_bounded(client: httpx.Client) -> None:
    is_problem(client.post("/v1/search", json={"text": "a", "facets": ["no field"]}), 422, "facets")
    is_problem(client.post("/v1/search", json={"text": "a", "facets": ["a"] * 17}), 422, "facets")


def test_engines_say_what_is_behind_the_service_and_no_address(client: httpx.Client) -> None:
    told = client.get("/v1/engines")
    assert told.status_code == 200, told.text
    body = told.json()
    assert (body["backend"]["scheme"], body["backend"]["answers"]) == ("exact", True)
    assert body["backend"]["version"].startswith("NumPy ")
    assert body["backend"]["capabilities"]["server"] is False
    (collection,) = body["collections"]
    assert (collection["name"], collection["count"], collection["images"]) == ("c", 7, 6)
    assert collection["vectors_bytes"] == 7 * ColourEncoder().dim * 4
    assert (collection["default"], collection["searchable"]) == (True, True)
    engines = {engine["scheme"]: engine for engine in body["engines"]}
    assert engines["faiss"]["installed"]
    assert "hnsw" in engines["faiss"]["can"]
    assert "://" not in told.text


def test_engines_answer_while_the_database_is_away(store: Backend, tmp_path: Path, monkeypatch: Any) -> None:
    def away() -> list[str]:
        raise Unavailable("postgresql://user:secret@db:5432 does not answer")

    monkeypatch.setattr(store, "collections", away)
    with serving(create_app(store, ColourEncoder(), "c", home=tmp_path / "home")) as client:
        told = client.get("/v1/engines")
        assert told.status_code == 200
        assert (told.json()["backend"]["answers"], told.json()["collections"]) == (False, [])
        assert told.json()["backend"]["scheme"] is None
        assert "secret" not in told.text
