"""JSON over HTTP as engines use it: what is an answer, what is an outage, and what is never told."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme

from backends.errors import BackendError, Unavailable
from backends.kit.http_json import JsonHttp

KEY = "open-sesame-4711"
Reply = tuple[int, dict[str, str], bytes]


class Server:
    """Answers each request by a function, and keeps what it was asked."""

    def __init__(self, reply: Callable[[Server], Reply], port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.clients: set[tuple[str, int]] = set()
        self.open: set[socket.socket] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                outer.open.add(self.connection)

            def finish(self) -> None:
                outer.open.discard(self.connection)
                super().finish()

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.clients.add(self.client_address)
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.asked.append((self.command, self.path, headers, body))
                status, sent, data = reply(outer)
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in sent.items():
                    self.send_header(name, value)
                if "Transfer-Encoding" not in sent:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        if tls is not None:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Stop, and cut the connections that clients keep."""
        self.http.shutdown()
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.http.server_close()


@contextmanager
def serving(reply: Callable[[Server], Reply], **options: Any) -> Iterator[tuple[Server, JsonHttp]]:
    server = Server(reply)
    client = JsonHttp(f"http://127.0.0.1:{server.port}", what="Thing at thing://there", remedy="start it", **options)
    try:
        yield server, client
    finally:
        client.close()
        server.close()


