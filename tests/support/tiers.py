"""The tiers of tests: marks for those that need a database server of their own, by the engine that they are over."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

import backends

#: Engines of which each process of tests has servers of its own: PostgreSQL, the embedded one too, and stand-ins.
OF_THEIR_OWN = frozenset({"analyticdb", "clickhouse", "myscale", "pgvector-embedded", "postgresql", "vikingdb"})
#: Engines with a server that a machine can run one of.
SHARED = frozenset(info.scheme for info in backends.engines().values() if info.local_server)


def tiered(engines: Iterable[str], *, slow: Collection[str] = ()) -> list[Any]:
    """Schemes or URLs as parameters of a test, those of servers marked, and those that are slow in it."""
    made = []
    for engine in engines:
        scheme = engine.partition(":")[0]
        marks = [pytest.mark.server] if scheme in OF_THEIR_OWN else []
        marks += [pytest.mark.server(scheme)] if scheme in SHARED else []
        marks += [pytest.mark.slow] if engine in slow else []
        made.append(pytest.param(engine, marks=marks))
    return made
