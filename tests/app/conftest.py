"""Fixtures that tests of the command line and of the service share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core import local_servers as servers
from app.core.local_servers import down
from backends import connect
from backends.base import Backend, CollectionSpec, Record
from backends.kit.local_server import Launch, LocalServer, answers
from tests.support.chat_models import collection
from tests.support.cli import paint
from tests.support.small_server import PROGRAM, free_port
from tests.support.toy import ColourEncoder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a service keeps what is its own."""
    return tmp_path / "home"


@pytest.fixture
def store(tmp_path: Path) -> Backend:
    """Two painted photos in the collection ``c``."""
    backend, encoder = connect("exact://"), ColourEncoder()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    for colour in ("red", "green"):
        path = paint(tmp_path / "photos" / f"{colour}.png", colour, (900, 300))
        backend.upsert("c", [Record(f"a/{colour}", encoder.encode_images([path])[0], "image", colour, path.as_uri())])
    return backend


@pytest.fixture
def gallery(tmp_path: Path) -> Backend:
    """Pictures, captions and a passage in the collection ``c``, to chat about."""
    return collection(tmp_path / "photos").backend


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """The port of a small server called small."""
    port = free_port()
    server = LocalServer(
        "small",
        f"small://127.0.0.1:{port}",
        (port,),
        lambda: None,
        lambda folder: Launch([sys.executable, "-c", PROGRAM, str(port)], {"SMALL": "1"}),
        lambda: answers(f"http://127.0.0.1:{port}/"),
    )
    monkeypatch.setitem(servers.servers(), "small", server)
    yield port
    down("small", tmp_path, kill=True)


@pytest.fixture
def served_with(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `sightline serve` would have served, without serving it."""
    seen: list[dict[str, Any]] = []

    def create(store: Any, model: Any, collection: str, **options: Any) -> None:
        seen.append(options)

    monkeypatch.setattr("app.http.app.create_app", create)
    monkeypatch.setattr("app.serve.run", lambda service, listener: None)
    return seen