def ok(data: Any) -> Callable[[Server], Reply]:
    return lambda _: (200, {"Content-Type": "application/json"}, json.dumps(data).encode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_json_goes_there_and_back_over_one_connection() -> None:
    with serving(ok({"größe": [1, 2.5, None]}), headers={"Authorization": f"Bearer {KEY}"}) as (server, client):
        for _ in range(3):
            answer = client.request("POST", "/a/b?c=%20", {"wort": "😀", "n": 2**63 - 1}, headers={"X-Date": "now"})
            assert (answer.status, answer.data) == (200, {"größe": [1, 2.5, None]})
            assert answer.is_success
        method, path, headers, body = server.asked[-1]
        assert (method, path) == ("POST", "/a/b?c=%20")
        assert json.loads(body) == {"wort": "😀", "n": 2**63 - 1}
        assert headers["host"] == client.host == f"127.0.0.1:{server.port}"
        assert headers["authorization"] == f"Bearer {KEY}"
        assert (headers["content-type"], headers["x-date"]) == ("application/json", "now")
        assert len(server.clients) == 1


def test_bytes_are_sent_as_they_are_and_headers_of_a_request_win() -> None:
    with serving(ok(1)) as (server, client):
        client.request("POST", "/", b"a=1&b=2", headers={"content-type": "application/x-www-form-urlencoded"})
        client.request("GET", "/nothing")
        assert server.asked[0][2]["content-type"] == "application/x-www-form-urlencoded"
        assert server.asked[0][3] == b"a=1&b=2"
        assert "content-type" not in server.asked[1][2]


@pytest.mark.parametrize(("body", "data"), [(b"", None), (b" \n", None), (b"<html>", "<html>"), (b"[1]", [1])])
def test_whatever_is_answered_is_read(body: bytes, data: Any) -> None:
    with serving(lambda _: (404, {}, body)) as (_, client):
        answer = client.request("GET", "/")
        assert (answer.status, answer.data, answer.is_success) == (404, data, False)
        assert "\n" not in answer.told()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    client = JsonHttp(f"http://127.0.0.1:{free_port()}", what="Thing at thing://there", remedy="start it")
    with pytest.raises(Unavailable, match=r"^Thing at thing://there does not answer \(.*refused.*\): start it$"):
        client.request("GET", "/")


def test_a_server_that_comes_back_is_waited_for_and_found_by_the_same_client() -> None:
    port = free_port()
    client = JsonHttp(f"http://127.0.0.1:{port}", what="Thing", remedy="start it")
    started: list[Server] = []
    timer = threading.Timer(0.3, lambda: started.append(Server(ok("back"), port)))
    timer.start()
    try:
        assert client.request("GET", "/", patience_s=60).data == "back"
        for server in started:
            server.close()
        started.append(Server(ok("again"), port))
        assert client.request("GET", "/", patience_s=60).data == "again"
    finally:
        client.close()
        timer.join()
        started[-1].close()


def test_a_busy_server_is_asked_again_and_a_lost_connection_too_where_that_is_allowed() -> None:
    def reply(server: Server) -> Reply:
        return {1: (503, {}, b"{}"), 2: (429, {}, b"{}"), 3: (0, {}, b"")}.get(len(server.asked), (200, {}, b"1"))

    with serving(reply) as (server, client):
        assert client.request("POST", "/", {}, patience_s=60).data == 1
        assert len(server.asked) == 4
    with serving(reply) as (server, client):
        assert [client.request("POST", "/", {}).status for _ in range(2)] == [503, 429]
        with pytest.raises(Unavailable, match="Thing at thing://there does not answer"):
            client.request("POST", "/", {})
        assert len(server.asked) == 3


def test_an_answer_that_does_not_come_is_an_outage() -> None:
    release = threading.Event()

    def reply(_: Server) -> Reply:
        release.wait(60)
        return 200, {}, b"1"

    with serving(reply) as (_, client):
        with pytest.raises(Unavailable, match=r"Thing at thing://there gave no answer within 0.2 s"):
            client.request("GET", "/", timeout_s=0.2, patience_s=5)
        release.set()
        assert client.request("GET", "/").data == 1


def test_an_answer_that_is_too_large_is_refused() -> None:
    with (
        serving(lambda _: (200, {}, b"x" * 3_000_000), max_answer_bytes=2 << 20) as (_, client),
        pytest.raises(BackendError, match=r"an answer of Thing at thing://there is over 2 MB"),
    ):
        client.request("GET", "/")


def test_redirects_are_not_followed() -> None:
    with serving(lambda _: (307, {"Location": "http://127.0.0.1:1/"}, b"")) as (server, client):
        with pytest.raises(BackendError, match="redirects"):
            client.request("POST", "/", {})
        assert len(server.asked) == 1


def test_no_message_shows_a_secret() -> None:
    said = f"the key {KEY} and Authorization: Bearer {KEY} are wrong".encode()
    with serving(lambda _: (401, {}, said), headers={"Authorization": f"Bearer {KEY}"}) as (_, client):
        assert KEY not in client.request("GET", "/").told()
        assert KEY not in str(client.unavailable(said.decode()))
    for value in (f"{KEY}\r\nX-Other: 1", f"{KEY}é"):
        with pytest.raises(ValueError, match="header") as refused:
            JsonHttp("http://127.0.0.1:1", what="Thing", remedy="", headers={"Authorization": value})
        assert KEY not in str(refused.value)


def test_closed_is_closed_in_the_middle_of_requests_too() -> None:
    with serving(ok(1)) as (_, client):
        assert client.request("GET", "/").data == 1
        client.close()
        client.close()
        with pytest.raises(BackendError, match="closed"):
            client.request("GET", "/", patience_s=60)


def test_threads_share_it() -> None:
    with serving(ok("x" * 1000)) as (server, client):
        failed: list[Exception] = []

        def use() -> None:
            try:
                for _ in range(20):
                    assert client.request("POST", "/", [1]).data == "x" * 1000
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(server.asked) == 160


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own() -> None:
    with serving(ok(1)) as (server, client):
        client.request("GET", "/")
        pid = os.fork()
        if not pid:
            try:
                os._exit(0 if client.request("GET", "/child").data == 1 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        client.request("GET", "/")
        assert len(server.asked) == 3
        assert len(server.clients) == 2


def test_https_is_verified() -> None:
    authority = trustme.CA()
    serving_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(serving_tls)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    server = Server(ok("safe"), tls=serving_tls)
    try:
        base = f"https://localhost:{server.port}"
        client = JsonHttp(base, what="Thing", remedy="check", tls=trusting)
        assert client.request("GET", "/").data == "safe"
        client.close()
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            JsonHttp(base, what="Thing", remedy="check").request("GET", "/")
    finally:
        server.close()
