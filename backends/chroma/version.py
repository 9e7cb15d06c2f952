"""Which Chroma is installed or answers; asking changes nothing there."""

from __future__ import annotations

from importlib import metadata


def of_library() -> str:
    """``Chroma 1.5.9``."""
    return f"Chroma {metadata.version('chromadb')}"


def of_server(url: str, within_s: float) -> str:
    """``Chroma 1.0.0``, as the server tells it."""
    from backends.chroma.connection import OPTIONS, tell_version
    from backends.urls import parse_server_url

    server = parse_server_url(url, "chroma", port=8000, known=OPTIONS, keyed=True)
    return f"Chroma {tell_version(server, within_s)}"
