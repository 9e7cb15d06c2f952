"""Starting and stopping database servers from the packages on this machine, for development and tests.

Each server keeps its data, log and pid file in ``HOME/servers/NAME``, listens on loopback, runs in a
session of its own, and outlives the command that started it until `down`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_S = 180.0
STOP_S = 30.0


class ServerError(Exception):
    """A local server cannot be started or stopped: one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server process is started: its command, what is added to the environment, its working folder."""

    argv: list[str]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Server:
    """One server that can be run from packages: its URL as a backend, its ports, and how to start it.

    `missing` says what to install where it cannot be started, `launch` prepares its folder and gives
    the command, `ready` says whether it answers. `environment` gives what a client's environment needs:
    the key that the server in this folder asks for.
    """

    name: str
    url: str
    ports: tuple[int, ...]
    missing: Callable[[], str | None]
    launch: Callable[[Path], Launch]
    ready: Callable[[], bool]
    environment: Callable[[Path], Mapping[str, str]] = lambda folder: {}


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


def answers(url: str) -> bool:
    """Whether an HTTP server on loopback answers `url` with 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 (loopback, from our own table)
            return 200 <= response.status < 300
    except (urllib.error.URLError, OSError):
        return False


def _weaviate_binary() -> str | None:
    go = Path(os.environ.get("GOBIN") or Path(os.environ.get("GOPATH") or Path.home() / "go") / "bin")
    return shutil.which("weaviate-server") or shutil.which("weaviate-server", path=str(go))


def _weaviate_missing() -> str | None:
    if _weaviate_binary():
        return None
    return "the program weaviate-server is not here: install Go 1.26 or later, then run make engines"


def _weaviate_environment(folder: Path) -> dict[str, str]:
    try:
        return {"SIGHTLINE_WEAVIATE_API_KEY": (folder / "key").read_text("ascii").strip()}
    except FileNotFoundError:
        return {}


def _make_key(file: Path) -> str:
    """The random key in `file`, made if it is not there; only its owner can read it."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text("ascii").strip()
    with os.fdopen(descriptor, "w") as stream:
        key = secrets.token_urlsafe(32)
        stream.write(key)
    return key


def _weaviate_launch(folder: Path) -> Launch:
    # The gRPC port and 7947 listen on every interface whatever --host says, hence the key.
    env = {
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": _make_key(folder / "key"),
        "AUTHENTICATION_APIKEY_ENABLED": "true",
        "AUTHENTICATION_APIKEY_USERS": "sightline",
        "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_BIND_ADDR": "127.0.0.1",
        "CLUSTER_DATA_BIND_PORT": "7947",
        "CLUSTER_GOSSIP_BIND_PORT": "7946",
        "CLUSTER_HOSTNAME": "node1",
        "CLUSTER_IN_LOCALHOST": "true",
        "DEFAULT_VECTORIZER_MODULE": "none",
        "DISABLE_TELEMETRY": "true",
        "GO_PROFILING_DISABLE": "true",
        "GRPC_PORT": "50051",
        "PERSISTENCE_DATA_PATH": str(folder / "data"),
        "RAFT_BOOTSTRAP_EXPECT": "1",
        "RAFT_INTERNAL_RPC_PORT": "8301",
        "RAFT_PORT": "8300",
    }
    binary = _weaviate_binary()
    assert binary is not None
    return Launch([binary, "--scheme", "http", "--host", "127.0.0.1", "--port", "8080"], env)


SERVERS: dict[str, Server] = {
    "weaviate": Server(
        "weaviate",
        "weaviate://127.0.0.1:8080?grpc=50051",
        (8080, 50051, 7946, 7947, 8300, 8301),
        _weaviate_missing,
        _weaviate_launch,
        lambda: answers("http://127.0.0.1:8080/v1/.well-known/ready"),
        _weaviate_environment,
    ),
}


def find(name: str) -> Server:
    """The server called `name`. Raises ServerError naming those there are."""
    try:
        return SERVERS[name]
    except KeyError:
        raise ServerError(f"no server is called {name!r}; there are {', '.join(SERVERS)}") from None


def running(name: str, home: Path) -> Running | None:
    """The server `name` that `up` started under `home`, if that very process still runs."""
    server, folder = find(name), _folder(name, home)
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
    server, folder = find(name), _folder(name, home)
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


def _check_ports(server: Server) -> None:
    for port in server.ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise ServerError(
                    f"{server.name} needs port {port}, which another program uses: stop that one first"
                ) from None


def _start(server: Server, folder: Path) -> Running:
    launch = server.launch(folder)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            launch.argv, cwd=folder, env={**os.environ, **launch.env}, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
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
