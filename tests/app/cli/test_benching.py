"""`sightline bench`: it runs the benchmark in a process of its own, with the servers that it needs."""

from __future__ import annotations

import re
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import backends
from app.cli import bench as benching
from app.core import local_servers as servers
from app.main import main
from backends.kit.local_server import Launch, LocalServer, answers
from benchmarks.suite import engines


@pytest.mark.slow
def test_a_report_is_written_and_a_finished_run_is_not_measured_again(tmp_path: Path) -> None:
    given = [
        "bench",
        "--out",
        str(tmp_path / "run"),
        "--engines",
        "exact://",
        "--data",
        "clustered:300x8",
        "--quick",
        "--cases",
        "frontier",
        "--need",
        "recall >= 0.9, throughput",
    ]
    assert main(given) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "take exact" in page
    # It works offline: nothing is loaded, nothing runs.
    assert not re.search(r"<script|<link|<img|\ssrc=|url\((?!#)", page)
    assert "<svg" in page
    manifest = (tmp_path / "run" / "manifest.json").read_bytes()
    assert main(given) == 0
    assert (tmp_path / "run" / "manifest.json").read_bytes() == manifest


def test_what_the_benchmark_refuses_is_refused_here(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--out", str(tmp_path / "run"), "--engines", "oracle"]) == 1
    assert "no engine is called 'oracle'" in capfd.readouterr().err


def test_names_are_those_of_the_configurations() -> None:
    assert {"faiss", "milvus-lite", "pgvector", "qdrant-edge"} <= set(engines.embedded())
    places = {name: backends.engines()[config.schemes[0]].default_url for name, config in engines.configs().items()}
    assert engines.embedded() == [name for name, address in places.items() if address is None]
    assert set(engines.configs()) - set(engines.embedded()) == set(servers.servers())
    chosen = engines.choose(["embedded", "exact://"])
    assert [engine.name for engine in chosen] == [*engines.embedded(), "exact"]


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> str:
    """A server that can be started here, in the place of Milvus; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]

    def launch(folder: Path) -> Launch:
        (folder / "data").mkdir(exist_ok=True)
        return Launch(argv, {})

    stand_in = LocalServer(
        "milvus",
        f"milvus://127.0.0.1:{port}",
        (port,),
        lambda: None,
        launch,
        lambda: answers(f"http://127.0.0.1:{port}/"),
        lambda folder: {"KEY": "k"},
    )
    monkeypatch.setitem(servers.servers(), "milvus", stand_in)
    return stand_in.url


def test_a_server_is_started_for_the_run_and_stopped_after_it(local: str, tmp_path: Path) -> None:
    with benching._servers(["faiss", "milvus"], tmp_path, needed=True) as started:
        assert started.engines == ["faiss", local]
        assert started.environment == {"KEY": "k"}
        assert started.data_dirs == {"milvus": tmp_path / "servers" / "milvus" / "data"}
        assert servers.running("milvus", tmp_path)
        assert engines.server_pids(local, None)[0] == servers.running("milvus", tmp_path).pid
    assert servers.running("milvus", tmp_path) is None


def test_a_server_that_ran_before_goes_on_running(local: str, tmp_path: Path) -> None:
    servers.up("milvus", tmp_path)
    try:
        with benching._servers(["milvus"], tmp_path, needed=True):
            pass
        assert servers.running("milvus", tmp_path)
    finally:
        servers.down("milvus", tmp_path)


def test_a_server_that_cannot_be_started_ends_the_run_only_if_it_was_named(
    local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = replace(servers.servers()["milvus"], missing=lambda: "install it first")
    monkeypatch.setitem(servers.servers(), "milvus", missing)
    assert main(["bench", "--out", str(tmp_path / "run"), "--engines", "milvus"]) == 1
    assert "milvus cannot be started: install it first" in capsys.readouterr().err
    with benching._servers(["faiss", "milvus"], tmp_path, needed=False) as started:
        assert started.engines == ["faiss"]
    assert "left out milvus" in capsys.readouterr().err
