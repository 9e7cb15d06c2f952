"""What an attacker tries, each as a test: paths, links, bombs, sizes, headers, filters, scopes, slowness."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.core.keys import KeyStore
from app.core.roots import RecordedRoots, Roots, RootsError
from app.http.app import Limits, create_app
from app.http.server import PromptH11
from backends import connect
from backends.base import Backend, CollectionSpec, Record
from tests.support.cli import paint
from tests.support.service import is_problem
from tests.support.serving import running, serving
from tests.support.toy import ColourEncoder

GIGABYTE = 10**9


@pytest.fixture
def store(tmp_path: Path) -> Backend:
    backend, encoder = connect("exact://"), ColourEncoder()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    paint(tmp_path / "photos" / "red.png", "red")
    paint(tmp_path / "secret" / "hidden.png", "green")
    (tmp_path / "secret" / "passwd").write_text("root:x:0:0")
    return backend


def put(store: Backend, name: str, uri: str) -> None:
    store.upsert("c", [Record(name, ColourEncoder().encode_texts([name])[0], "image", name, uri)])


@pytest.fixture
def client(store: Backend, tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(served(store, tmp_path)) as client:
        yield client


def served(store: Backend, tmp_path: Path, **options: object) -> object:
    limits = Limits(rate=None, body_idle_s=0.5, body_s=1.0, max_body_bytes=2**20, max_upload_bytes=2**20)
    common = {"home": tmp_path / "home", "roots": [tmp_path / "photos"], "limits": limits}
    return create_app(store, ColourEncoder(), "c", **{**common, **options})  # type: ignore[arg-type]


# Paths and links


def test_items_cannot_make_the_service_read_outside_its_roots(
    store: Backend, client: httpx.Client, tmp_path: Path
) -> None:
    photos, hidden = tmp_path / "photos", tmp_path / "secret" / "hidden.png"
    (photos / "link.png").symlink_to(hidden)
    (photos / "folder").symlink_to(hidden.parent)
    (tmp_path / "photos2").mkdir()
    paint(tmp_path / "photos2" / "near.png", "blue")
    os.mkfifo(photos / "pipe.png")
    outside = {
        "absolute": hidden.as_uri(),
        "plain": str(hidden),
        "dots": f"file://{photos}/../secret/hidden.png",
        "encoded": f"file://{photos}/%2e%2e/secret/hidden.png",
        "link": (photos / "link.png").as_uri(),
        "linked folder": (photos / "folder" / "hidden.png").as_uri(),
        "prefix": (tmp_path / "photos2" / "near.png").as_uri(),
        "passwd": "file:///etc/passwd",
        "relative": "secret/hidden.png",
        "nul": "file:///tmp/%00",
        "host": "file://elsewhere/red.png",
        "web": "http://127.0.0.1:1/red.png",
        "metadata": "http://169.254.169.254/latest/meta-data",
        "device": "file:///dev/zero",
        "pipe": (photos / "pipe.png").as_uri(),
        "folder itself": photos.as_uri(),
    }
    for name, uri in outside.items():
        put(store, name, uri)
        response = client.get(f"/v1/items/{name}/image")
        assert response.status_code == 404, name
        assert response.headers["content-type"] == "application/problem+json"
    put(store, "inside", (photos / "red.png").as_uri())
    (photos / "to red.png").symlink_to(photos / "red.png")
    put(store, "inner link", (photos / "to red.png").as_uri())
    assert client.get("/v1/items/inside/image").status_code == 200
    assert client.get("/v1/items/inner link/image").status_code == 200


def test_outside_and_missing_are_not_told_apart(store: Backend, client: httpx.Client, tmp_path: Path) -> None:
    details = []
    for path in ("/etc/passwd", "/etc/no-such-file"):
        put(store, "x", f"file://{path}")
        details.append(client.get("/v1/items/x/image").json()["detail"])
    folders = [client.post("/v1/index", json={"folder": path}) for path in ("/etc", "/no-such-folder")]
    assert details[0] == details[1]
    assert {response.status_code for response in folders} == {403}


def test_a_link_slipped_in_after_the_check_is_not_followed(
    tmp_path: Path, store: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    paint(photos / "sub" / "a.png", "red")
    roots = Roots([photos], RecordedRoots(tmp_path), tmp_path / "uploads")
    real = os.path.realpath

    def swapping(path: object, **options: object) -> str:
        found = real(path, **options)  # type: ignore[call-overload]
        if str(path).endswith("a.png") and not (photos / "sub").is_symlink():
            (photos / "sub").rename(photos / "old")
            (photos / "sub").symlink_to(tmp_path / "secret")
            paint(tmp_path / "secret" / "a.png", "green")
        return str(found)

    monkeypatch.setattr("os.path.realpath", swapping)
    with pytest.raises(OSError, match=r"sub|Not a directory|symbolic"):
        roots.open_image(photos / "sub" / "a.png")


def test_only_folders_that_were_indexed_as_such_may_be_indexed_again(tmp_path: Path, store: Backend) -> None:
    recorded = RecordedRoots(tmp_path / "home")
    recorded.add(tmp_path / "photos", folder=True)
    recorded.add(tmp_path / "secret" / "hidden.png", folder=False)
    with serving(served(store, tmp_path, roots=None)) as client:
        assert client.get("/v1/index").json()["folders"] == [str(tmp_path / "photos")]
        is_problem(client.post("/v1/index", json={"folder": str(tmp_path / "secret")}), 403)
        put(store, "one", (tmp_path / "secret" / "hidden.png").as_uri())
        put(store, "other", (tmp_path / "secret" / "passwd").as_uri())
        assert client.get("/v1/items/one/image").status_code == 200
        is_problem(client.get("/v1/items/other/image"), 404)
        (tmp_path / "home" / "roots.json").write_text("[")
        is_problem(client.get("/v1/items/one/image"), 404)


def test_what_the_indexer_leaves_out_is_not_indexed_by_its_name(tmp_path: Path, store: Backend) -> None:
    photos = tmp_path / "photos"
    paint(photos / "plain" / "a.png", "red")
    for hidden in (".secret", ".secret/deep", "plain/.git", "...", ".hidden.d"):
        paint(photos / hidden / "a.png", "red")
    paint(tmp_path / "outside" / "a.png", "red")
    (photos / "link").symlink_to(photos / ".secret")
    (photos / "out").symlink_to(tmp_path / "outside")
    (photos / "in").symlink_to(photos / "plain")
    (photos / "loop").symlink_to(photos / "loop")
    os.mkfifo(photos / "pipe")
    names = {
        "is hidden": (".secret", ".secret/deep", "plain/.git", "...", ".hidden.d", "link", "plain/../.secret"),
        "is not below": ("..", "out", "plain/../..", "plain/\0"),
        "is not a folder": ("pipe", "plain/a.png", "loop", "PLAIN", "x" * 900, "x/" * 490),
    }
    refused = {name: words for words, group in names.items() for name in group}
    with serving(served(store, tmp_path)) as client:
        for name, words in refused.items():
            is_problem(client.post("/v1/index", json={"folder": f"{photos}/{name}"}), 403, words)
        for path in ("photos/plain", "/dev/null", "/proc/self/fd"):
            is_problem(client.post("/v1/index", json={"folder": path}), 403, "is not below")
        for name in ("", "plain", "in", "plain/../plain/."):
            assert client.post("/v1/index", json={"folder": f"{photos}/{name}"}).status_code == 202, name
    # One that was given is meant, and what is hidden in it is not.
    for roots in ([photos / ".secret"], [photos, photos / ".secret"]):
        given = Roots(roots, RecordedRoots(tmp_path), tmp_path / "uploads")
        assert given.folder(str(photos / "link" / "deep")) == photos / ".secret" / "deep"
        with pytest.raises(RootsError, match="is hidden"):
            given.folder(str(paint(photos / ".secret" / ".more" / "a.png", "red").parent))
    assert Roots([Path("/")], RecordedRoots(tmp_path), tmp_path).folder(str(photos)) == photos


def test_jobs_look_at_their_folder_again(tmp_path: Path) -> None:
    roots = Roots([tmp_path / "a"], RecordedRoots(tmp_path), tmp_path / "uploads")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert roots.folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    (tmp_path / "a" / "b").rmdir()
    (tmp_path / "a" / "b").symlink_to("/etc")
    for path in (tmp_path / "a" / "b", tmp_path / "a" / "..", "a", "\0", str(tmp_path / "a" / "none")):
        with pytest.raises(RootsError):
            roots.folder(str(path))


def test_the_static_files_are_only_those(client: httpx.Client) -> None:
    for path in ("/static/..%2f..%2fpyproject.toml", "/static/%2e%2e/service.py", "/static//etc/passwd", "/static/"):
        assert client.get(path).status_code == 404, path


# Bombs and sizes


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(60_001) * 50, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_decompression_bombs(store: Backend, client: httpx.Client, tmp_path: Path) -> None:
    data = bomb()
    assert len(data) < 100_000
    is_problem(client.post("/v1/lookup", files={"image": data}), 422, "pixels")
    added = client.post("/v1/items", files={"files": data}).json()
    assert added["failed"] == 1
    assert "pixels" in added["items"][0]["error"]
    (tmp_path / "photos" / "bomb.png").write_bytes(data)
    put(store, "bomb", (tmp_path / "photos" / "bomb.png").as_uri())
    is_problem(client.get("/v1/items/bomb/image"), 422, "pixels")


def ask(port: int, head: str, body: bytes = b"", wait_s: float = 10) -> bytes:
    """Send bytes as they are, and read what comes until the server closes or says nothing more."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + body)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


