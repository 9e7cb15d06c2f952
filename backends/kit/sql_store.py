"""What stores in SQL databases share: collections that are tables, reached by connections of a pool."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from backends.base import Backend, CollectionNotFound, CollectionSpec, DimensionMismatch
from backends.kit.current import on_current
from backends.kit.words import Renewals, is_outdated

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)
T = TypeVar("T")

# How long another process's flush or drop may go unnoticed; neither makes an answer wrong.
COLLECTION_LIFE_S = 2.0


class StoredTable(Protocol):
    """A collection as stored: its spec, its table, which no other one gets, and the version of its words."""

    @property
    def spec(self) -> CollectionSpec: ...

    @property
    def table(self) -> str: ...

    @property
    def words(self) -> int: ...


S = TypeVar("S", bound=StoredTable)


class Pool(Protocol[C_co]):
    """A database; `run` gives work a connection, and does it again where that may help."""

    address: str

    def run(self, work: Callable[[C_co], T]) -> T: ...


class SqlStore(Backend, Generic[C, S]):
    """The part of a store that finds collections, and looks again where others drop them and make them anew."""

    def __init__(self, database: Pool[C], engine: str, refusals: tuple[type[Exception], ...]) -> None:
        self._pool = database
        self._known: dict[str, tuple[float, S]] = {}
        self._renewals = Renewals(engine, refusals)

    def _read_collection(self, connection: C, name: str) -> S | None:
        """The collection as the database has it now; None where there is none of that name."""
        raise NotImplementedError

    def _is_gone(self, error: Exception) -> bool:
        """Whether that is how the database says that a table is not there."""
        raise NotImplementedError

    def _renew_words(self, connection: C, collection: S) -> None:
        """Take the words of all its records anew. Raises one of the `refusals` where this user may not."""
        raise NotImplementedError

    def _find(self, connection: C, name: str, *, fresh: bool = False) -> S:
        known = self._known.get(name)
        if known is not None and not fresh and time.monotonic() - known[0] < COLLECTION_LIFE_S:
            return known[1]
        collection = self._read_collection(connection, name)
        if collection is None:
            self._known.pop(name, None)
            raise CollectionNotFound(f"no collection {name!r} in {self._pool.address}")
        self._known[name] = (time.monotonic(), collection)
        return collection

    def _run(self, name: str, work: Callable[[C, S], T]) -> T:
        """Do work on a collection; again when what is remembered of it was another's, dropped since."""

        def attempt(connection: C) -> T:
            def is_stale(known: S, error: Exception) -> bool:
                if not isinstance(error, DimensionMismatch) and not self._is_gone(error):
                    return False
                return self._find(connection, name, fresh=True).table != known.table

            return on_current(
                name,
                self._pool.address,
                lambda: self._find(connection, name),
                lambda collection: work(connection, collection),
                is_stale,
            )

        return self._pool.run(attempt)

    def _run_with_words(self, name: str, work: Callable[[C, S], T], *, reads: bool = False) -> T:
        """The same for work with words: those of an earlier version are taken anew first, where this user may."""

        def renewed(connection: C, collection: S) -> T:
            if not is_outdated(collection.words):
                return work(connection, collection)

            def renew() -> None:
                self._renew_words(connection, collection)

            if reads:
                self._renewals.attempt(name, renew)
            else:
                renew()
            return work(connection, self._find(connection, name, fresh=True))

        return self._run(name, renewed)

    def describe(self, name: str) -> CollectionSpec:
        return self._pool.run(lambda connection: self._find(connection, name, fresh=True).spec)
