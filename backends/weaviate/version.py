"""Which Weaviate answers; asking changes nothing there."""

from __future__ import annotations


def of_server(url: str, within_s: float) -> str:
    """``Weaviate 1.39.0``."""
    from backends.weaviate.connection import WeaviateServer

    server = WeaviateServer.connect(url, within_s=within_s)
    server.close()
    return f"Weaviate {server.version}"
