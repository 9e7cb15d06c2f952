"""Reaching a Qdrant server: URL, key, and whether it answers and is recent enough."""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Callable
from typing import Any

from qdrant_client import QdrantClient

from backends.errors import Unavailable
from backends.processes import claim_grpc
from backends.qdrant.errors import as_backend_error
from backends.urls import ServerUrl, parse_server_url

KEY_VARIABLE = "SIGHTLINE_QDRANT_API_KEY"
OPTIONS = ("api_key", "https", "prefer_grpc", "grpc_port", "timeout_s")
OLDEST = (1, 16)
CONNECT_TIMEOUT_S, TIMEOUT_S = 10, 60
# Left alone, a gRPC channel may wait two minutes before it tries a restarted server again.
GRPC_OPTIONS = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1000}


def open_client(url: str, *, within_s: float | None = None) -> tuple[QdrantClient, str, str]:
    """A client that has been tried, the server's address, and its version; time-outs are cut to `within_s`.

    Raises `Unavailable`, ValueError for a malformed URL; see `backends.qdrant.backend.QdrantBackend.connect`.
    """
    server = parse_server_url(url, "qdrant", port=6333, known=OPTIONS)
    grpc = server.flag("prefer_grpc", default=True)
    grpc_port = server.number("grpc_port", 6334)
    key = server.options.get("api_key") or os.environ.get(KEY_VARIABLE) or None
    if key is not None and not (key.isascii() and key.isprintable()):
        # The client's own error would repeat it.
        raise ValueError(f"the API key for {server.address} has characters that no key has")
    https = server.flag("https", default=False)
    timeout_s = server.number("timeout_s", TIMEOUT_S, highest=86_400)
    if within_s is not None:
        timeout_s = max(1, min(timeout_s, int(within_s)))
    _check_port(server, grpc_port if grpc else server.port, within_s or CONNECT_TIMEOUT_S)
    if grpc:
        claim_grpc()
    with warnings.catch_warnings():
        # That a key goes over plain HTTP is the user's choice, often on a loopback or private network.
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        client = QdrantClient(
            host=server.host,
            port=server.port,
            grpc_port=grpc_port,
            prefer_grpc=grpc,
            https=https,
            api_key=key,
            timeout=timeout_s,
            check_compatibility=False,
            grpc_options=dict(GRPC_OPTIONS),
        )
    try:
        version = _check_server(client, server.address)
    except BaseException:
        client.close()
        raise
    return client, server.address, version


def _check_port(server: ServerUrl, port: int, timeout_s: float) -> None:
    try:
        socket.create_connection((server.host, port), timeout_s).close()
    except OSError as error:
        raise Unavailable(
            f"nothing answers at {server.address} (port {port}: {error}): start a Qdrant server there, "
            "for instance docker run -p 6333:6333 -p 6334:6334 qdrant/qdrant; without gRPC add ?prefer_grpc=false"
        ) from error


def _check_server(client: QdrantClient, address: str) -> str:
    """The server's version. Raises `Unavailable` unless it takes our key and is new enough."""

    def ask(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise as_backend_error(error, address, name=None) from error

    version = str(ask(client.info).version)
    ask(client.get_collections)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise Unavailable(f"{address} runs Qdrant {version}: Sightline needs {'.'.join(map(str, OLDEST))} or later")
    return version
