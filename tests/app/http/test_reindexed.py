"""A running service goes on when a collection is given another encoder, and uses that one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import backends
from app.http.app import create_app
from app.http.encoders import RETRY_S, Encoders
from backends.base import CollectionSpec
from backends.wrappers import aliases
from backends.wrappers.aliases import Aliased, with_aliases
from indexers.reindex import reindex
from retrieval.encoders.base import Encoder, EncoderError
from retrieval.encoders.batching import BatchedEncoder
from tests.support.reindexing import Turned, add
from tests.support.serving import serving
from tests.support.toy import PALETTE, ColourEncoder

TURNED = "turned:1"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aliased:
    """The collection ``c`` of painted pictures; what others point elsewhere is seen at once."""
    monkeypatch.setattr(aliases, "SEEN_S", 0.0)
    store = with_aliases(backends.connect("exact://"))
    store.create(CollectionSpec("c", ColourEncoder().dim, encoder=ColourEncoder().fingerprint))
    for colour in PALETTE:
        add(store, ColourEncoder(), tmp_path, colour)
    return store


def first(client: httpx.Client) -> str:
    answer = client.post("/v1/search", json={"text": "a red one", "modality": "image", "k": 1})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["hits"][0]["id"])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_search_fails_and_the_new_encoder_is_taken(store: Aliased) -> None:
    loaded: list[Turned] = []
    let = threading.Event()

    def load() -> Encoder:
        assert let.wait(20)
        loaded.append(Turned())
        return loaded[-1]

    app = create_app(store, ColourEncoder(), "c", load_encoder=lambda stored: load if stored == TURNED else None)
    with serving(app) as client:
        assert first(client) == "img-red"
        reindex(store, "c", Turned())
        assert first(client) == "img-red", "the earlier vectors, as the encoder is not loaded yet"
        assert not loaded
        let.set()
        until(lambda: bool(first(client)) and bool(loaded) and loaded[0].texts > 0)
        refused = client.delete("/v1/collections/c")
        assert (refused.status_code, refused.json()["detail"]) == (
            409,
            "'c' cannot be dropped, as 'c-before' stands for it: drop that",
        )
        assert client.delete("/v1/collections/c-before").status_code == 204
        assert first(client) == "img-red"
        assert client.get("/v1/collections/c").json()["searchable"] is True
        added = client.post("/v1/items", files={"items": (None, '[{"text": "a red wall"}]')})
        assert added.json()["added"] == 1
        found = client.post("/v1/search", json={"text": "red wall", "modality": "text", "k": 1}).json()["hits"]
        assert found[0]["text"] == "a red wall"
        assert len(loaded) == 1


def test_a_collection_of_an_encoder_that_cannot_be_loaded_is_refused_and_others_go_on(store: Aliased) -> None:
    def load() -> Encoder:
        raise EncoderError("its files are gone")

    app = create_app(store, ColourEncoder(), "c", load_encoder=lambda stored: load if stored == TURNED else None)
    with serving(app) as client:
        assert first(client) == "img-red"
        reindex(store, "c", Turned())
        assert first(client) == "img-red"
        until(lambda: not app.state.service.encoders.may_have(TURNED))
        refused = client.post("/v1/search", json={"text": "red"})
        assert refused.status_code == 409
        before = client.post("/v1/search?collection=c-before", json={"text": "a red one", "modality": "image"})
        assert before.json()["hits"][0]["id"] == "img-red"


@pytest.mark.parametrize("error", [EncoderError("the hub is away"), OSError("no such file")])
def test_an_encoder_that_could_not_be_loaded_is_tried_again_after_a_while(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def load() -> Encoder:
        tried.append(TURNED)
        if len(tried) == 1:
            raise error
        return Turned()

    known = Encoders(ColourEncoder(), BatchedEncoder, lambda stored: load if stored == TURNED else None)
    assert known.of(TURNED) is known.first
    assert known.of(TURNED) is known.first
    assert len(tried) == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + RETRY_S + 1)
    assert known.of(TURNED).fingerprint == TURNED
    assert len(tried) == 2
    known.close()
