"""Which Qdrant is installed or answers; asking changes nothing there."""

from __future__ import annotations

from importlib import metadata


def of_edge() -> str:
    """``Qdrant Edge 0.9.0``."""
    return f"Qdrant Edge {metadata.version('qdrant-edge-py')}"


def of_local_mode() -> str:
    """``local mode of qdrant-client 1.20.0``."""
    return f"local mode of qdrant-client {metadata.version('qdrant-client')}"


def of_server(url: str, within_s: float) -> str:
    """``Qdrant 1.16.0``."""
    from backends.qdrant.connection import open_client

    client, _, version = open_client(url, within_s=within_s)
    client.close()
    return f"Qdrant {version}"
