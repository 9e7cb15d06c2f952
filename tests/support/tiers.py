"""The tiers of tests: marks for those that need a database server of their own, by the engine that they are over."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

#: Engines whose tests start a server of fixed ports, the one of that name.
NAMED = frozenset({"elasticsearch", "milvus", "opensearch", "weaviate"})
#: Those and PostgreSQL, of which the embedded one is a server too.
SERVERS = NAMED | {"pgvector-embedded", "postgresql"}


def tiered(engines: Iterable[str], *, slow: Collection[str] = ()) -> list[Any]:
    """Schemes or URLs as parameters of a test, those of servers marked, and those that are slow in it."""
    made = []
    for engine in engines:
        scheme = engine.partition(":")[0]
        marks = [pytest.mark.server(scheme) if scheme in NAMED else pytest.mark.server] if scheme in SERVERS else []
        marks += [pytest.mark.slow] if engine in slow else []
        made.append(pytest.param(engine, marks=marks))
    return made
