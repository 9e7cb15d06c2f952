"""Starting and stopping database servers from the packages on this machine, for development and tests.

Each server keeps its data, log and pid file in ``HOME/servers/NAME``, listens on loopback, runs in a
session of its own, and outlives the command that started it until `down`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
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
    """How a server process is started: its command, what is added to the environment, and its working folder.

    Without `cwd` it works in the server's own folder.
    """

    argv: list[str]
    env: Mapping[str, str]
    cwd: Path | None = None


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
    # make engines puts it beside this environment's Python.
    places = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", ""), str(go)])
    return shutil.which("weaviate-server", path=places)


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


def _milvus_missing() -> str | None:
    if importlib.util.find_spec("milvus") is not None:
        return None
    return "the package milvus is not here: pip install 'sightline[milvus-server]' (Linux on x86-64)"


def _milvus_launch(folder: Path) -> Launch:
    # The wheel's own `default_server` starts a child that ends with its parent; what it prepares is used as it is.
    # Importing it is cheap, but it is no dependency: whoever has no local Milvus needs none of it.
    import milvus

    base = folder / "data"
    config = milvus.MilvusServerConfig(data_dir=str(base))
    for key, value in _MILVUS_SETTINGS.items():
        config.set(key, value)
    # Not its `resolve`, which tries every port, leaves the sockets open, and takes another port than the one of
    # our table where the last server's connections still linger.
    config.resolve_storage()
    config.write_config()
    settings = base / "configs" / "milvus.yaml"
    settings.write_text(settings.read_text("utf-8").replace("queryCoord:\n", _MILVUS_QUERY_COORD, 1), "utf-8")
    milvus._initialize_data_files(config.base_data_dir)
    libraries = os.pathsep.join(filter(None, [str(base / "bin"), os.environ.get("LD_LIBRARY_PATH")]))
    env = {
        "DEPLOY_MODE": "STANDALONE",
        "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH": libraries,
        "METRICS_PORT": "9091",
        "MILVUS_RUN_DIR": str(base / "run"),
    }
    return Launch([str(base / "bin" / "milvus"), "run", "standalone"], env, base)


def _milvus_ready() -> bool:
    # healthz is true before the proxy takes calls.
    if not answers("http://127.0.0.1:9091/healthz"):
        return False
    from pymilvus import MilvusClient, MilvusException

    try:
        client = MilvusClient("http://127.0.0.1:19530", timeout=2, dedicated=True)
    except MilvusException:
        return False
    try:
        client.list_collections(timeout=5)
    except MilvusException:
        return False
    finally:
        client.close()
    return True


# All but etcd's two listen on every interface, whatever their addresses: keep such a machine behind a firewall.
_MILVUS_PARTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
_MILVUS_SETTINGS = {
    # Without an address of their own, its parts register under the machine's first public one.
    **{f"{part}.ip": "127.0.0.1" for part in _MILVUS_PARTS},
    # In milliseconds. A single node's parts may look for news more often than a cluster's.
    "proxy.timeTickInterval": 50,
    "queryCoord.distPullInterval": 100,
    # In seconds. A server that was killed has its successor wait until its parts' leases end.
    "common.session.ttl": 5,
}
# What the wheel's template lacks; without it a built index is taken into use after up to ten seconds.
_MILVUS_QUERY_COORD = """queryCoord:
  checkChannelInterval: 200
  checkSegmentInterval: 200
  checkIndexInterval: 1000
  leaderViewUpdateInterval: 1
  UpdateNextTargetInterval: 1
"""
_MILVUS_PORTS = (19530, 19529, 9091, 2379, 2380, 53100, 19531, 21123, 22930, 21121, 13333, 21124)

SERVERS: dict[str, Server] = {
    "milvus": Server(
        "milvus", "milvus://127.0.0.1:19530", _MILVUS_PORTS, _milvus_missing, _milvus_launch, _milvus_ready
    ),
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
            launch.argv, cwd=launch.cwd or folder, env={**os.environ, **launch.env}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
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
