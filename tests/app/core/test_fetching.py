"""Fetching pictures by address: from allowed hosts, at public addresses, bounded; and what an attacker makes of it.

The servers are real, with TLS, on this machine. The resolver is the tests' own and says public addresses, and the
network leads every connection to loopback, noting which address it was meant for.
"""

from __future__ import annotations

import base64
import gzip
import http.server
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpcore
import httpx
import openai
import pytest
import trustme

from app.core.fetch import Fetcher, FetchError
from app.core.hosts import HostList, is_public
from app.core.settings import Settings, SettingsError
from app.http.app import Limits, create_app
from app.http.problems import problem_of
from backends.base import Backend
from retrieval.chat import ChatOptions
from retrieval.chat.check.grounding import TextSupport
from retrieval.encoders.batching import Overloaded
from tests.support.chat_models import Scripted, collection
from tests.support.service import is_problem, png
from tests.support.serving import running, serving
from tests.support.toy import ColourEncoder

HOST = "images.example.org"
PUBLIC, OTHER_PUBLIC, V6 = "93.184.215.14", "203.0.114.7", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
MAX_BYTES = 2**20
DOG = "The brown dog runs along a red beach [1]."


class Pictures(http.server.BaseHTTPRequestHandler):
    """A web server with a picture and everything that goes wrong."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        name = self.path.partition("?")[0].strip("/")
        match name:
            case "red.png":
                self.answer(png("red"))
            case "chunked.png":
                self.answer(None, ("Transfer-Encoding", "chunked"))
                data = png("red")
                self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
            case "wide.png":
                self.answer(png("red", (2000, 2000)))
            case "text":
                self.answer(b"<html>no picture</html>")
            case "redirect":
                self.answer(b"", ("Location", "https://169.254.169.254/latest/meta-data"), status=302)
            case "missing":
                self.answer(b"secret of the server", status=404)
            case "declared":
                self.answer(None, ("Content-Length", str(10**10)))
            case "endless":
                self.answer(None, ("Connection", "close"))
                while True:
                    self.server.sent += self.wfile.write(bytes(65536))
            case "drip":
                self.answer(None, ("Content-Length", "100000"))
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.02)
            case "headers":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    self.wfile.write(b"X-More: yes\r\n")
                    time.sleep(0.02)
            case "gzip":
                self.answer(gzip.compress(bytes(10**8)), ("Content-Encoding", "gzip"))
            case "cut":
                self.answer(None, ("Content-Length", "1000"))
                self.wfile.write(b"x")
                self.close_connection = True
            case "junk":
                self.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
                self.close_connection = True
            case "wait":
                self.server.waiting.release()
                self.server.go.wait(10)
                self.answer(png("red"))

    def answer(self, body: bytes | None, *headers: tuple[str, str], status: int = 200) -> None:
        self.send_response(status)
        for header in headers if body is None else (*headers, ("Content-Length", str(len(body)))):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """`Pictures` over TLS; `asked` are the requests, `sent` what the endless one took."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Pictures)
        self.tls = tls
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.names: list[str | None] = []
        self.sent = 0
        self.waiting, self.go = threading.Semaphore(0), threading.Event()
        if tls is not None:
            tls.sni_callback = lambda _, name, __: self.names.append(name)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            super().finish_request(request, client_address)
        else:
            with self.tls.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)

    def shutdown_request(self, request: Any) -> None:
        # Its file descriptor is the TLS socket's by then.
        if self.tls is None:
            super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """A client that leaves in the middle is what most tests are about."""


