"""Requests on the wire: what could be taken for two different ones is refused, and answers are not held back."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.http.server
from app.http.app import Limits, create_app
from app.http.framing import MAX_CHUNK_OVERHEAD_BYTES
from backends import connect
from backends.base import CollectionSpec
from tests.support.serving import running
from tests.support.toy import ColourEncoder

POST = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
BODY = '{"text": "red"}'
CHUNKED = f"{len(BODY):x}\r\n{BODY}\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    store, encoder = connect("exact://"), ColourEncoder()
    store.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    service = create_app(store, encoder, "c", home=tmp_path_factory.mktemp("home"), limits=Limits(rate=None))
    with running(service) as port:
        yield port


def answers(port: int, *parts: str) -> tuple[list[int], bytes]:
    """The statuses of all answers to what is sent on one connection, and the bytes, up to the connection's end."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part.encode("latin-1"))
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)], received


SECOND = f"{GET}X-Smuggled: yes\r\n\r\n"
AMBIGUOUS = {
    "length and chunks": f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}",
    "chunks and length": f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{SECOND}",
    "two lengths": f"{POST}Content-Length: 15\r\nContent-Length: 5\r\n\r\n{BODY}",
    "one length twice": f"{POST}Content-Length: 15\r\ncontent-length: 15\r\n\r\n{BODY}",
    "a list of lengths": f"{POST}Content-Length: 15, 15\r\n\r\n{BODY}",
    "a signed length": f"{POST}Content-Length: +15\r\n\r\n{BODY}",
    "a length in hexadecimal": f"{POST}Content-Length: 0xf\r\n\r\n{BODY}",
    "a line that ends without CR": f"{POST}X-A: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a head that ends without CR": f"{GET}X-A: 1\r\n\n",
    "a request line without CR": "GET /v1/models HTTP/1.1\nHost: localhost\r\n\r\n",
    "CR within a line": f"{GET}X-A: 1\rX-B: 2\r\n\r\n",
    "space before a colon": f"{POST}Content-Length : 15\r\n\r\n{BODY}",
    "a header in two lines": f"{POST}X-A: 1\r\n Content-Length: 15\r\n\r\n{BODY}",
    "a folded coding": f"{POST}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "NUL in a header": f"{GET}X-A: a\0b\r\n\r\n",
    "NUL in the target": "GET /v1/\0models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another host in the target": "GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another port in the target": "GET http://localhost:1/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a user in the target": "GET http://localhost@evil/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two hosts": f"{GET}Host: localhost\r\n\r\n",
    "no host": "GET /v1/models HTTP/1.1\r\n\r\n",
    "chunks in HTTP/1.0": POST.replace("1.1", "1.0") + f"Transfer-Encoding: chunked\r\n\r\n{CHUNKED}0\r\n\r\n",
    "a chunk without its size": f"{POST}Transfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
    "a chunk longer than it says": f"{POST}Transfer-Encoding: chunked\r\n\r\n2\r\n{BODY}\r\n0\r\n\r\n",
    "a chunk's line without CR": f"{POST}Transfer-Encoding: chunked\r\n\r\nf;a\nb\r\n{BODY}\r\n0\r\n\r\n",
    "chunks that end without CR": f"{POST}Transfer-Encoding: chunked\r\n\r\n{CHUNKED}0\r\n\n",
    "headers after the body": f"{POST}Transfer-Encoding: chunked\r\n\r\n{CHUNKED}0\r\nContent-Length: 3\r\n\r\n",
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_could_be_two_requests_is_refused_and_the_connection_ends(port: int, what: str) -> None:
    statuses, received = answers(port, AMBIGUOUS[what])
    assert statuses == [400]
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"Connection: close" in head
    assert json.loads(body)["status"] == 400


@pytest.mark.parametrize("coding", ["gzip", "chunked, identity", "identity, chunked", "xchunked", '"chunked"'])
def test_no_coding_but_chunked_is_taken(port: int, coding: str) -> None:
    statuses, _ = answers(port, f"{POST}Transfer-Encoding: {coding}\r\n\r\n{CHUNKED}0\r\n\r\n")
    assert statuses == [501]
    twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"
    assert answers(port, f"{POST}{twice}\r\n{CHUNKED}0\r\n\r\n")[0] == [501]


