"""`POST /v1/remove`, and how the service marks items whose file is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.http.app import Limits, create_app
from backends import connect
from backends.base import Backend
from indexers import index
from tests.support.cli import paint
from tests.support.service import is_problem
from tests.support.serving import serving
from tests.support.toy import ColourEncoder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("a/red", "b/copy", "b/blue"):
        paint(folder / f"{name}.png", "red" if name != "b/blue" else "blue")
    (folder / "a" / "red.txt").write_text("red thing")
    return folder


@pytest.fixture
def store(photos: Path) -> Backend:
    backend = connect("exact://")
    index(photos, backend, ColourEncoder(), "c")
    return backend


@pytest.fixture
def client(store: Backend, photos: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    app = create_app(store, ColourEncoder(), "c", home=tmp_path / "home", roots=[photos], limits=Limits(rate=None))
    with serving(app) as client:
        yield client


def test_items_are_removed_by_path_ids_and_filter(client: httpx.Client, store: Backend, photos: Path) -> None:
    def removed(**body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/v1/remove", json=body).raise_for_status().json()
        return answer

    dry = {"items": 0, "captions": 1, "kept_elsewhere": 1, "dry_run": True}
    assert removed(path=str(photos / "a"), dry_run=True) == dry
    assert store.count("c") == 3
    assert removed(path=str(photos / "a")) == dry | {"dry_run": False}
    assert store.count("c") == 2
    (blue,) = client.post("/v1/search", json={"text": "blue", "k": 1}).json()["hits"]
    assert removed(ids=[blue["id"]])["items"] == 1
    assert removed(where={"path": "b/copy.png"})["items"] == 1
    assert store.count("c") == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"path": "/x", "ids": ["a"]},
        {"path": "photos"},
        {"path": "file:///photos"},
        {"where": {}},
        {"where": {"$x": 1}},
    ],
)
def test_a_removal_that_says_too_little_or_too_much_is_refused(
    client: httpx.Client, store: Backend, body: dict[str, Any]
) -> None:
    is_problem(client.post("/v1/remove", json=body), 422)
    assert store.count("c") == 3


def test_a_hit_whose_file_is_gone_is_marked_and_a_copy_stands_in(client: httpx.Client, photos: Path) -> None:
    def found() -> dict[str, bool]:
        hits = client.post("/v1/search", json={"text": "red", "modality": "image"}).json()["hits"]
        return {hit["text"]: hit["gone"] for hit in hits}

    assert found() == {"red thing\ncopy.png": False, None: False}
    (photos / "a" / "red.png").unlink()
    assert found() == {"red thing\ncopy.png": False, None: False}
    (hit,) = client.post("/v1/search", json={"text": "red", "k": 1, "modality": "image"}).json()["hits"]
    assert client.get(f"/v1/items/{hit['id']}/image?size=160").status_code == 200
    (photos / "b" / "copy.png").unlink()
    assert found() == {"red thing\ncopy.png": True, None: False}
    assert client.get(f"/v1/items/{hit['id']}/image?size=320").status_code == 404
