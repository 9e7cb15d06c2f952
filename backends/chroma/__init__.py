"""Chroma: a server, or the same engine in process."""

from pathlib import Path

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="chroma-embedded",
        backend="backends.chroma.backend:ChromaEmbeddedBackend",
        example="chroma-embedded:///dir",
        summary="Chroma in process, in a folder",
        extra="chroma",
        client="chromadb",
        library_version="backends.chroma.version:of_library",
        native="backends.chroma.native:NativeChroma",
        bench=Path(__file__).with_name("bench-embedded.toml"),
    ),
    EngineInfo(
        scheme="chroma",
        backend="backends.chroma.backend:ChromaBackend",
        example="chroma://host:8000",
        summary="a Chroma server, 1.0 or later",
        folder_scheme="chroma-embedded",
        extra="chroma",
        client="chromadb",
        default_url="chroma://127.0.0.1:8000",
        harmless=frozenset({"database", "https", "tenant"}),
        key_variable="SIGHTLINE_CHROMA_TOKEN",
        server_version="backends.chroma.version:of_server",
        local_server="backends.chroma.local_server:SERVER",
        native="backends.chroma.native:NativeChroma",
        bench=Path(__file__).with_name("bench.toml"),
    ),
)