@pytest.mark.parametrize("version", ["2.0", "1.2", "0.9", "9.9"])
def test_other_versions_are_refused(port: int, version: str) -> None:
    assert answers(port, GET.replace("1.1", version) + "\r\n")[0] == [505]


def test_headers_that_never_end_are_refused(port: int) -> None:
    assert answers(port, GET + "X-A: " + "x" * 70_000)[0] == [431]


@pytest.mark.parametrize("at_once", [True, False])
def test_chunks_that_are_mostly_padding_are_refused(port: int, at_once: bool) -> None:
    padded = f"1;{'x' * 8000}\r\n \r\n"
    head = f"{POST}Transfer-Encoding: chunked\r\n\r\n"
    number = MAX_CHUNK_OVERHEAD_BYTES // 8000 + 1
    sent = [head, *[padded] * number]
    statuses, _ = answers(port, *(["".join(sent)] if at_once else sent))
    assert statuses == [400]
    assert answers(port, f"{head}1;{'x' * 20_000}")[0] == [400]


def test_what_is_clear_is_taken(port: int) -> None:
    head = f"{POST}Connection: close\r\n"
    tiny = "".join(f"1\r\n{letter}\r\n" for letter in BODY + " " * 20_000)
    for request in (
        f"{head}Content-Length: {len(BODY)}\r\n\r\n{BODY}",
        f"{head}Transfer-Encoding: chunked\r\n\r\n{CHUNKED}0\r\n\r\n",
        f"{head}Transfer-Encoding: Chunked\r\n\r\nf;name=value\r\n{BODY}\r\n0;last\r\n\r\n",
        f"{head}Transfer-Encoding: chunked\r\n\r\n{tiny}0\r\n\r\n",
        "GET http://LOCALHOST/v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /v1/models HTTP/1.0\r\nHost: localhost\r\n\r\n",
        # Line feeds in a body are data.
        f"{head}Transfer-Encoding: chunked\r\n\r\n12\r\n{BODY}\n\n\n\r\n0\r\n\r\n",
    ):
        assert answers(port, request)[0] == [200], request[:200]
    path = "GET http://localhost?x=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert b"<!doctype html>" in answers(port, path)[1]


def test_requests_that_follow_each_other_are_all_checked(port: int) -> None:
    body = f"{POST}Transfer-Encoding: chunked\r\n\r\n{CHUNKED}0\r\n\r\n"
    whole = f"{GET}\r\n{body}{GET}\r\n"
    bad = f"{GET}X-A: 1\n\r\n"
    assert answers(port, whole + bad)[0] == [200, 200, 200, 400]
    # Byte by byte, so that every line ends in a piece of its own.
    assert answers(port, *(whole + bad))[0] == [200, 200, 200, 400]


def test_a_broken_body_ends_the_connection_whatever_the_route_does(port: int, caplog: pytest.LogCaptureFixture) -> None:
    # What is refused before the body is read has its answer already when the body turns out broken.
    head = (
        "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode())
        first = connection.recv(65536)
        assert first.startswith(b"HTTP/1.1 415 ")
        connection.sendall(b"zz\r\n")
        while connection.recv(65536):
            pass
    assert answers(port, head, "zz\r\n")[0] in ([415], [400])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# Sending


def test_accepted_connections_send_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With any listener: asyncio sees to it only for those that were made with the protocol's number."""
    seen: list[bool] = []
    real = app.http.server.PromptH11.data_received

    def looking(self: app.http.server.PromptH11, data: bytes) -> None:
        connection = self.transport.get_extra_info("socket")
        seen.append(bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        real(self, data)

    monkeypatch.setattr(app.http.server.PromptH11, "data_received", looking)
    service = create_app(connect("exact://"), ColourEncoder(), "c", home=tmp_path)
    with running(service) as port:
        assert answers(port, f"{GET}Connection: close\r\n\r\n")[0] == [200]
    assert seen == [True]


def test_connections_of_other_kinds_are_left_alone() -> None:
    one, other = socket.socketpair()
    with one, other:
        app.http.server.send_at_once(one)
    app.http.server.send_at_once(None)
    gone = socket.socket()
    gone.close()
    app.http.server.send_at_once(gone)
