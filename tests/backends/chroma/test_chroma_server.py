"""What is particular to Chroma's server: keys, time-outs, its going away, and what others do there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from backends import connect, versions
from backends.base import Backend, CollectionNotFound, CollectionSpec, Compare, Record, Unavailable
from backends.chroma.connection import KEY_VARIABLE
from backends.conformance.samples import some, vectors
from backends.errors import Denied
from tests.support import chroma_server

KEY = "the-right-key-of-a-test"


@pytest.fixture
def url() -> str:
    return chroma_server.url()


@pytest.fixture
def backend(url: str) -> Iterator[Backend]:
    with connect(url) as opened:
        yield opened
        for name in opened.collections():
            opened.drop(name)


@contextmanager
def guarded(target: str) -> Iterator[str]:
    """A proxy before a Chroma server that asks for a key, since the server itself knows none."""

    class Guard(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") == f"Bearer {KEY}" == f"Bearer {self.headers.get('x-chroma-token')}":
                kept = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
                answer = httpx.request(self.command, target + self.path, content=body, headers=kept, timeout=60)
                status, content = answer.status_code, answer.content
            else:
                status, content = 401, b"no such key: " + (self.headers.get("Authorization") or "").encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_is_not_there_is_named_with_the_remedy() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(Unavailable, match=rf"nothing answers at chroma://127.0.0.1:{port} .* chroma run"):
        connect(f"chroma://127.0.0.1:{port}")


def test_another_server_is_told_from_chroma() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(Unavailable, match="is no Chroma server"):
            connect(f"chroma://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unavailable, match="nothing answers"):
            versions.of_server(f"chroma://127.0.0.1:{port}", within_s=0.2)


@pytest.mark.parametrize(
    "bad", ["chroma://h?timeout_s=x", "chroma://h?nonsense=1", "chroma://h/collection", "chroma://h?https=maybe"]
)
def test_malformed_urls_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="chroma://"):
        connect(bad)


@pytest.mark.server("chroma")
def test_a_wrong_key_is_refused_and_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded(url.replace("chroma", "http")) as place:
        for wrong in (f"chroma://:wrong-key-of-a-test@{place}", f"chroma://{place}"):
            with pytest.raises(Denied, match=KEY_VARIABLE) as told:
                connect(wrong)
            assert "wrong-key" not in str(told.value)
        with connect(f"chroma://:{KEY}@{place}") as backend:
            backend.create(CollectionSpec("guarded", 8))
            backend.upsert("guarded", some(3))
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        with connect(f"chroma://{place}") as backend:
            assert backend.count("guarded") == 3
            backend.drop("guarded")
        monkeypatch.setenv(KEY_VARIABLE, "né")
        with pytest.raises(ValueError, match="characters that no key has"):
            connect(f"chroma://{place}")


@pytest.mark.server("chroma")
def test_a_tenant_or_database_that_is_not_there_is_named(url: str) -> None:
    for option in ("tenant", "database"):
        with pytest.raises(Unavailable, match="no such tenant or database"):
            connect(f"{url}?{option}=nowhere")


@pytest.mark.server("chroma")
def test_the_version_is_told(url: str) -> None:
    assert versions.of_server(url).startswith("Chroma 1.")


@pytest.mark.server("chroma")
def test_a_server_that_goes_away_and_comes_back_is_used_again(backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    backend.upsert("c", some(20))
    chroma_server.kill()
    for call in (
        lambda: backend.count("c"),
        lambda: backend.search("c", vectors(1, 8), 3),
        lambda: backend.upsert("c", some(3, prefix="lost")),
        backend.collections,
    ):
        with pytest.raises(Unavailable, match="does not answer"):
            call()
    chroma_server.url()
    assert backend.count("c") == 20
    assert len(backend.search("c", vectors(1, 8), 30)[0]) == 20
    backend.upsert("c", some(3, prefix="found"))
    assert backend.count("c") == 23


@pytest.mark.server("chroma")
def test_what_others_drop_is_missed_and_what_they_make_anew_is_seen(backend: Backend, url: str) -> None:
    backend.create(CollectionSpec("c", 8))
    backend.upsert("c", some(20))
    with connect(url) as other:
        assert other.count("c") == 20
        other.drop("c")
        for call in (
            lambda: backend.count("c"),
            lambda: backend.search("c", vectors(1, 8), 3),
            lambda: backend.upsert("c", some(3)),
            lambda: backend.delete("c", ids=["r00001"]),
            lambda: backend.set_encoder("c", "x"),
        ):
            with pytest.raises(CollectionNotFound, match="'c'"):
                call()
        other.create(CollectionSpec("c", 4, "l2"))
        backend.upsert("c", some(5, 4))
        assert (other.count("c"), backend.describe("c").dim) == (5, 4)


@pytest.mark.server("chroma")
def test_two_writers_of_the_same_ids_leave_whole_records(backend: Backend, url: str) -> None:
    backend.create(CollectionSpec("c", 8))
    rows = vectors(2, 8)
    kinds: tuple[dict[str, Any], ...] = ({"s": "x", "n": 1}, {"s": ["x"], "m": "y"})
    with connect(url) as other:

        def write(store: Backend, turn: int) -> None:
            for _ in range(15):
                store.upsert("c", [Record(f"r{i}", rows[turn], metadata=kinds[turn]) for i in range(20)])

        threads = [threading.Thread(target=write, args=each) for each in ((backend, 0), (other, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = [record for page in backend.scan("c") for record in page.records]
    assert len(records) == 20
    first = sum("n" in record.metadata for record in records)
    for record in records:
        turn = 0 if "n" in record.metadata else 1
        assert dict(record.metadata) == kinds[turn]
        np.testing.assert_allclose(record.vector, rows[turn] / np.linalg.norm(rows[turn]), rtol=1e-6)
    assert backend.count("c", Compare("n", "gte", 1)) == first
    assert backend.count("c", Compare("m", "eq", "y")) == 20 - first
    assert backend.count("c", Compare("s", "contains", "x")) == 20 - first


def test_a_folder_is_not_taken_for_a_server(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no chroma server"):
        connect("chroma://?database=x")
