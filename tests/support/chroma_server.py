"""One real Chroma server for the whole test session."""

from __future__ import annotations

from tests.support.local_server import LocalServer

_server = LocalServer("chroma")
kill = _server.kill
home = _server.folder


def url() -> str:
    """The URL of the running server, started again if it was killed."""
    return _server.running().url
