"""``sightline engines``: clients and versions, and which servers answer, are silent or refuse the key."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backends
from app.core import server_probe
from app.core.server_probe import ANSWERS, REFUSED, SILENT, Answer
from app.main import main
from backends import versions
from backends.redaction import shown
from tests.support import milvus_server, weaviate_server
from tests.support.fake_qdrant import FakeQdrant
from tests.support.postgres import PASSWORD, QUOTED, Server

IN_PROCESS = {
    "chroma-embedded": r"Chroma 1\.",
    "exact": r"NumPy \d",
    "faiss": r"FAISS 1\.\d+.*, SQLite 3\.",
    "pgvector-embedded": r"PostgreSQL \d+\.\d+, pgvector 0\.\d+",
    "qdrant-local": r"qdrant-client 1\.",
    "qdrant-edge": r"Qdrant Edge 0\.",
    "milvus-lite": r"Milvus Lite 3\.",
}
SERVERS = ("analyticdb", "chroma", "milvus", "postgresql", "qdrant", "weaviate")
DEFAULT_ADDRESS = server_probe.default_address


@pytest.fixture(autouse=True)
def nobody_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to run at the default addresses of this machine is none of the tests' business."""
    monkeypatch.setattr(server_probe, "default_address", lambda scheme: None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("pg"))
    yield running
    running.stop("immediate")


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["engines", "--json"]) == 0
    return {engine["scheme"]: engine for engine in json.loads(capsys.readouterr().out)["engines"]}


def answer_of(url: str) -> Answer:
    answer = Answer(url, shown(url), "test")
    server_probe.ask([answer], within_s=20)
    return answer


def test_every_scheme_has_a_version_one_way_or_the_other() -> None:
    infos = backends.engines().values()
    in_process = {info.scheme for info in infos if info.library_version}
    servers = {info.scheme for info in infos if info.server_version}
    assert in_process | servers == set(backends.engines())
    assert not in_process & servers
    assert in_process >= set(IN_PROCESS)
    assert servers >= set(SERVERS)
    assert {info.scheme for info in infos if info.default_url} == servers
    for engine in backends.engines().values():
        assert versions.of_package(engine.client or "") is not None
    assert versions.of_package("no-such-package-of-anyone") is None


@pytest.mark.parametrize("scheme", [info.scheme for info in backends.engines().values() if info.library_version])
def test_an_engine_in_process_shows_its_own_version(scheme: str) -> None:
    assert re.search(IN_PROCESS.get(scheme, r"\w \d"), versions.of_library(scheme))


