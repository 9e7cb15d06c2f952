"""One real Elasticsearch server for the whole test session."""

from __future__ import annotations

import os

from tests.support.local_server import LocalServer

# Java's first compiler alone: a server of a few minutes is ready in half the time, and leaves tests the processor.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

_server = LocalServer("elasticsearch")
server = _server.running
kill = _server.kill
home = _server.folder
