"""Local servers: started, found again, stopped and killed; on a small real HTTP server as the program."""

from __future__ import annotations

import os
import socket
import sys

import psutil
import pytest

from app.core import local_servers as servers
from app.core.local_servers import ServerError, down, running, server_named, up
from backends.kit.local_server import Launch, LocalServer, answers
from backends.weaviate import local_server as weaviate


def replace(monkeypatch, **changes):
    small = servers.servers()["small"]
    fields = {name: getattr(small, name) for name in ("name", "url", "ports", "missing", "launch", "ready")}
    monkeypatch.setitem(servers.servers(), "small", LocalServer(**{**fields, **changes}))


@pytest.mark.parametrize("kill", [False, True])
def test_up_runs_until_down(port, tmp_path, kill):
    assert running("small", tmp_path) is None
    started = up("small", tmp_path)
    assert running("small", tmp_path) == started
    assert answers(f"http://127.0.0.1:{port}/")
    assert os.getsid(started.pid) == started.pid
    assert up("small", tmp_path) == started
    assert down("small", tmp_path, kill=kill)
    assert not answers(f"http://127.0.0.1:{port}/")
    assert not psutil.pid_exists(started.pid)
    assert not down("small", tmp_path)
    assert up("small", tmp_path).pid != started.pid


def test_a_process_that_took_the_pid_is_not_ours(port, tmp_path):
    started = up("small", tmp_path)
    file = tmp_path / "servers" / "small" / "pid.json"
    file.write_text(file.read_text().replace(str(started.pid), str(os.getpid())))
    assert running("small", tmp_path) is None
    assert not down("small", tmp_path)
    psutil.Process(started.pid).kill()


def test_a_taken_port_is_named(port, tmp_path):
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ServerError, match=f"port {port}"):
        up("small", tmp_path)
    assert running("small", tmp_path) is None


def test_a_program_that_dies_is_quoted(port, tmp_path, monkeypatch):
    replace(monkeypatch, launch=lambda folder: Launch([sys.executable, "-c", "raise SystemExit('no licence')"], {}))
    with pytest.raises(ServerError, match="no licence"):
        up("small", tmp_path)


def test_a_program_that_never_answers_is_stopped(port, tmp_path, monkeypatch):
    replace(monkeypatch, ready=lambda: False)
    with pytest.raises(ServerError, match=r"did not answer within 1 s.*log"):
        up("small", tmp_path, timeout_s=1)
    assert running("small", tmp_path) is None
    assert not answers(f"http://127.0.0.1:{port}/")


def test_what_is_missing_and_unknown_is_said(port, tmp_path, monkeypatch):
    replace(monkeypatch, missing=lambda: "install it")
    with pytest.raises(ServerError, match="install it"):
        up("small", tmp_path)
    with pytest.raises(ServerError, match="weaviate"):
        server_named("oracle")


def test_weaviate_s_key_is_kept_made_once_and_not_shown(tmp_path):
    file = tmp_path / "key"
    key = weaviate._make_key(file)
    assert len(key) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert weaviate._make_key(file) == key
    environment = servers.servers()["weaviate"].environment(tmp_path)
    assert environment == {"SIGHTLINE_WEAVIATE_API_KEY": key}
    running = servers.Running("weaviate", "weaviate://127.0.0.1:8080", 1, tmp_path / "log", environment)
    assert key not in repr(running)
    assert servers.servers()["weaviate"].environment(tmp_path / "elsewhere") == {}
