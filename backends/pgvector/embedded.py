"""``pgvector-embedded:///dir``: PostgreSQL with pgvector from a Python package, in a folder of its own.

The server listens on a socket in that folder only, open to its owner alone. Any number of processes may
use one folder at a time; the last to close it stops the server.
"""

from __future__ import annotations

from typing import ClassVar, Self

from backends.base import Capabilities
from backends.pgvector import postmaster as pgvector_server
from backends.pgvector.backend import PostgresBackend
from backends.pgvector.connection import Database
from backends.urls import parse_folder_url


class EmbeddedPostgresBackend(PostgresBackend):
    """`PostgresBackend` over a server that this process starts, shares with others, and stops when last."""

    capabilities: ClassVar[Capabilities] = PostgresBackend.capabilities

    def __init__(self, server: pgvector_server.LocalServer) -> None:
        self._server: pgvector_server.LocalServer | None = server
        address = f"pgvector-embedded://{server.folder}"
        try:
            super().__init__(Database(server.conninfo, address, server.restart))
        except BaseException:
            self._release()
            raise

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open or make the folder of ``pgvector-embedded:///dir`` and start its server if nobody has.

        ValueError for a URL of another form.
        """
        return cls(pgvector_server.acquire(parse_folder_url(url, "pgvector-embedded")))

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._release()

    def _release(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            pgvector_server.release(server)
