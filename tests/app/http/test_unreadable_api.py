"""Over HTTP: queries and texts that the encoder cannot read, and collections of an earlier text side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from app.http.app import create_app
from backends import connect
from backends.base import Backend
from backends.wrappers.keywords import with_keywords
from tests.support.chat_models import Scripted
from tests.support.chatting import loader
from tests.support.cli import paint
from tests.support.mcp_client import connected, text_of
from tests.support.readers import LatinReader
from tests.support.service import FREE, ended, is_problem
from tests.support.serving import serving

AEROPLANE, CAPTION = "飞机", "一架 飞机 停在 跑道"
UNREADABLE = "urn:sightline:unreadable-query"
WORDS_ONLY = "latin cannot read this query: only its words were searched"


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    store = connect("exact://")
    return store if store.capabilities.keyword else with_keywords(store, tmp_path / "words")


@pytest.fixture
def app(backend: Backend, tmp_path: Path) -> Any:
    """A service with a folder to index: two pictures, one with a Chinese caption."""
    paint(tmp_path / "photos" / "red.png", "red")
    paint(tmp_path / "photos" / "green.png", "green")
    (tmp_path / "photos" / "red.txt").write_text(CAPTION, encoding="utf-8")
    (tmp_path / "photos" / "green.txt").write_text("a green square", encoding="utf-8")
    return application(backend, tmp_path, LatinReader())


def application(backend: Backend, tmp_path: Path, encoder: LatinReader) -> Any:
    model = Scripted(replies=[f"{CAPTION} [1]."])
    return create_app(
        backend,
        encoder,
        "c",
        limits=FREE,
        roots=[tmp_path / "photos"],
        home=tmp_path / "home",
        load_model=loader(model),
    )


@pytest.fixture
def client(app: Any, tmp_path: Path) -> Iterator[httpx.Client]:
    """The service, when the folder is indexed."""
    with serving(app) as opened:
        indexed(opened, tmp_path)
        yield opened


def indexed(client: httpx.Client, tmp_path: Path) -> dict[str, Any]:
    job = client.post("/v1/index", json={"folder": str(tmp_path / "photos")}).json()
    done = ended(client, job)
    assert done["state"] == "done"
    report: dict[str, Any] = done["report"]
    return report


@pytest.mark.parametrize(
    "body",
    [
        {"text": AEROPLANE},
        {"text": "？！", "mode": "hybrid"},
        {"text": AEROPLANE, "facets": ["folder"]},
        {"text": AEROPLANE, "min_relevance": 0.8},
        {"terms": [{"text": AEROPLANE}]},
    ],
)
def test_a_query_that_cannot_be_read_is_a_problem_of_its_own(client: httpx.Client, body: dict[str, Any]) -> None:
    refused = client.post("/v1/search", json=body)
    is_problem(refused, 422, "latin cannot read this query; use --mode keyword, or an encoder for its language")
    assert (refused.json()["type"], refused.json()["title"]) == (UNREADABLE, "The encoder cannot read the query")
    other = client.post("/v1/search", json={})
    assert (other.json()["type"], other.json()["title"]) == ("about:blank", "Unprocessable Entity")


def test_a_term_is_named(client: httpx.Client) -> None:
    terms = [{"text": "red"}, {"text": AEROPLANE, "weight": -1}]
    is_problem(client.post("/v1/search", json={"terms": terms}), 422, f"the term '{AEROPLANE}'; leave it out")


def test_words_alone_are_told(client: httpx.Client) -> None:
    by_words = client.post("/v1/search", json={"text": AEROPLANE, "mode": "keyword"}).json()
    assert by_words["notices"] == []
    assert {hit["text"] for hit in by_words["hits"]} == {CAPTION}
    both = client.post("/v1/search", json={"text": AEROPLANE, "mode": "hybrid", "facets": ["modality"]}).json()
    assert both["notices"] == [WORDS_ONLY]
    assert both["hits"] == by_words["hits"]
    assert {value["value"] for value in both["facets"]["modality"]["values"]} == {"image", "text"}
    nothing = client.post("/v1/search", json={"text": "没有", "mode": "hybrid"}).json()
    assert nothing["nothing"] == "no item has any of these words"


def test_nothing_is_like_an_item_without_a_vector(client: httpx.Client) -> None:
    hits = client.post("/v1/search", json={"text": AEROPLANE, "mode": "keyword", "modality": "text"}).json()["hits"]
    refused = client.get(f"/v1/items/{hits[0]['id']}/similar")
    is_problem(refused, 422, "has no vector, as latin could not read its text")
    assert refused.json()["type"] == "urn:sightline:item-without-vector"
    assert client.get(f"/v1/items/{hits[0]['id']}").json()["text"] == CAPTION
    term = client.post("/v1/search", json={"terms": [{"item": hits[0]["id"]}]})
    assert term.json()["type"] == "urn:sightline:item-without-vector"


def test_a_job_counts_them(app: Any, tmp_path: Path) -> None:
    with serving(app) as client:
        assert indexed(client, tmp_path)["unreadable"] == 1
        assert indexed(client, tmp_path)["unreadable"] == 0


def test_uploads_count_and_store_them(client: httpx.Client) -> None:
    items = [{"text": "一只 狗"}, {"text": "a dog"}, {"text": "一只 猫"}]
    added = client.post("/v1/items", files={"items": (None, json.dumps(items))}).json()
    assert (added["added"], added["unreadable"], added["failed"]) == (3, 2, 0)
    found = client.post("/v1/search", json={"text": "狗", "mode": "keyword"}).json()["hits"]
    assert [hit["text"] for hit in found] == ["一只 狗"]


def test_chat_searches_words_alone_and_says_so(client: httpx.Client) -> None:
    answer = client.post("/v1/chat", json={"question": AEROPLANE, "stream": False}).json()
    assert answer["notices"] == ["latin cannot read the question: only its words were searched for"]
    assert [source["caption"] for source in answer["sources"]] == [CAPTION]
    refused = client.post("/v1/chat", json={"question": "？！", "stream": False})
    assert (refused.status_code, refused.json()["type"]) == (422, UNREADABLE)


def test_tools_tell_it(client: httpx.Client) -> None:
    async def work() -> None:
        async with connected(int(client.base_url.port or 0)) as tools:
            refused = await tools.call_tool("search", {"text": AEROPLANE})
            assert refused.is_error
            assert "latin cannot read this query" in text_of(refused)
            found = await tools.call_tool("search", {"text": AEROPLANE, "mode": "hybrid"})
            assert found.structured_content["notices"] == [WORDS_ONLY]

    anyio.run(work)


def test_a_collection_of_an_earlier_text_side(backend: Backend, client: httpx.Client, tmp_path: Path) -> None:
    assert client.post("/v1/search", json={"text": "green"}).json()["notices"] == []
    client.close()
    encoder = LatinReader(side="new")
    with serving(application(backend, tmp_path, encoder)) as later:
        assert later.get("/v1/collections/c").json()["searchable"] is True
        found = later.post("/v1/search", json={"text": "green"}).json()
        assert found["hits"]
        (notice,) = found["notices"]
        assert notice.startswith(
            "the texts of collection 'c' were encoded by an earlier version of latin: run sightline"
        )
        similar = later.get(f"/v1/items/{found['hits'][0]['id']}/similar").json()
        assert similar["notices"] == [notice]
        assert indexed(later, tmp_path)["reencoded"] == 2
        assert encoder.images == 0
        assert backend.describe("c").encoder == encoder.fingerprint
