"""The conformance suite over a real Weaviate server."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from backends.conformance import BackendSuite
from tests.support import weaviate_server

pytestmark = pytest.mark.server("weaviate")


class TestWeaviate(BackendSuite):
    url = "weaviate://"

    @classmethod
    def place(cls, directory: Path) -> str:
        return weaviate_server.server().url

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        """Kill the server in the middle of the writing, start it again, let the writer go on, then kill that too."""
        weaviate_server.kill()
        weaviate_server.server()
        time.sleep(2)
        writer.kill()
