"""FAISS and SQLite in a folder."""

from pathlib import Path

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="faiss",
        backend="backends.faiss.backend:FaissBackend",
        example="faiss:///dir",
        summary="FAISS and SQLite in a folder, the default",
        client="faiss-cpu",
        library_version="backends.faiss.version:of_library",
        native="backends.faiss.native:NativeFaiss",
        bench=Path(__file__).with_name("bench.toml"),
    ),
)
