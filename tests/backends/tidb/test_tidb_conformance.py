"""The conformance suite over a real TiDB server, on its embedded store."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backends.conformance import BackendSuite
from tests.support import tidb_server

pytestmark = pytest.mark.server("tidb")


class TestTidb(BackendSuite):
    url = "tidb://"

    @classmethod
    def place(cls, directory: Path) -> str:
        return tidb_server.server().url

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        """Kill the server in the middle of the writing, then the writer, and start the server again."""
        tidb_server.kill()
        writer.kill()
        tidb_server.server()
