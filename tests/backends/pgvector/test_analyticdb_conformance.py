"""The conformance suite over AnalyticDB's adapter, on its stand-in: PostgreSQL with pgvector."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest

from backends.conformance import BackendSuite, Sizes
from tests.support.analyticdb import AnalyticServer, StandInBackend


@pytest.mark.server
class TestAnalyticdb(BackendSuite):
    engine = StandInBackend
    #: It counts as a test of the scheme.
    stands_in = True
    # The same engine is tested at full size as pgvector.
    sizes = Sizes(crowd=4_000, wide=3_000, indexed=1_000, kills=2)
    server: ClassVar[AnalyticServer]
    database: ClassVar[str]

    @classmethod
    def setup_class(cls) -> None:
        cls._folder = tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True)
        cls.server = AnalyticServer(Path(cls._folder.name))
        cls.database = cls.server.database()
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.server.stop("immediate")
        cls._folder.cleanup()

    @classmethod
    def place(cls, directory: Path) -> str:
        return cls.server.url(cls.database)

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        cls.server.kill()
        writer.kill()
        cls.server.start()