@pytest.mark.slow
def test_a_gigabyte_is_refused_by_its_length_without_being_read(store: Backend, tmp_path: Path) -> None:
    with running(served(store, tmp_path)) as port:
        head = (
            "POST /v1/items HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=x\n"
            f"Content-Length: {GIGABYTE}\n\n"
        )
        start_s = time.monotonic()
        answer = ask(port, head)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert time.monotonic() - start_s < 5
        # One that does not say how long it is, is cut off at the limit.
        head = (
            "POST /v1/search HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n"
        )
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        assert ask(port, head, chunk * 40).startswith(b"HTTP/1.1 413 ")


@pytest.mark.slow
def test_who_may_not_write_is_refused_before_the_body_is_read(store: Backend, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.json")
    _, text = keys.add("reader", "read")
    with running(served(store, tmp_path, keys=keys)) as port:
        common = "POST /v1/items HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=x\n"
        assert ask(port, f"{common}Content-Length: 1000\n\n", wait_s=3).startswith(b"HTTP/1.1 401 ")
        answer = ask(port, f"{common}X-API-Key: {text}\nContent-Length: 1000\n\n", wait_s=3)
        assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"where":' * 10_000, '{"text":"x","where":' + '{"$not":' * 500])
def test_deep_json(client: httpx.Client, text: str) -> None:
    response = client.post("/v1/search", content=text, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    closed = '{"text":"x","where":' + '{"$not":' * 200 + '{"a":1}' + "}" * 201
    response = client.post("/v1/search", content=closed, headers={"Content-Type": "application/json"})
    is_problem(response, 422)


def test_large_json(client: httpx.Client) -> None:
    is_problem(client.post("/v1/collections", json={"name": "a", "index": "x" * 70_000}), 413)
    is_problem(client.post("/v1/search", json={"text": "x" * 2**20}), 413)
    is_problem(client.post("/v1/search", json={"text": "x" * 20_000}), 422, "characters")
    is_problem(client.post("/v1/search", json={"terms": [{"text": "x"}] * 65}), 422, "terms")
    is_problem(client.post("/v1/search", json={"text": "x", "where": {"$or": [{"a": 1}] * 5000}}), 422)


def test_large_bodies_and_images_are_taken_a_few_at_a_time(store: Backend, tmp_path: Path) -> None:
    limits = Limits(rate=None, large_body_bytes=100, max_large_bodies=1, max_decoding=1, decoding_wait_s=0.1)
    app = served(store, tmp_path, limits=limits)
    with serving(app) as client:  # type: ignore[arg-type]
        head = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as holding:
            holding.sendall(f"{head}Content-Length: 200\r\n\r\n".encode())
            deadline = time.monotonic() + 10
            while (refused := client.post("/v1/search", json={"text": "x" * 200})).status_code == 200:
                assert time.monotonic() < deadline
            is_problem(refused, 503, "large")
            assert client.post("/v1/search", json={"text": "x"}).status_code == 200
        # Who hangs up gives the place back.
        while app.state.service.large_bodies.taken:  # type: ignore[attr-defined]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with app.state.service.decoding():  # type: ignore[attr-defined]
            is_problem(client.post("/v1/lookup", files={"image": b"x" * 10}), 503, "images")
        is_problem(client.post("/v1/lookup", files={"image": b"x" * 10}), 422, "not an image")


def test_the_images_of_a_search_are_bounded_together(store: Backend, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 30), "red").save(buffer, "PNG")
    term = {"image": base64.b64encode(buffer.getvalue()).decode()}
    with serving(served(store, tmp_path, limits=Limits(rate=None, max_pixels=2000))) as client:  # type: ignore[arg-type]
        assert client.post("/v1/search", json={"terms": [term] * 2}).status_code == 200
        is_problem(client.post("/v1/search", json={"terms": [term] * 3}), 422, "pixels")


# Headers and filters


def test_headers_cannot_be_injected(store: Backend, tmp_path: Path) -> None:
    with running(served(store, tmp_path)) as port:
        head = "GET /healthz HTTP/1.1\nHost: localhost\nConnection: close\n"
        evil = ask(port, f"{head}X-Request-ID: a%0d%0aSet-Cookie: b=1\n\n")
        assert evil.startswith(b"HTTP/1.1 200 ")
        assert b"set-cookie" not in evil.lower()
        assert b"%0d" not in evil
        quoted = ask(port, "GET /v1/items/a%0d%0aSet-Cookie:%20b=1 HTTP/1.1\nHost: localhost\nConnection: close\n\n")
        assert b"\r\nset-cookie" not in quoted.lower()
        assert ask(port, f"{head}X-Odd: " + "a" * 20_000 + "\n\n").startswith(b"HTTP/1.1 431 ")
        assert ask(port, f"{head}X-Odd: " + "a" * 100_000 + "\n\n")[9:12] in (b"400", b"431")
        # Two lengths, or a length and chunks, are how requests are smuggled past a proxy.
        twice = ask(port, "POST /v1/search HTTP/1.1\nHost: localhost\nContent-Length: 1\nContent-Length: 2\n\nab")
        assert twice.startswith(b"HTTP/1.1 400 ")


def test_filters_cannot_be_injected(store: Backend, client: httpx.Client) -> None:
    put(store, "a", "file:///a")
    evil = "x' OR '1'='1'; DROP TABLE c; --"
    for where in ({"name": evil}, {"name": {"$in": [evil]}}, {"modality": evil}):
        assert client.post("/v1/search", json={"text": "a", "where": where}).json()["hits"] == []
    for where in ({evil: 1}, {"$where": "sleep(1)"}, {"a": {"$regex": ".*"}}, {"a.b": 1}, {"a": {"$eq": {"b": 1}}}):
        is_problem(client.post("/v1/search", json={"text": "a", "where": where}), 422)
    assert store.count("c") == 1


def test_unusual_text_is_data(client: httpx.Client) -> None:
    is_problem(client.post("/v1/search", json={"text": "a\x00b"}), 422, "NUL")
    for text in ("\u202e", "${jndi:ldap://x}", "<script>", "a" * 10_000):
        assert client.post("/v1/search", json={"text": text}).status_code in (200, 422), text
    lone = client.post("/v1/search", content=b'{"text": "\\ud800"}', headers={"Content-Type": "application/json"})
    assert lone.status_code == 422
    where = b'{"text": "x", "where": {"\\ud800": 1}}'
    assert client.post("/v1/search", content=where, headers={"Content-Type": "application/json"}).status_code == 422
    odd = b'{"text": "x", "where": {"a": NaN}}'
    assert client.post("/v1/search", content=odd, headers={"Content-Type": "application/json"}).status_code == 422


def test_uploads_cannot_choose_where_they_lie_nor_what_they_are(client: httpx.Client, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    for name in ("../../../evil.png", "/etc/evil.png", "a\\..\\evil.png", "evil.php", "a\r\nX: y.png", ".."):
        # What is stored is named by its content, and holds no more than an image can.
        client.post("/v1/items", files={"files": (name, buffer.getvalue())})
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and "evil" in path.name]
    assert not kept
    about = json.dumps([{"text": "x", "metadata": {"source": "/etc", "path": "../x"}}])
    assert client.post("/v1/items", files={"files": buffer.getvalue()}, data={"items": about}).status_code == 200


# Slow clients


def test_slow_bodies_end_with_408(store: Backend, tmp_path: Path) -> None:
    with running(served(store, tmp_path)) as port:
        head = "POST /v1/search HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 100\n\n"
        start_s = time.monotonic()
        answer = ask(port, head, b'{"te')
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 0.4 < time.monotonic() - start_s < 5
        # A byte now and then keeps it no longer than the whole may take.
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head.replace("\n", "\r\n").encode())
            start_s = time.monotonic()
            connection.setblocking(False)
            while time.monotonic() - start_s < 8:
                time.sleep(0.2)
                try:
                    connection.sendall(b" ")
                    assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
                    break
                except BlockingIOError:
                    continue
            assert time.monotonic() - start_s < 4


def test_slow_headers_are_cut_off(store: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptH11, "headers_s", 0.4)
    with running(served(store, tmp_path)) as port:
        for start in ("", "GET /healthz HTTP/1.1\nHost: loc"):
            start_s = time.monotonic()
            assert ask(port, start) == b""
            assert 0.3 < time.monotonic() - start_s < 5
        # Nor may a second request on the same connection dawdle.
        whole = "GET /healthz HTTP/1.1\nHost: localhost\n\n"
        start_s = time.monotonic()
        assert ask(port, whole + "GET /healthz HTTP/1.1\nHos").count(b"HTTP/1.1 200") == 1
        assert time.monotonic() - start_s < 5
