"""The conformance suite over Milvus Lite and over a real Milvus server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backends.conformance import BackendSuite
from tests.support import milvus_server


@pytest.mark.slow
class TestMilvusLite(BackendSuite):
    url = "milvus-lite:///{dir}"


@pytest.mark.server("milvus")
class TestMilvus(BackendSuite):
    url = "milvus://"

    @classmethod
    def place(cls, directory: Path) -> str:
        return milvus_server.url()

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        """Kill the server in the middle of the writing, end the writer, and start the server again."""
        milvus_server.kill()
        writer.kill()
        milvus_server.url()
