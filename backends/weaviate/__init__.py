"""Weaviate: a server."""

from pathlib import Path

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="weaviate",
        backend="backends.weaviate.backend:WeaviateBackend",
        example="weaviate://host:8080?grpc=50051",
        summary="a Weaviate server",
        extra="weaviate",
        client="weaviate-client",
        default_url="weaviate://127.0.0.1:8080?grpc=50051",
        harmless=frozenset({"grpc", "grpc_https", "https"}),
        key_variable="SIGHTLINE_WEAVIATE_API_KEY",
        server_version="backends.weaviate.version:of_server",
        local_server="backends.weaviate.local_server:SERVER",
        native="backends.weaviate.native:NativeWeaviate",
        bench=Path(__file__).with_name("bench.toml"),
    ),
)
