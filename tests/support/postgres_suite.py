"""The conformance suite over a PostgreSQL server over TCP with a password."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from backends.conformance import BackendSuite
from tests.support.postgres import Server


class ServerSuite(BackendSuite):
    """The server, not the writer, is killed in the middle of a write."""

    #: Which kind of server.
    kind: ClassVar[type[Server]] = Server

    server: ClassVar[Server]
    database: ClassVar[str]

    @classmethod
    def setup_class(cls) -> None:
        cls._folder = tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True)
        cls.server = cls.kind(Path(cls._folder.name))
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