def test_engines_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys)
    assert list(found) == list(backends.engines())
    assert found["faiss"]["installed"]
    assert re.fullmatch(r"faiss-cpu 1\.\d+\.\d+.*", found["faiss"]["client"])
    assert re.search(IN_PROCESS["faiss"], found["faiss"]["version"])
    assert {"keyword", "hnsw", "int8"} <= set(found["faiss"]["can"])
    assert all(engine["servers"] == [] for engine in found.values())
    assert main(["engines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["url", "client", "engine", "tests run on", "can"]
    assert any(line.startswith("faiss:///dir\tfaiss-cpu 1.") and "FAISS 1." in line for line in lines)


def test_an_engine_without_its_client_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = backends.EngineInfo(
        scheme="absent",
        backend="no_such_module_of_anyone:X",
        extra="milvus",
        example="absent://",
        summary="nothing",
        client="no-such-package",
    )
    monkeypatch.setitem(backends.engines(), "absent", absent)
    row = listed(capsys)["absent"]
    assert not row["installed"]
    assert row["install"] == "pip install 'sightline[milvus]'"
    assert (row["client"], row["version"], row["servers"]) == (None, None, [])


@pytest.mark.server
def test_the_configured_server_is_asked_and_not_touched(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database = server.database()
    monkeypatch.setenv("SIGHTLINE_BACKEND", server.url(database))
    (told,) = listed(capsys)["postgresql"]["servers"]
    assert (told["state"], told["origin"], told["error"]) == (ANSWERS, "setting backend", None)
    assert re.fullmatch(r"PostgreSQL \d+\.\d+, pgvector 0\.\d+\.\d+", told["version"])
    assert told["url"] == f"postgresql://127.0.0.1:{server.port}/{database}"
    assert main(["engines"]) == 0
    out = capsys.readouterr().out
    assert f"127.0.0.1:{server.port}/{database} (setting backend) answers, PostgreSQL" in out
    assert PASSWORD not in out
    assert QUOTED not in out
    with server.admin(database) as connection:
        assert connection.execute("SELECT to_regnamespace('sightline')").fetchone() == (None,)


@pytest.mark.server
def test_a_database_without_pgvector_says_so(server: Server) -> None:
    answer = answer_of(server.url(server.database(extension=False)))
    assert answer.state == ANSWERS
    assert re.search(r"pgvector 0\.\d+\.\d+ not yet in use", answer.version or "")


@pytest.mark.server
def test_a_wrong_password_is_refused_and_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGHTLINE_BACKEND", server.url(server.clean(), password="wrong-one"))
    assert main(["engines", "--json"]) == 0
    out = capsys.readouterr().out
    assert "wrong-one" not in out
    (told,) = next(e for e in json.loads(out)["engines"] if e["scheme"] == "postgresql")["servers"]
    assert (told["state"], told["version"]) == (REFUSED, None)
    assert "credentials" in told["error"]


@pytest.mark.parametrize("prefer_grpc", [True, False])
def test_qdrant_answers_and_refuses_keys(prefer_grpc: bool) -> None:
    fake = FakeQdrant("right-key")
    try:
        url = fake.url(prefer_grpc=prefer_grpc)
        right, wrong = answer_of(url + "&api_key=right-key"), answer_of(url + "&api_key=wrong-key")
    finally:
        fake.close()
    assert (right.state, right.version) == (ANSWERS, "Qdrant 1.16.0")
    assert wrong.state == REFUSED
    assert "key=" not in right.shown


def test_a_folder_in_the_setting_is_no_server_to_ask(tmp_path: Path) -> None:
    assert server_probe.places("chroma", tmp_path, f"chroma://{tmp_path}/store") == []
    (asked,) = server_probe.places("chroma", tmp_path, "chroma://:secret@host:8000")
    assert asked.shown == "chroma://host:8000"


@pytest.mark.parametrize("scheme", SERVERS)
def test_nobody_there_is_said(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    answer = answer_of(f"{scheme}://127.0.0.1:{port}" + (f"?grpc_port={port}" if scheme == "qdrant" else ""))
    assert answer.state == SILENT
    assert f"127.0.0.1:{port}" in (answer.error or "")


def test_servers_that_take_the_call_and_say_nothing_are_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        answers = [
            Answer(f"{scheme}://127.0.0.1:{port}" + (f"?grpc_port={port}" if scheme == "qdrant" else ""), "x", "test")
            for scheme in SERVERS
        ]
        start_s = time.monotonic()
        server_probe.ask(answers, within_s=0.5)
        assert time.monotonic() - start_s < 2
    assert [answer.state for answer in answers] == [SILENT] * len(SERVERS)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("faiss:///a/b@c", "faiss:///a/b@c"),
        ("postgresql://ann:secret@db:5432/photos?sslmode=require", "postgresql://db:5432/photos?sslmode=require"),
        ("postgresql://ann:sec/ret@db/photos?password=secret", "postgresql://db/photos"),
        ("postgresql://ann:secret?x@db/photos", "postgresql://…"),
        ("milvus://db:19530?token=root:secret&database=d&secure=true", "milvus://db:19530?database=d&secure=true"),
        ("milvus://db?token=ann@secret", "milvus://…"),
        ("chroma:///a/b@c", "chroma:///a/b@c"),
        ("chroma://:secret@db:8000/a?tenant=t&key=secret", "chroma://db:8000/…?tenant=t"),
        ("weaviate://:secret@db:8080?grpc=1", "weaviate://db:8080?grpc=1"),
        ("qdrant://db?api_key=secret", "qdrant://db"),
    ],
)
def test_secrets_are_cut_from_what_is_shown(url: str, told: str) -> None:
    assert shown(url) == told
    assert "secret" not in shown(url)


def test_each_server_is_asked_once(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    monkeypatch.setattr(server_probe, "default_address", DEFAULT_ADDRESS)
    assert [a.origin for a in server_probe.places("qdrant", isolated, "")] == ["default address"]
    assert server_probe.places("faiss", isolated, "faiss:///x") == []
    same = server_probe.places("weaviate", isolated, "weaviate://:k@127.0.0.1:8080?grpc=50051")
    assert [(a.origin, a.url) for a in same] == [("setting backend", "weaviate://:k@127.0.0.1:8080?grpc=50051")]
    both = server_probe.places("milvus", isolated, "milvus://db")
    assert [a.shown for a in both] == ["milvus://127.0.0.1:19530", "milvus://db"]


@pytest.mark.server("milvus")
def test_a_milvus_that_up_started_answers() -> None:
    url, home = milvus_server.url(), milvus_server.home()
    (answer,) = server_probe.places("milvus", home, "")
    assert (answer.origin, answer.shown) == ("engines up", url)
    server_probe.ask([answer], within_s=20)
    assert answer.state == ANSWERS
    assert re.fullmatch(r"Milvus 2\.3\.5.*", answer.version or "")


@pytest.mark.server("weaviate")
def test_a_weaviate_that_up_started_answers_to_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    running, home = weaviate_server.server(), weaviate_server.home()
    key = running.environment["SIGHTLINE_WEAVIATE_API_KEY"]
    monkeypatch.setenv("SIGHTLINE_WEAVIATE_API_KEY", "of-another-server")
    (answer,) = server_probe.places("weaviate", home, "")
    assert (answer.origin, answer.shown) == ("engines up", running.url)
    assert key not in answer.shown
    server_probe.ask([answer], within_s=20)
    assert answer.state == ANSWERS
    assert re.fullmatch(r"Weaviate 1\.\d+\.\d+.*", answer.version or "")
    refused = answer_of(running.url)
    assert refused.state == REFUSED
    assert "of-another-server" not in (refused.error or "")
