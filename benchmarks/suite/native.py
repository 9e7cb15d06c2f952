"""Engines' own clients, found by their descriptors: what an adapter is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

import backends
from backends.base import Backend, CollectionSpec, Record
from backends.registry import named
from benchmarks.suite.engines import Engine, EngineError

Floats = NDArray[np.float32]


class Native(Protocol):
    """An engine's own client, as someone who knows it would use it."""

    def load(self, records: Sequence[Record]) -> None:
        """Store the records and build the index, unless the adapter's own can be searched."""

    def search(self, query: Floats, k: int) -> list[str]:
        """Ids of the k nearest, their payloads and scores fetched too; query: (d,)."""

    def search_batch(self, queries: Floats, k: int) -> list[list[str]]:
        """The same for (q, d) queries, the fastest way the client offers."""

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records in an empty second collection, replacing those that are there.

        They are durable when it returns, and visible to searches, since the adapter promises both.
        """

    def clear(self) -> None:
        """Empty the second collection."""

    def close(self) -> None:
        """Drop what was made, disconnect."""


@runtime_checkable
class Filtering(Protocol):
    """A native client that can search among some of the records."""

    def among(self, rows: NDArray[np.bool_]) -> Callable[[Floats, int], list[str]]:
        """A `Native.search` that finds only what `rows` keeps, by the engine's own filter.

        rows: (n,), one for each record in the order in which they were stored.
        """


def native_of(engine: Engine) -> Callable[[Backend, CollectionSpec], Native]:
    """What opens the engine's own client beside an open backend, nothing loaded yet. Raises EngineError without one."""
    target = engine.config.native
    if target is None:
        known = ", ".join(scheme for scheme, info in backends.engines().items() if info.native)
        raise EngineError(f"no native client is written for {engine.scheme!r}; there are {known}")
    opened: Callable[[Backend, CollectionSpec], Native] = named(target)
    return opened
