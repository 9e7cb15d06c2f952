"""Qdrant: a server, its engine in process, or its client's local mode."""

from pathlib import Path

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="qdrant-edge",
        backend="backends.qdrant.edge:QdrantEdgeBackend",
        example="qdrant-edge:///dir",
        summary="Qdrant's engine in process",
        extra="qdrant-edge",
        client="qdrant-edge-py",
        library_version="backends.qdrant.version:of_edge",
        native="backends.qdrant.native:NativeQdrantEdge",
        bench=Path(__file__).with_name("bench.toml"),
    ),
    EngineInfo(
        scheme="qdrant",
        backend="backends.qdrant.backend:QdrantBackend",
        example="qdrant://host:6333",
        summary="a Qdrant server",
        tested="a fake server with the published API",
        extra="qdrant",
        client="qdrant-client",
        default_url="qdrant://127.0.0.1:6333",
        harmless=frozenset({"https", "prefer_grpc", "grpc_port"}),
        key_variable="SIGHTLINE_QDRANT_API_KEY",
        bench=Path(__file__).with_name("bench.toml"),
        server_version="backends.qdrant.version:of_server",
    ),
    EngineInfo(
        scheme="qdrant-local",
        backend="backends.qdrant.backend:QdrantLocalBackend",
        example="qdrant-local://",
        summary="the local mode of Qdrant's client, for tests",
        extra="qdrant",
        client="qdrant-client",
        library_version="backends.qdrant.version:of_local_mode",
        bench=Path(__file__).with_name("bench.toml"),
    ),
)
