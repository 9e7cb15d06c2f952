"""AnalyticDB's stand-in: its adapter over PostgreSQL with pgvector, whose DDL and settings take the place of its own.

No package carries AnalyticDB. `StandIn` is the one seam: what pgvector has not is written as pgvector has it, the rest
of the adapter runs as it is. That its own statements are the documented ones, test_analyticdb.py checks.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from backends.base import CollectionSpec
from backends.pgvector.analyticdb import AnalyticBackend, AnalyticDialect
from backends.pgvector.dialect import PGVECTOR, SETTINGS, Installed, Layout
from tests.support.postgres import Server


class StandIn(AnalyticDialect):
    """Spreads rows over no machines, and has pgvector's index and settings."""

    def distributed(self, column: str) -> str:
        return ""

    def session(self, installed: Installed) -> dict[str, str]:
        settings = super().session(installed)
        del settings["optimizer"]
        return {**settings, **SETTINGS}

    def search_settings(
        self, layout: Layout, effort: float | None, lists: int, candidates: int, width: int
    ) -> dict[str, str]:
        settings = super().search_settings(layout, effort, lists, candidates, width)
        return {name.replace("fastann.hnsw_", "hnsw."): value for name, value in settings.items()}

    def create_index(self, name: str, table: str, spec: CollectionSpec, rows: int) -> str:
        return PGVECTOR.create_index(name, table, spec, rows)


class StandInBackend(AnalyticBackend):
    """The adapter over the stand-in."""

    dialect = StandIn()


class AnalyticServer(Server):
    """A server whose databases have what the adapter takes for AnalyticDB's vector engine."""

    def database(self, extension: bool = True) -> str:
        name = super().database(extension)
        if extension:
            with self.admin(name) as connection:
                connection.execute("CREATE ACCESS METHOD ann TYPE INDEX HANDLER hnswhandler")
        return name

    def url(self, database: str, password: str | None = None) -> str:
        made = super().url(database) if password is None else super().url(database, password)
        return made.replace("postgresql", "analyticdb", 1)


def place(folder: Path, stack: ExitStack) -> str:
    """The URL of a stand-in that is stopped with `stack`; the scheme opens it until then."""
    own, AnalyticBackend.dialect = AnalyticBackend.dialect, StandInBackend.dialect
    stack.callback(setattr, AnalyticBackend, "dialect", own)
    server = AnalyticServer(folder)
    stack.callback(server.stop, "immediate")
    return server.url(server.database())
