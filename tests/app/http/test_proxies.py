"""Where a request comes from and which host it names: what headers can claim, and what they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.hosts import TrustedProxies, host_of
from app.core.settings import Settings, SettingsError
from app.http.app import Limits, create_app
from app.http.middleware import SecurityHeaders
from backends import connect
from backends.base import Backend, CollectionSpec
from tests.support.cli import Run
from tests.support.service import is_problem
from tests.support.serving import serving
from tests.support.toy import ColourEncoder


@pytest.fixture
def store() -> Backend:
    backend, model = connect("exact://"), ColourEncoder()
    backend.create(CollectionSpec("c", model.dim, encoder=model.fingerprint))
    return backend


def statuses(client: httpx.Client, *headers: dict[str, str]) -> list[int]:
    return [client.get("/v1/collections", headers=given).status_code for given in headers]


def limited(store: Backend, home: Path, rate: str = "2/hour", **options: Any) -> Any:
    return create_app(store, ColourEncoder(), "c", home=home, limits=Limits(rate=rate), **options)


CLAIMS = (
    {"X-Forwarded-For": "9.9.9.9"},
    {"X-Forwarded-For": "9.9.9.8"},
    {"Forwarded": "for=9.9.9.7"},
    {"X-Real-IP": "9.9.9.6"},
    {"X-Forwarded-For": "9.9.9.5, 9.9.9.4"},
)


def test_a_header_does_not_change_whose_request_it_is(
    store: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # uvicorn's own variable names whom to believe, where it is asked.
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    with serving(limited(store, tmp_path)) as client:
        assert statuses(client, *CLAIMS) == [200, 200, 429, 429, 429]


def test_a_trusted_proxy_tells_whose_request_it_is(store: Backend, tmp_path: Path) -> None:
    proxies = TrustedProxies.parse("127.0.0.1, 10.1.0.0/24")
    with serving(limited(store, tmp_path, proxies=proxies)) as client:
        one = {"X-Forwarded-For": "9.9.9.9"}
        assert statuses(client, one, one, one) == [200, 200, 429]
        # What the client itself wrote to the left is not believed, whichever proxies it went through.
        spoofed = [{"X-Forwarded-For": f"7.7.7.{n}, 9.9.9.9, 10.1.0.{n}"} for n in range(3)]
        assert statuses(client, *spoofed) == [429, 429, 429]
        assert statuses(client, {"X-Forwarded-For": "9.9.9.10"}, {"X-Forwarded-For": "1.1.1.1, 9.9.9.10:4711"}) == [
            200,
            200,
        ]
        assert statuses(client, {"X-Forwarded-For": "9.9.9.10"}) == [429]
        # Several headers are one list; what is no address stands for the proxy before it.
        several = httpx.Headers([("X-Forwarded-For", "9.9.9.11"), ("X-Forwarded-For", "9.9.9.10")])
        assert client.get("/v1/collections", headers=several).status_code == 429
        unreadable = [{"X-Forwarded-For": f"9.9.9.{n}, unknown"} for n in range(20, 23)]
        assert statuses(client, *unreadable) == [200, 200, 429]
        assert statuses(client, {"Forwarded": "for=9.9.9.9"}) == [429]


def test_a_proxy_that_is_not_named_is_not_believed(store: Backend, tmp_path: Path) -> None:
    with serving(limited(store, tmp_path, proxies=TrustedProxies.parse("10.0.0.1"))) as client:
        assert statuses(client, *CLAIMS[:3]) == [200, 200, 429]


@pytest.mark.parametrize(
    ("peer", "told", "client"),
    [
        ("8.8.8.8", "9.9.9.9", "8.8.8.8"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("127.0.0.1", "1.1.1.1,9.9.9.9 , 10.1.0.7", "9.9.9.9"),
        ("127.0.0.1", "10.1.0.7, 127.0.0.1", "10.1.0.7"),
        ("::ffff:127.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("127.0.0.1", "::ffff:9.9.9.9", "9.9.9.9"),
        ("127.0.0.1", "9.9.9.9, for=1.1.1.1", "127.0.0.1"),
        ("127.0.0.1", "9.9.9.9,", "127.0.0.1"),
    ],
)
def test_the_nearest_address_that_is_no_proxy_counts(peer: str, told: str, client: str) -> None:
    assert TrustedProxies.parse("127.0.0.1,10.1.0.0/24").client(peer, told) == client


def test_the_scheme_is_believed_from_a_trusted_proxy_only(
    store: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = SecurityHeaders.__call__

    async def looking(self: Any, scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope["scheme"]] if scope["type"] == "http" else [])
        await real(self, scope, receive, send)

    monkeypatch.setattr(SecurityHeaders, "__call__", looking)
    for proxies in ("", "127.0.0.1"):
        app = create_app(store, ColourEncoder(), "c", home=tmp_path, proxies=TrustedProxies.parse(proxies))
        with serving(app) as client:
            for told in ("https", "http, https", "https, http", "gopher"):
                client.get("/healthz", headers={"X-Forwarded-Proto": told})
    assert seen == ["http"] * 4 + ["https", "https", "http", "http"]


def test_the_setting_and_the_flag(run: Run, served_with: list[dict[str, Any]], tmp_path: Path) -> None:
    assert run("serve", "--port", 0).code == 0
    assert not served_with[-1]["proxies"]
    assert run("serve", "--port", 0, "--trusted-proxy", "127.0.0.1,::1").code == 0
    assert served_with[-1]["proxies"] == TrustedProxies.parse("127.0.0.1,::1")
    for wrong in ("*", "0.0.0.0/0", "::/0", "localhost", "10.0.0.1/8", "1.2.3.4,", "1.2.3"):
        refused = run("serve", "--port", 0, "--trusted-proxy", wrong)
        assert (refused.code, refused.err.count("\n")) == (2, 1), wrong
        assert "trusted_proxy must" in refused.err
    assert Settings.load(env={"SIGHTLINE_TRUSTED_PROXY": "10.0.0.0/8"}).trusted_proxy == "10.0.0.0/8"
    (tmp_path / "sightline.toml").write_text('trusted_proxy = ["10.0.0.1"]')
    with pytest.raises(SettingsError, match="trusted_proxy must be a string"):
        Settings.load(env={}, folder=tmp_path)


# Host


@pytest.mark.slow
@pytest.mark.parametrize(
    "header",
    [
        "localhost:evil.com",
        "localhost:80@evil.com",
        "localhost@evil.com",
        "evil.com@localhost",
        "localhost:",
        "",
        "localhost..",
        "[::1",
        "[::1]evil.com",
        "[::1]:80:80",
        "[::1%25eth0]",
        "::1",
        "localhost:65536",
        "localhost:-1",
        "localhost/",
        "localhost, evil.com",
        "localhost evil.com",
        "localhost:8 0",
        "lócalhost",
        ".",
        "[]",
        "[127.0.0.1]",
    ],
)
def test_a_host_header_that_is_no_host_is_refused(store: Backend, tmp_path: Path, header: str) -> None:
    assert host_of(header) is None
    for hosts in (("localhost", "127.0.0.1", "::1"), ("*",)):
        if header == "" and hosts == ("*",):
            continue  # HTTP/1.0 has no Host header
        with serving(limited(store, tmp_path, "9/second", hosts=hosts)) as client:
            is_problem(client.get("/v1/collections", headers={"Host": header.encode("latin-1")}), 400, "Host")


def test_hosts_that_are_served(store: Backend, tmp_path: Path) -> None:
    with serving(limited(store, tmp_path, "99/second", hosts=("LocalHost", "127.0.0.1", "[::1]"))) as client:
        for host in ("localhost", "LOCALHOST:80", "localhost.", "127.0.0.1:8000", "[::1]", "[0:0::1]:443"):
            assert client.get("/v1/collections", headers={"Host": host}).status_code == 200, host
        for host in ("evil.com", "localhost.evil.com", "127.0.0.2", "127.1", "[::2]", "2130706433"):
            is_problem(client.get("/v1/collections", headers={"Host": host}), 400, "does not answer for")


def test_a_page_without_an_origin_is_not_taken_for_the_services_own(store: Backend, tmp_path: Path) -> None:
    with serving(limited(store, tmp_path, "9/second", hosts=("*",))) as client:
        refused = client.post("/v1/collections", json={"name": "d"}, headers={"Host": "", "Origin": "null"})
        is_problem(refused, 403, "another origin")
