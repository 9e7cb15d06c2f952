"""One real TiDB server for the whole test session."""

from __future__ import annotations

from tests.support.local_server import LocalServer

_server = LocalServer("tidb")
server = _server.running
kill = _server.kill
home = _server.folder
