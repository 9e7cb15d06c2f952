"""Starting and stopping database servers from the packages on this machine, for development and tests.

Each server keeps its data, log and pid file in ``HOME/servers/NAME``, listens on loopback, runs in a
session of its own, and outlives the command that started it until `down`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil

from backends.kit.local_server import LocalServer
from backends.registry import engines, named

START_S = 180.0
STOP_S = 30.0


class ServerError(Exception):
    """A local server cannot be started or stopped: one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that `up` started and that still runs.

    `environment` is what a client's environment needs beside the URL. It may hold a key, so it is not shown.
    """

    name: str
    url: str
    pid: int
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@cache
def servers() -> dict[str, LocalServer]:
    """The servers that engines say how to start, by name."""
    found = [named(info.local_server) for info in engines().values() if info.local_server]
    return {server.name: server for server in found}


def server_named(name: str) -> LocalServer:
    """The server called `name`. Raises ServerError naming those there are."""
    try:
        return servers()[name]
    except KeyError:
        raise ServerError(f"no server is called {name!r}; there are {', '.join(servers())}") from None


def running(name: str, home: Path) -> Running | None:
    """The server `name` that `up` started under `home`, if that very process still runs."""
    server, folder = server_named(name), _folder(name, home)
    try:
        saved = json.loads((folder / "pid.json").read_text("utf-8"))
        process = psutil.Process(saved["pid"])
        # A pid alone may by now be another program's.
        if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - saved["created"]) > 1:
            return None
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
    return Running(name, server.url, process.pid, folder / "log", server.environment(folder))


def up(name: str, home: Path, *, timeout_s: float = START_S) -> Running:
    """Start the server `name` and return when it answers; one that runs already is left as it is.

    Raises ServerError when it is not installed, a port is taken, or it does not answer in time.
    """
    server, folder = server_named(name), _folder(name, home)
    there = running(name, home)
    if there is None:
        reason = server.missing()
        if reason:
            raise ServerError(f"{name} cannot be started: {reason}")
        _check_ports(server)
        folder.mkdir(parents=True, exist_ok=True)
        there = _start(server, folder)
    deadline = time.monotonic() + timeout_s
    while not server.ready():
        if running(name, home) is None:
            raise ServerError(f"{name} stopped while starting: {_last_line(there.log)}; its log is {there.log}")
        if time.monotonic() > deadline:
            down(name, home)
            raise ServerError(f"{name} did not answer within {timeout_s:.0f} s; its log is {there.log}")
        time.sleep(0.1)
    return there


def down(name: str, home: Path, *, kill: bool = False) -> bool:
    """Stop the server `name` that `up` started and wait for its end; False when none runs.

    `kill` ends it as a crash would (SIGKILL). Otherwise it has 30 seconds to end by itself first.
    """
    there = running(name, home)
    if there is None:
        return False
    process = psutil.Process(there.pid)
    family = [process, *process.children(recursive=True)]
    if not kill:
        process.send_signal(signal.SIGTERM)
        _, family = psutil.wait_procs(family, timeout=STOP_S)
    for member in family:
        if member.is_running():
            member.kill()
    psutil.wait_procs(family, timeout=STOP_S)
    (_folder(name, home) / "pid.json").unlink(missing_ok=True)
    return True


def _folder(name: str, home: Path) -> Path:
    return home / "servers" / name


def _check_ports(server: LocalServer) -> None:
    for port in server.ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise ServerError(
                    f"{server.name} needs port {port}, which another program uses: stop that one first"
                ) from None


def _start(server: LocalServer, folder: Path) -> Running:
    launch = server.launch(folder)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            launch.argv,
            cwd=launch.cwd or folder,
            env={**os.environ, **launch.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    saved = {"pid": process.pid, "created": psutil.Process(process.pid).create_time(), "url": server.url}
    temporary = folder / "pid.json.tmp"
    temporary.write_text(json.dumps(saved), "utf-8")
    temporary.replace(folder / "pid.json")
    _reap(process)
    return Running(server.name, server.url, process.pid, folder / "log", server.environment(folder))


def _reap(process: subprocess.Popen[bytes]) -> None:
    # The server is meant to outlive this program: without this, Popen's destructor would warn about it.
    process.returncode = 0


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it printed nothing"
