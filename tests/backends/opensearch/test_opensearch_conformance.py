"""The conformance suite over real servers of OpenSearch and Elasticsearch."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from backends.conformance import BackendSuite
from tests.support import elasticsearch_server, opensearch_server


@pytest.mark.server("opensearch")
class TestOpenSearch(BackendSuite):
    url = "opensearch://"

    @classmethod
    def place(cls, directory: Path) -> str:
        return opensearch_server.server().url

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        """Kill the server in the middle of the writing, start it again, let the writer go on, then kill that too."""
        opensearch_server.kill()
        opensearch_server.server()
        time.sleep(2)
        writer.kill()


@pytest.mark.server("elasticsearch")
class TestElasticsearch(BackendSuite):
    url = "elasticsearch://"

    @classmethod
    def place(cls, directory: Path) -> str:
        return elasticsearch_server.server().url

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        """As above."""
        elasticsearch_server.kill()
        elasticsearch_server.server()
        time.sleep(2)
        writer.kill()
