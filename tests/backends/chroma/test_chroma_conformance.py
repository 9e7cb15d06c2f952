"""The conformance suite over Chroma, in process and over a real server."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from backends.conformance import BackendSuite
from tests.support import chroma_server


class TestChromaEmbedded(BackendSuite):
    url = "chroma-embedded:///{dir}"


@pytest.mark.server("chroma")
class TestChroma(BackendSuite):
    url = "chroma://"

    @classmethod
    def place(cls, directory: Path) -> str:
        return chroma_server.url()

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        """Kill the server in the middle of the writing, start it again, let the writer go on, then kill that too."""
        chroma_server.kill()
        chroma_server.url()
        time.sleep(2)
        writer.kill()