class Loopback(httpcore.AsyncNetworkBackend):
    """Leads to a port of this machine, and notes the address that was meant; `down` ones take no connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.down: set[str] = set()
        self.meant: list[tuple[str, int]] = []

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None, **_: Any) -> Any:  # type: ignore[override]
        self.meant.append((host, port))
        if host in self.down:
            raise httpcore.ConnectTimeout("nobody there")
        return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", self.port, timeout)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _serving(tls: ssl.SSLContext | None) -> Iterator[Server]:
    with Server(tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go.set()
        server.shutdown()
        thread.join()


def _tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Server]:
    yield from _serving(_tls(authority, HOST, "*.example.net"))


@pytest.fixture
def network(server: Server) -> Loopback:
    return Loopback(server.server_port)


@pytest.fixture
def made(authority: trustme.CA, network: Loopback) -> Callable[..., Fetcher]:
    def make(*addresses: str, **options: Any) -> Fetcher:
        tls = ssl.create_default_context()
        authority.configure_trust(tls)
        options = {
            "hosts": HostList.of([HOST, "*.example.net"]),
            "max_bytes": MAX_BYTES,
            "deadline_s": 5.0,
            "network": network,
            "tls": tls,
            "resolve": lambda _: addresses or (PUBLIC,),
        } | options
        return Fetcher(options.pop("hosts"), **options)

    return make


def fetch(fetcher: Fetcher, path: str, host: str = HOST) -> bytes:
    with fetcher.fetched(fetcher.check(f"https://{host}{path}")) as data:
        return data


def refused(fetcher: Fetcher, path: str = "/red.png", host: str = HOST) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(fetcher, path, host)
    return str(caught.value)


# Which addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "192.88.99.1",
        "100.64.0.1",
        "100.127.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "224.0.1.1",
        "239.255.255.250",
        "232.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe",
        "::ffff:0:127.0.0.1",
        "::127.0.0.1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::808:808",
        "100::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2002:808:808::1",
        "2001::1",
        "2001:0:7f00:1::1",
        "2001:0:808:808:0:0:80ff:fffe",
        "2001:10::1",
        "2001:2::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "4000::1",
        "2606:4700::1%1",
        "",
        "localhost",
        "1.1",
        "0x7f000001",
        "2130706433",
        "127.0.0.1:443",
        "8.8.8.8 ",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        PUBLIC,
        OTHER_PUBLIC,
        V6,
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "11.0.0.1",
        "192.169.0.1",
        "2606:4700:4700::1111",
        "2a00:1450:4001:827::200e",
        "64:ff9b::808:808",
        "::ffff:8.8.8.8",
        "2003::1",
    ],
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


# Which hosts


def test_a_list_of_hosts_means_what_it_says() -> None:
    hosts = HostList.parse(" Images.Example.org, *.example.net ,xn--bcher-kva.example")
    for host in ("images.example.org", "a.example.net", "a.b.example.net", "xn--bcher-kva.example"):
        assert host in hosts
    for host in (
        "example.org",
        "a.images.example.org",
        "example.net",
        ".example.net",
        "..example.net",
        "badexample.net",
        "images.example.org.",
        "images.example.org.evil.com",
        "a_b.example.net",
        "-a.example.net",
        "a .example.net",
        "",
    ):
        assert host not in hosts
    assert not HostList.parse("")
    assert HOST not in HostList.parse("")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("*", "anybody"),
        ("**", "anybody"),
        ("a.org,*", "anybody"),
        ("*.", "anybody"),
        ("*.com", "anybody"),
        ("127.0.0.1", "not the address"),
        ("8.8.8.8", "not the address"),
        ("0x7f.1", "not the address"),
        ("[::1]", "not the address"),
        ("2606:4700::1", "not the address"),
        ("*.0.0.1", "not the address"),
        ("localhost", "not 'localhost'"),
        ("https://a.org", "address"),
        ("a.org/x", "not 'a.org/x'"),
        ("a.org:443", "address"),
        ("a..org", "not 'a..org'"),
        ("a.org,,b.org", "anybody"),
        ("bücher.de", "xn--"),
        ("a.*.org", "not 'a.*.org'"),
        ("*a.org", "not '*a.org'"),
        ("a.org b.org", "with commas"),
        (f"{'a' * 64}.org", "names of hosts"),
        ("user@a.org", "not 'user@a.org'"),
    ],
)
def test_a_list_that_cannot_be_meant_is_one_line(text: str, why: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(env={"SIGHTLINE_FETCH_HOSTS": text})
    said = str(caught.value)
    assert said.startswith("fetch_hosts must ")
    assert said.endswith("(set in the environment)")
    assert why in said
    assert "\n" not in said


def test_the_setting_is_empty_at_first(tmp_path: Path) -> None:
    assert Settings.load(env={}).fetch_hosts == ""
    (tmp_path / "sightline.toml").write_text('fetch_hosts = ["a.org"]')
    with pytest.raises(SettingsError, match="string of names with commas"):
        Settings.load(env={}, folder=tmp_path)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://images.example.org/a.png", "https://"),
        ("ftp://images.example.org/a.png", "https://"),
        ("file:///etc/passwd", "https://"),
        ("//images.example.org/a.png", "https://"),
        ("", "https://"),
        ("https://", "not among"),
        ("https://evil.org/a.png", "not among"),
        ("https://example.org/", "not among"),
        ("https://images.example.org.evil.org/", "not among"),
        ("https://images.example.org./", "not among"),
        ("https://user:password@images.example.org/a.png", "password"),
        ("https://@images.example.org/", "password"),
        ("https://images.example.org@evil.org/", "password"),
        ("https://evil.org#@images.example.org/", "not among"),
        ("https://evil.org?@images.example.org/", "not among"),
        ("https://evil.org\\@images.example.org/", "backslash"),
        ("https://images.example.org\\.evil.org/", "backslash"),
        ("https://evil.org/@images.example.org", "not among"),
        ("https://images.example.org:8443/a.png", "port 443"),
        ("https://images.example.org:80/", "port 443"),
        ("https://images.example.org:/", "port 443"),
        ("https://images.example.org:443:80/", "port 443"),
        ("https://127.0.0.1/", "not among"),
        ("https://[::1]/", "not among"),
        ("https://2130706433/", "not among"),
        ("https://[::ffff:169.254.169.254]/", "not among"),
        ("https://169.254.169.254/latest", "not among"),
        ("https://images.example.org/a b", "spaces"),
        ("https://images.example.org/a\r\nHost: evil", "spaces"),
        ("https://images.example.org\t/", "spaces"),
        ("https://images.example.org\x00.evil.org/", "spaces"),
        ("https://images%2eexample.org/", "not among"),
        ("https://images.example。org/", "not among"),
        ("https://images.example.org/\ud800", "surrogate"),
        (f"https://{HOST}/" + "a" * 2048, "2,048"),
    ],
)
def test_urls_that_are_not_fetched(made: Callable[..., Fetcher], network: Loopback, url: str, why: str) -> None:
    with pytest.raises(FetchError) as caught:
        made().check(url)
    assert why in str(caught.value)
    assert len(str(caught.value)) < 300
    assert network.meant == []


def test_urls_that_are(made: Callable[..., Fetcher]) -> None:
    check = made().check
    for url, host, target in (
        ("https://images.example.org", HOST, "/"),
        ("HTTPS://Images.Example.ORG:443/A.png?x=1&y=%20#part", HOST, "/A.png?x=1&y=%20"),
        ("https://a.b.example.net?q=/@:", "a.b.example.net", "/?q=/@:"),
        ("https://images.example.org/caf\u00e9/\u732b.png", HOST, "/caf%C3%A9/%E7%8C%AB.png"),
    ):
        address = check(url)
        assert (address.host, address.target) == (host, target)


# Connections


def test_a_picture_comes_from_the_address_that_was_checked_by_its_hosts_name(
    made: Callable[..., Fetcher], server: Server, network: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(made(PUBLIC, OTHER_PUBLIC), "/red.png?sig=abc") == png("red")
    assert fetch(made(), "/chunked.png", "a.example.net") == png("red")
    assert network.meant == [(PUBLIC, 443), (PUBLIC, 443)]
    assert server.names == [HOST, "a.example.net"]
    (path, headers), (_, other) = server.asked
    assert path == "/red.png?sig=abc"
    assert {name.lower(): value for name, value in headers.items()} == {
        "host": HOST,
        "accept": "image/*",
        "accept-encoding": "identity",
        "user-agent": "sightline",
        "connection": "close",
    }
    assert other["Host"] == "a.example.net"


def test_the_next_address_is_tried_when_one_does_not_answer(
    made: Callable[..., Fetcher], network: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    network.down = {V6}
    assert fetch(made(V6, V6, PUBLIC), "/red.png") == png("red")
    assert network.meant == [(V6, 443), (PUBLIC, 443)]
    network.down = {V6, PUBLIC}
    assert "cannot be reached" in refused(made(V6, PUBLIC))
    assert "nobody there" in caplog.text


@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1",),
        (PUBLIC, "10.0.0.1"),
        ("169.254.169.254", PUBLIC),
        (V6, "::1"),
        ("::ffff:127.0.0.1",),
        ("64:ff9b::7f00:1",),
        ("2002:7f00:1::",),
        ("0.0.0.0",),
        ("224.0.0.1",),
        (PUBLIC, "fd00::1", V6),
    ],
)
def test_no_connection_to_a_host_with_any_address_that_is_not_public(
    made: Callable[..., Fetcher], network: Loopback, addresses: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    said = refused(made(*addresses))
    assert network.meant == []
    assert next(each for each in addresses if not is_public(each)) in caplog.text
    # Told in the same words as for a name that is not there, or has no address.
    assert said == refused(made(resolve=unknown)) == refused(made(resolve=lambda _: ()))
    assert "Name or service" in caplog.text


def unknown(_: str) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_name_that_changes_its_mind_gains_nothing(made: Callable[..., Fetcher], network: Loopback) -> None:
    answers = [(PUBLIC,), ("127.0.0.1",)]
    asked: list[str] = []

    def rebinding(host: str) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    fetcher = made(resolve=rebinding)
    assert fetch(fetcher, "/red.png") == png("red")
    assert (asked, network.meant) == ([HOST], [(PUBLIC, 443)])
    assert "cannot be reached" in refused(fetcher)
    assert len(network.meant) == 1


def test_a_certificate_of_another_name_or_authority_is_refused(
    made: Callable[..., Fetcher], server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = HostList.of([HOST, "other.example.com"])
    assert "cannot be reached" in refused(made(hosts=hosts), host="other.example.com")
    assert "other.example.com" in caplog.text
    caplog.clear()
    assert "cannot be reached" in refused(made(tls=httpcore.default_ssl_context()))
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    assert server.asked == []


def test_a_server_without_tls_is_refused(made: Callable[..., Fetcher], network: Loopback) -> None:
    for plain in _serving(None):
        network.port = plain.server_port
        assert "cannot be reached" in refused(made())
        assert plain.asked == []


def test_a_redirect_is_not_followed(made: Callable[..., Fetcher], server: Server, network: Loopback) -> None:
    said = refused(made(), "/redirect")
    assert "redirects (status 302)" in said
    assert "169.254" not in said
    assert len(server.asked) == len(network.meant) == 1


# What comes back


def test_answers_that_are_not_taken(made: Callable[..., Fetcher], server: Server) -> None:
    assert "status 404" in refused(made(), "/missing")
    assert "larger than 1,048,576 bytes" in refused(made(), "/declared")
    assert "compresses" in refused(made(), "/gzip")
    assert "does not answer as a web server" in refused(made(), "/cut")
    assert "does not answer as a web server" in refused(made(), "/junk")


def test_a_body_over_the_bound_is_cut_off_while_it_arrives(made: Callable[..., Fetcher], server: Server) -> None:
    assert "larger than 1,048,576 bytes" in refused(made(), "/endless")
    # What went beyond the bound are buffers of sockets.
    assert server.sent < 32 * MAX_BYTES


@pytest.mark.parametrize("path", ["/drip", "/headers"])
def test_a_slow_answer_ends_at_the_deadline(made: Callable[..., Fetcher], path: str) -> None:
    began_s = time.monotonic()
    assert "takes over 0.4 s" in refused(made(deadline_s=0.4), path)
    assert time.monotonic() - began_s < 3


def test_a_server_that_never_speaks_ends_at_the_deadline(made: Callable[..., Fetcher], network: Loopback) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        network.port = silent.getsockname()[1]
        began_s = time.monotonic()
        assert "takes over 0.4 s" in refused(made(deadline_s=0.4))
        assert time.monotonic() - began_s < 3


def test_a_slow_resolver_ends_at_the_deadline_and_few_are_left_behind(
    made: Callable[..., Fetcher], network: Loopback
) -> None:
    go, began_s = threading.Event(), time.monotonic()

    def slow(_: str) -> Sequence[str]:
        go.wait(10)
        return (PUBLIC,)

    fetcher = made(resolve=slow, deadline_s=0.2, max_fetches=1)
    try:
        # In the words for a name that is not there: a look-up that fails may be slow or fast.
        assert refused(fetcher) == refused(made(resolve=unknown))
        refused(fetcher)
        with pytest.raises(Overloaded):
            fetch(fetcher, "/red.png")
        assert time.monotonic() - began_s < 5
        assert network.meant == []
    finally:
        go.set()


def test_few_at_a_time(made: Callable[..., Fetcher], server: Server) -> None:
    fetcher = made(max_fetches=1)
    first = threading.Thread(target=fetch, args=(fetcher, "/wait"))
    first.start()
    assert server.waiting.acquire(timeout=10)
    with pytest.raises(Overloaded) as caught:
        fetch(fetcher, "/red.png")
    assert problem_of(caught.value)["status"] == 503
    server.go.set()
    first.join()
    assert fetch(fetcher, "/red.png")
    # In use is as good as being fetched: the bytes are in memory.
    with fetcher.fetched(fetcher.check(f"https://{HOST}/red.png")), pytest.raises(Overloaded):
        fetch(fetcher, "/red.png")
    refused(fetcher, "/missing")
    assert fetch(fetcher, "/red.png")


def test_the_log_says_why_and_no_secret(made: Callable[..., Fetcher], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refused(made(), "/missing?token=SECRETMARK")
    refused(made("10.1.2.3"), "/red.png?token=SECRETMARK")
    assert "10.1.2.3" in caplog.text
    assert "404" in caplog.text
    assert "SECRETMARK" not in caplog.text


# Through the API


@pytest.fixture
def store(tmp_path: Path) -> Backend:
    # Here, as a chat begins it in a thread of its own, which no test waits for.
    TextSupport().warm_up()
    return collection(tmp_path / "photos").backend


def service(store: Backend, home: Path, fetcher: Fetcher | None, **options: Any) -> Any:
    model = Scripted(replies=[DOG])
    options = {
        "limits": Limits(rate=None),
        "roots": [home / "photos"],
        "home": home / "home",
        "load_model": lambda: (model, ChatOptions(gate=None, vision=True)),
    } | options
    app = create_app(store, ColourEncoder(), "c", **options)
    if fetcher is not None:
        app.state.service.fetcher = fetcher
    return app


def url_of(path: str) -> str:
    return f"https://{HOST}{path}"


def test_search_takes_an_address(store: Backend, tmp_path: Path, made: Callable[..., Fetcher]) -> None:
    limits = Limits(rate=None, max_pixels=1_000_000)
    with serving(service(store, tmp_path, made(), limits=limits)) as client:

        def search(**body: Any) -> httpx.Response:
            return client.post("/v1/search", json={"k": 2} | body)

        found = search(image_url=url_of("/red.png"))
        given = search(image=base64.b64encode(png("red")).decode())
        assert found.status_code == 200, found.text
        assert found.json() == given.json()
        assert found.json()["hits"][0]["id"] in ("img-red", "cap-red")
        is_problem(search(image_url=url_of("/wide.png")), 422, "pixels", "1000000 allowed")
        is_problem(search(image_url=url_of("/text")), 422, "image")
        is_problem(search(image_url=url_of("/redirect")), 422, "redirects")
        is_problem(search(image_url="https://169.254.169.254/latest/meta-data"), 422, "not among")
        is_problem(search(image_url=url_of("/red.png"), text="red"), 422, "exactly one", "image_url")
        is_problem(client.post("/v1/search", json={"terms": [{"image_url": url_of("/red.png")}]}), 422, "image_url")
        assert 'stage="download"' in client.get("/metrics").text


def test_chat_takes_an_address(
    store: Backend, tmp_path: Path, made: Callable[..., Fetcher], server: Server, network: Loopback
) -> None:
    with serving(service(store, tmp_path, made())) as client:

        def ask(**body: Any) -> httpx.Response:
            return client.post("/v1/chat", json={"question": "which photo is like this?", "stream": False} | body)

        answer = ask(image_url=url_of("/red.png"))
        assert answer.status_code == 200, answer.text
        assert answer.json()["sources"][0]["id"] == "img-red"
        assert len(server.asked) == 1
        is_problem(ask(image_url=url_of("/missing")), 422, "status 404")
        is_problem(ask(image_url=url_of("/missing"), stream=True), 422, "status 404")
        is_problem(ask(image_url="https://evil.org/a.png"), 422, "not among")
        is_problem(ask(image_url=url_of("/red.png"), image="AAAA"), 422, "not both")
    network.meant.clear()
    with serving(service(store, tmp_path, made("127.0.0.1"))) as client:
        is_problem(ask(image_url=url_of("/red.png")), 422, "cannot be reached")
    assert network.meant == []


def test_the_openai_sdk_takes_an_address(
    store: Backend, tmp_path: Path, made: Callable[..., Fetcher], server: Server
) -> None:
    def complete(url: str, **options: Any) -> Any:
        content = [
            {"type": "text", "text": "which dog is like this?"},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        messages = [*options.pop("before", []), {"role": "user", "content": content}]
        return client.chat.completions.create(model="sightline", messages=messages, **options)  # type: ignore[arg-type]

    with (
        running(service(store, tmp_path, made())) as port,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=20) as client,
    ):
        before = [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url_of("/earlier.png")}}]},
            {"role": "assistant", "content": "Yes [1]."},
        ]
        done = complete(url_of("/red.png"), before=before)
        assert done.choices[0].message.annotations[0].url_citation.url.startswith("http://127.0.0.1")
        # The picture of an earlier question is not looked at again.
        assert [path for path, _ in server.asked] == ["/red.png"]
        chunks = list(complete(url_of("/red.png"), stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).endswith("[1].")
        for url, words in (
            ("https://evil.org/a.png", "not among"),
            ("http://images.example.org/a.png", "https://"),
            (url_of("/redirect"), "redirects"),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                complete(url)
            error = caught.value.response.json()["error"]
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_image_url")
            assert error["param"].startswith("messages.0.content")
            assert words in error["message"]


def test_a_full_fetcher_is_a_503(store: Backend, tmp_path: Path, made: Callable[..., Fetcher], server: Server) -> None:
    fetcher = made(max_fetches=1)
    with (
        serving(service(store, tmp_path, fetcher)) as client,
        fetcher.fetched(fetcher.check(url_of("/red.png"))),
    ):
        for path, body in (("search", {}), ("chat", {"question": "what?", "stream": False})):
            answer = client.post(f"/v1/{path}", json=body | {"image_url": url_of("/red.png")})
            is_problem(answer, 503, "too many images are being fetched")
            assert answer.headers["retry-after"]


def test_nothing_is_fetched_unless_hosts_are_named(
    store: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[Any] = []
    connected: list[Any] = []
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: (resolved.append(args[0]), real(*args, **more))[1])
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", lambda *args, **_: connected.append(args))
    url = "https://localhost.example.org/red.png"
    part = {"type": "image_url", "image_url": {"url": url}}
    with serving(service(store, tmp_path, None)) as client:
        is_problem(client.post("/v1/search", json={"image_url": url}), 422, "fetches no address", "fetch_hosts")
        is_problem(client.post("/v1/chat", json={"question": "what?", "image_url": url}), 422, "fetches no address")
        body = {"model": "sightline", "messages": [{"role": "user", "content": [part]}]}
        answer = client.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_image_url")
    assert set(resolved) <= {"127.0.0.1"}
    assert connected == []


def test_the_hosts_that_are_named_reach_the_service(
    store: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("app.core.fetch.addresses_of", lambda host: asked.append(host) or ["127.0.0.1"])
    app = service(store, tmp_path, None, fetch_hosts=HostList.parse("*.example.org"))
    with serving(app) as client:
        is_problem(client.post("/v1/search", json={"image_url": url_of("/a.png")}), 422, "cannot be reached")
        is_problem(client.post("/v1/search", json={"image_url": "https://a.org/a.png"}), 422, "not among")
    assert asked == [HOST]
