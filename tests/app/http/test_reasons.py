"""What is said of a search that finds nothing: by the library, the command line and the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends import connect
from backends.base import CollectionSpec, Record
from retrieval.search.reasons import why_nothing
from retrieval.search.retriever import Retriever
from tests.support.cli import paint
from tests.support.service import png, served
from tests.support.toy import ColourEncoder


def stocked(folder: Path, colours: tuple[str, ...] = ("red", "green"), texts: tuple[str, ...] = ()) -> Retriever:
    backend, encoder = connect("exact://"), ColourEncoder()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    for colour in colours:
        path = paint(folder / "photos" / f"{colour}.png", colour, (90, 30))
        vector = encoder.encode_images([path])[0]
        backend.upsert("c", [Record(colour, vector, "image", colour, path.as_uri(), {"n": len(colour)})])
    for text in texts:
        backend.upsert("c", [Record(f"t-{text}", encoder.encode_texts([text])[0], "text", text)])
    return Retriever(backend, encoder, "c")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"asked_words": "zebra"}, "no item has any of these words"),
        ({"asked_words": "zebra", "modality": "image"}, "no image has any of these words"),
        ({"asked_words": "red", "where": {"n": 5}}, "no item that matches the filter has any of these words"),
        ({"asked_words": "!?"}, "there is no word in the query"),
        ({"where": {"n": 99}}, "no item matches the filter"),
        ({"where": {"n": 99}, "asked_words": "red"}, "no item matches the filter"),
        ({"modality": "text"}, "there are no texts in the collection"),
        ({"offset": 10}, "there is nothing from rank 11 on"),
        ({"offset": 10, "asked_words": "red"}, "there is nothing from rank 11 on"),
        ({"min_relevance": 0.9}, "nothing is relevant enough"),
        ({"left_out": 2}, "there is no other item"),
    ],
)
def test_the_reason_is_the_true_one(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    assert why_nothing(stocked(tmp_path), **asked) == said


def test_only_an_empty_collection_is_called_empty(tmp_path: Path) -> None:
    for asked in ({}, {"asked_words": "red"}, {"where": {"n": 1}}, {"modality": "text"}, {"offset": 5}):
        assert why_nothing(stocked(tmp_path, ()), **asked) == "the collection is empty"


def test_the_service_says_why_and_nothing_where_there_are_hits(tmp_path: Path) -> None:
    store = stocked(tmp_path).backend
    with served(store, tmp_path / "home") as client:
        for body, said in (
            ({"text": "zebra", "mode": "keyword"}, "no item has any of these words"),
            ({"text": "?!", "mode": "keyword"}, "there is no word in the query"),
            ({"text": "red", "where": {"n": 99}}, "no item matches the filter"),
            ({"text": "red", "modality": "text"}, "there are no texts in the collection"),
            ({"text": "red", "offset": 50}, "there is nothing from rank 51 on"),
            ({"text": "red"}, None),
        ):
            answer = client.post("/v1/search", json=body).json()
            assert (answer["nothing"], bool(answer["hits"])) == (said, said is None)
        looked_up = client.post("/v1/lookup", files={"image": png("red")}).json()
        assert looked_up == {"hits": [], "nothing": "there are no texts in the collection", "notices": []}
        alike = client.get("/v1/items/red/similar", params={"modality": "text"}).json()
        assert alike == {"hits": [], "nothing": "there are no texts in the collection", "notices": []}
