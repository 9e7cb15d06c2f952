"""Milvus: a server, or Milvus Lite in process."""

from pathlib import Path

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="milvus",
        backend="backends.milvus.backend:MilvusBackend",
        example="milvus://host:19530",
        summary="a Milvus server, 2.3 or later",
        extra="milvus",
        client="pymilvus",
        packages=("milvus",),
        default_url="milvus://127.0.0.1:19530",
        harmless=frozenset({"database", "secure"}),
        key_variable="SIGHTLINE_MILVUS_TOKEN",
        server_version="backends.milvus.version:of_server",
        local_server="backends.milvus.local_server:SERVER",
        native="backends.milvus.native:NativeMilvus",
        bench=Path(__file__).with_name("bench.toml"),
    ),
    EngineInfo(
        scheme="milvus-lite",
        backend="backends.milvus.backend:MilvusLiteBackend",
        example="milvus-lite:///dir",
        summary="Milvus Lite in process, in a folder",
        extra="milvus-lite",
        client="milvus-lite",
        packages=("pymilvus",),
        library_version="backends.milvus.version:of_lite",
        native="backends.milvus.native:NativeMilvus",
        bench=Path(__file__).with_name("bench-lite.toml"),
    ),
)
