"""Which Milvus is installed or answers; asking changes nothing there."""

from __future__ import annotations

from importlib import metadata


def of_lite() -> str:
    """``Milvus Lite 3.2.2``."""
    return f"Milvus Lite {metadata.version('milvus-lite')}"


def of_server(url: str, within_s: float) -> str:
    """``Milvus 2.3.5``."""
    from backends.milvus.connection import Connection

    connection = Connection.to(url, within_s=within_s)
    connection.close()
    return f"Milvus {connection.version.removeprefix('v')}"
