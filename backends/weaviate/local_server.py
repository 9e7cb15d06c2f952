"""Weaviate's server for development and tests: the Go program that ``make engines`` builds."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path

from backends.kit.local_server import Launch, LocalServer, answers


def _binary() -> str | None:
    go = Path(os.environ.get("GOBIN") or Path(os.environ.get("GOPATH") or Path.home() / "go") / "bin")
    # make engines puts it beside this environment's Python.
    places = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", ""), str(go)])
    return shutil.which("weaviate-server", path=places)


def _missing() -> str | None:
    if _binary():
        return None
    return "the program weaviate-server is not here: install Go 1.26 or later, then run make engines"


def _environment(folder: Path) -> dict[str, str]:
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


def _launch(folder: Path) -> Launch:
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
    binary = _binary()
    assert binary is not None
    return Launch([binary, "--scheme", "http", "--host", "127.0.0.1", "--port", "8080"], env)


SERVER = LocalServer(
    name="weaviate",
    url="weaviate://127.0.0.1:8080?grpc=50051",
    ports=(8080, 50051, 7946, 7947, 8300, 8301),
    missing=_missing,
    launch=_launch,
    ready=lambda: answers("http://127.0.0.1:8080/v1/.well-known/ready"),
    environment=_environment,
)
