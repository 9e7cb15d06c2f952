"""What those who call the service are told of its store: the collection's name, never where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from app.core.jobs import Job, _told
from app.core.keys import KeyStore
from app.core.telling import told_to_callers
from app.http.app import Limits, create_app
from backends import connect
from backends.base import Backend, CollectionSpec, Record
from backends.errors import BackendError, CollectionExists, CollectionNotFound, Unsupported
from indexers import IndexingError
from retrieval.chat import ChatOptions
from tests.support.chat_models import Scripted
from tests.support.chatting import DOG, loader, until
from tests.support.fake_qdrant import FakeQdrant
from tests.support.mcp_client import connected, text_of
from tests.support.service import bearer, ended
from tests.support.serving import running, serving
from tests.support.toy import ColourEncoder

VAULT = "vault-of-the-store"
QUESTION = {"role": "user", "content": "what is red?"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Backend]:
    with connect(f"faiss://{tmp_path / VAULT / 'index'}") as backend:
        encoder = ColourEncoder()
        backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
        backend.upsert("c", [Record("a", encoder.encode_texts(["red"])[0], "text", "red")])
        yield backend


def application(store: Backend, home: Path, **options: Any) -> FastAPI:
    options = {
        "encoder": ColourEncoder(),
        "limits": Limits(rate=None),
        "roots": [home / "photos"],
        "home": home / VAULT / "home",
        "load_model": loader(Scripted(replies=[DOG]), ChatOptions(gate=None)),
    } | options
    return create_app(store, collection="c", **options)


def answers(app: FastAPI, client: httpx.Client, collection: str, **body: Any) -> dict[str, httpx.Response]:
    """Every operation that a read key may do, asked for `collection`."""
    bodies: dict[str, dict[str, Any]] = {
        "/v1/search": {"json": {"text": "red", **body}},
        "/v1/lookup": {"files": {"file": ("a.png", b"no picture")}},
        "/v1/chat": {"json": {"question": "what is red?", **body}},
        "/v1/chat/completions": {"json": {"model": "sightline", "messages": [QUESTION], "stream": True, **body}},
    }
    found = {}
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            if operation.get("x-scope", "read") != "read":
                continue
            options = bodies.get(path, {})
            assert options or "x-body" not in operation, f"{path} is not asked here"
            url = path.format(item_id="a", job_id="0" * 16, name=collection, model="other")
            with_name = [each["name"] for each in operation.get("parameters", [])]
            params = {"collection": collection} if "collection" in with_name else {}
            found[f"{method} {path}"] = client.request(method, url, params=params, **options)
    return found


def tool_errors(port: int, key: str, collection: str) -> list[str]:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("search", {"text": "red"}),
        ("look_up", {"item_id": "a"}),
        ("get_item", {"item_id": "a"}),
        ("ask", {"question": "what is red?"}),
    ]
    told = []

    async def ask() -> None:
        async with connected(port, "auto", **bearer(key)) as client:
            for name, arguments in calls:
                result = await client.call_tool(name, {**arguments, "collection": collection})
                assert result.is_error
                told.append(text_of(result))

    anyio.run(ask)
    return told


@contextmanager
def read_by(app: FastAPI, key: str) -> Iterator[tuple[httpx.Client, int]]:
    with (
        running(app) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, headers=bearer(key)) as client,
    ):
        yield client, port


def check(found: dict[str, httpx.Response], *places: str) -> None:
    for name, response in found.items():
        for place in places:
            assert place not in response.text + str(response.headers), (name, response.text)


def test_a_missing_collection_is_told_by_its_name_alone(store: Backend, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / VAULT / "keys.json")
    _, key = keys.add("reader", "read")
    app = application(store, tmp_path, keys=keys)
    with read_by(app, key) as (client, port):
        found = answers(app, client, "absent")
        check(found, VAULT)
        for name in ("post /v1/search", "get /v1/items/{item_id}", "get /v1/collections/{name}", "post /v1/chat"):
            assert found[name].status_code == 404
            assert found[name].json()["detail"] == "there is no collection 'absent'"
        error = found["post /v1/chat/completions"].json()["error"]
        assert error["message"] == "there is no collection 'absent'"
        for told in tool_errors(port, key, "absent"):
            assert told.endswith(": there is no collection 'absent'")
            assert VAULT not in told
        refused = answers(app, client, "c", where={"$nonsense": 1})
        assert refused["post /v1/search"].status_code == 422
        check(refused, VAULT)


def test_a_broken_store_is_not_shown(store: Backend, tmp_path: Path) -> None:
    store.flush("c")
    keys = KeyStore(tmp_path / VAULT / "keys.json")
    _, key = keys.add("reader", "read")
    (tmp_path / VAULT / "index" / "c" / "store.sqlite3").write_bytes(b"no database" * 1000)
    with connect(f"faiss://{tmp_path / VAULT / 'index'}") as broken:
        app = application(broken, tmp_path, keys=keys)
        with read_by(app, key) as (client, port):
            found = answers(app, client, "c")
            assert found["post /v1/search"].status_code == 503
            check(found, VAULT)
            assert VAULT not in "".join(tool_errors(port, key, "c"))


def test_a_server_that_went_away_is_not_named(tmp_path: Path) -> None:
    fake = FakeQdrant()
    address = f"127.0.0.1:{fake.url(prefer_grpc=False).rpartition(':')[2].partition('?')[0]}"
    with connect(fake.url(prefer_grpc=False)) as backend:
        encoder = ColourEncoder()
        backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
        keys = KeyStore(tmp_path / "keys.json")
        _, key = keys.add("reader", "read")
        app = application(backend, tmp_path, keys=keys)
        with read_by(app, key) as (client, port):
            check(answers(app, client, "absent"), address, "qdrant://")
            fake.close()
            found = answers(app, client, "c")
            assert found["post /v1/search"].status_code == 503
            # What was asked within a second counts still.
            until(lambda: client.get("/readyz").status_code == 503)
            found["get /readyz"] = client.get("/readyz")
            # The list of engines shows every scheme's form.
            forms = found.pop("get /v1/engines")
            check(found, address, "qdrant://")
            check({"get /v1/engines": forms}, address)
            assert address not in "".join(tool_errors(port, key, "c"))


def test_a_job_tells_no_more(store: Backend, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("red")
    home = tmp_path / VAULT / "home"
    home.mkdir(parents=True)
    (home / "ledger.sqlite").write_bytes(b"no ledger" * 100)
    with serving(application(store, tmp_path)) as client:
        job = client.post("/v1/index", json={"folder": str(tmp_path / "photos")}).json()
        job = ended(client, job)
        assert job["state"] == "failed"
        assert "ledger" in job["error"]
        assert VAULT not in json.dumps(job)


PATH, URL = f"/srv/{VAULT}/index", f"postgresql://{VAULT}.internal:5432/photos"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CollectionNotFound(f"no collection 'x' in {PATH}"), "there is no collection 'x'"),
        (CollectionNotFound(f"collection 'x' in {PATH} with spaces was dropped"), "there is no collection 'x'"),
        (CollectionNotFound(f"the collection is no longer in {URL}"), "the collection is not there any more"),
        (CollectionExists(f"collection 'x' is already in {URL}: said"), "there is a collection 'x' already"),
        (Unsupported(f"{URL}: no such operator"), "the store: no such operator"),
        (Unsupported("faiss:// has no index kind 'x'"), "faiss:// has no index kind 'x'"),
    ],
)
def test_one_function_makes_errors_fit_for_callers(error: BackendError, told: str) -> None:
    assert told_to_callers(error) == told
    failure = IndexingError(f"storing stopped: {error}")
    failure.__cause__ = error
    job = Job("0" * 16, "/pics", "x", False, "running", 0.0)
    assert _told(job, failure) == told


def test_a_job_s_own_folder_is_told() -> None:
    job = Job("0" * 16, "/pics", "x", False, "running", 0.0)
    assert _told(job, IndexingError("/pics/a has nothing in it")) == "/pics/a has nothing in it"
    assert VAULT not in _told(job, OSError(28, "No space left on device", f"/srv/{VAULT}/x"))


# What is wrong with a request, in the names that its sender used


def completion(content: Any) -> dict[str, Any]:
    return {"model": "sightline", "messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (completion(5), "messages.0.content"),
        (completion([{"text": "a"}]), "messages.0.content.0.type"),
        (completion([{"type": "text", "text": 5}]), "messages.0.content.0.text"),
        (completion([{"type": "image_url", "image_url": {}}]), "messages.0.content.0.image_url.url"),
        (completion([5]), "messages.0.content.0"),
        ({"model": "sightline", "messages": [{"content": "a"}]}, "messages.0.role"),
        ({"model": "sightline"}, "messages"),
        ({"model": "sightline", "messages": {}}, "messages"),
        (completion("a") | {"stream": "maybe"}, "stream"),
        ([], None),
    ],
)
def test_what_is_wrong_is_named_as_the_client_knows_it(store: Backend, tmp_path: Path, body: Any, param: Any) -> None:
    with serving(application(store, tmp_path)) as client:
        error = client.post("/v1/chat/completions", json=body).json()["error"]
    assert error["param"] == param
    for insides in ("list[", "constrained", "Part", "Value error", "dictionary", "str]", "literal"):
        assert insides not in json.dumps(error), error


def test_problems_name_the_fields_plainly_too(store: Backend, tmp_path: Path) -> None:
    with serving(application(store, tmp_path)) as client:
        wrong = client.post("/v1/search", json={"text": 5, "k": "many"}).json()["detail"]
        assert wrong.startswith("body.text: ")
        assert wrong.endswith("(and 1 more)")
        assert client.get("/v1/items/a/similar?k=x").json()["detail"].startswith("query.k: ")
