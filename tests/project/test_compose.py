"""compose.yaml, as far as it can be checked without Docker: what is published, pinned, kept and watched."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import backends
from tests.support.repository import ROOT

yaml = pytest.importorskip("yaml", reason="compose.yaml is read with PyYAML: pip install 'sightline[test]'")

FILE = ROOT / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCHEMES = {
    "qdrant": "qdrant",
    "milvus": "milvus",
    "weaviate": "weaviate",
    "postgresql": "postgres",
    "chroma": "chroma",
    "couchbase": "couchbase",
    "clickhouse": "clickhouse",
    "tidb": "tidb",
    "opensearch": "opensearch",
    "elasticsearch": "elasticsearch",
}
PORT = re.compile(r"127\.0\.0\.1:(\d+):(\d+)")
TAG = re.compile(r"[\w.-]*\d+[.-]\d+[\w.-]*")
VARIABLE = re.compile(r"\$\{[A-Z0-9_]+:-[^}]+\}")


def published(service: str) -> set[int]:
    """The ports that a service has on the host."""
    return {int(PORT.fullmatch(port)[1]) for port in SERVICES[service].get("ports", [])}


def test_every_engine_with_a_server_is_there() -> None:
    assert set(SERVICES) == {*SCHEMES.values(), "etcd", "minio"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_pinned_watched_and_on_loopback_only(service: str) -> None:
    entry = SERVICES[service]
    tag = entry["image"].rpartition("/")[2].partition(":")[2]
    assert TAG.fullmatch(tag), f"{entry['image']} names no version"
    health = entry["healthcheck"]
    assert health["test"][0] in ("CMD", "CMD-SHELL")
    assert len(health["test"]) > 1
    assert {"interval", "timeout", "retries", "start_period"} <= set(health)
    for port in entry.get("ports", []):
        match = PORT.fullmatch(port)
        assert match, f"{port} is not on 127.0.0.1"
        assert match[1] == match[2]
    assert "network_mode" not in entry
    assert not entry.get("privileged")
    assert entry["volumes"], "what it holds must outlive the container"


def test_ports_are_each_published_once() -> None:
    ports = [port for service in SERVICES for port in published(service)]
    assert len(ports) == len(set(ports))
    assert not published("etcd") | published("minio"), "only Milvus talks to them"


def test_volumes_networks_and_dependencies_are_declared() -> None:
    used = {volume.partition(":")[0] for entry in SERVICES.values() for volume in entry["volumes"]}
    assert used == set(COMPOSE["volumes"])
    networks = {network for entry in SERVICES.values() for network in entry.get("networks", ["default"])}
    assert networks == set(COMPOSE["networks"])
    for entry in SERVICES.values():
        for other, how in entry.get("depends_on", {}).items():
            assert other in SERVICES
            assert how == {"condition": "service_healthy"}
            assert set(entry["networks"]) & set(SERVICES[other]["networks"])


def test_secrets_come_through_variables() -> None:
    for service, entry in SERVICES.items():
        for name, value in entry["environment"].items():
            assert isinstance(value, str), f"{service}: {name} must be quoted"
            if re.search("PASSWORD|API_KEY$|SECRET|ALLOWED_KEYS", name):
                assert VARIABLE.fullmatch(value), f"{service}: {name} is written into the file"
    keys = [SERVICES[s]["environment"] for s in ("minio", "milvus")]
    assert keys[0]["MINIO_ROOT_PASSWORD"] == keys[1]["MINIO_SECRET_ACCESS_KEY"]
    assert keys[0]["MINIO_ROOT_USER"] == keys[1]["MINIO_ACCESS_KEY_ID"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ports_are_those_of_the_example_urls(scheme: str) -> None:
    if scheme not in backends.engines():
        pytest.skip(f"{scheme}:// is not in backends.engines()")
    parts = urlsplit(backends.engines()[scheme].example)
    named = {parts.port, *(int(port) for port in parse_qs(parts.query).get("grpc", []))}
    assert named <= published(SCHEMES[scheme])


def test_the_head_names_urls_that_are_served() -> None:
    head = FILE.read_text(encoding="utf-8").partition("\nname:")[0]
    urls = [urlsplit(url) for url in re.findall(r"[a-z]+://\S+", head)]
    assert {url.scheme for url in urls} == set(SCHEMES)
    for url in urls:
        assert url.hostname == "127.0.0.1"
        assert url.port in published(SCHEMES[url.scheme])


@pytest.mark.skipif(shutil.which("bash") is None, reason="the check is written in bash")
@pytest.mark.parametrize(
    ("service", "port", "path"), [("qdrant", "6333", "/readyz"), ("chroma", "8000", "/api/v2/heartbeat")]
)
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_a_health_check_in_bash_asks_whether_it_is_ready(
    service: str, port: str, path: str, status: int | None, healthy: bool
) -> None:
    asked: list[str] = []

    class Asked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status or 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    kind, *command = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD"
    with HTTPServer(("127.0.0.1", 0), Asked) as server:
        *words, script = [word.replace("$$", "$").replace(port, str(server.server_port)) for word in command]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        if status is None:
            server.server_close()
        else:
            thread.start()
        done = subprocess.run([*words, script], capture_output=True, timeout=20, check=False)
        if status is not None:
            server.shutdown()
            thread.join()
    assert (done.returncode == 0) is healthy
    assert asked == ([] if status is None else [path])
