"""The PostgreSQL server of `benchmarks.local_postgres`, with what only tests ask of it."""

from __future__ import annotations

from benchmarks import local_postgres
from benchmarks.local_postgres import PASSWORD, QUOTED, USER

__all__ = ["PASSWORD", "QUOTED", "USER", "Server"]


class Server(local_postgres.Server):
    """A server whose one database is made clean for each test that asks for it."""

    _clean = ""

    def clean(self) -> str:
        """The name of one database with the extension, owned by the ordinary user, without Sightline's schema."""
        if not self._clean:
            self._clean = self.database()
        with self.admin(self._clean) as connection:
            connection.execute("DROP SCHEMA IF EXISTS sightline CASCADE")
        return self._clean

    def admin_url(self, database: str) -> str:
        """The URL of a database for the superuser."""
        return f"postgresql://postgres@/{database}?host={self.data}&port={self.port}"
