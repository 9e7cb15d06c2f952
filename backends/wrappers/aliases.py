"""Names that stand for a collection and can be pointed at another one at once, on every engine.

Some engines have aliases of their own, most have none, and no two mean the same by it: where one may be made over the
name of a collection that is there, another refuses. So an alias is a record in a collection of the same store. All that
it needs is what the protocol promises of any record: it is seen by everybody, whole, when `upsert` returns.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from backends.base import (
    NO_VECTOR,
    Backend,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Page,
    Record,
)
from backends.checks import check_collection_name
from backends.errors import CollectionInUse
from backends.wrappers.base import Wrapper

__all__ = ["HOLDER", "Aliased", "with_aliases"]

#: The collection that holds them; nobody sees it.
HOLDER = "sightline-aliases"
#: So long what was read of them is taken for true. Whoever drops what an alias stood for until now waits longer.
SEEN_S = 2.0
_TARGET = "collection"
T = TypeVar("T")


class Itself(str):
    """The name of a collection itself, also where an alias of that name stands for another; see `Aliased.resolved`."""

    __slots__ = ()


def with_aliases(backend: Backend) -> Aliased:
    """`backend`, with names that stand for collections."""
    return backend if isinstance(backend, Aliased) else Aliased(backend)


class Aliased(Wrapper):
    """A backend where a name may stand for a collection of another name.

    Everything that takes a name takes an alias, and `describe` gives the name that was asked for. `collections` lists
    aliases, and leaves out what they stand for. An alias goes before a collection of the same name. What another
    process changed is noticed within two seconds, and at once where what the alias stood for was dropped.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._known: dict[str, str] = {}
        self._seen_at = float("-inf")

    def aliases(self) -> dict[str, str]:
        """What each alias stands for, read now."""
        seen_at = time.monotonic()
        known: dict[str, str] = {}
        with contextlib.suppress(CollectionNotFound):
            for page in self.inner.scan(HOLDER, with_vectors=False):
                known |= {record.id: str(record.metadata[_TARGET]) for record in page.records}
        # Another thread may have read them later than this one, and been quicker.
        if seen_at >= self._seen_at:
            self._known, self._seen_at = known, seen_at
        return known

    def resolved(self, name: str) -> Itself:
        """The name of the collection that `name` stands for; itself where it is no alias.

        Raises `CollectionNotFound` for the collection that holds the aliases.
        """
        if isinstance(name, Itself):
            return name
        if name == HOLDER:
            raise CollectionNotFound(f"{name!r} is no collection of yours: it holds what names stand for")
        known = self.aliases() if time.monotonic() - self._seen_at > SEEN_S else self._known
        return Itself(known.get(name, name))

    def point(self, aliases: dict[str, str]) -> None:
        """Make each alias stand for its collection, from now on, whatever it stood for before.

        The names of collections themselves are meant, not those of other aliases. Where the engine does not store
        them as one, the later ones come first, so that nothing that the first one stood for is ever without a name.

        Raises:
            CollectionNotFound: there is no such collection; nothing is changed then.
            ValueError: an alias that could not be the name of a collection.
        """
        for alias, collection in aliases.items():
            check_collection_name(alias)
            self.inner.describe(collection)
        with contextlib.suppress(CollectionExists):
            self.inner.create(CollectionSpec(HOLDER, dim=2, encoder=HOLDER))
        pointed = [
            Record(alias, NO_VECTOR, "text", metadata={_TARGET: collection})
            for alias, collection in reversed(aliases.items())
        ]
        self.inner.upsert(HOLDER, pointed)
        self.aliases()

    def collections(self) -> list[str]:
        """Aliases, and the collections that none stands for."""
        aliases, there = self.aliases(), set(self.inner.collections())
        hidden = {HOLDER, *aliases.values(), *aliases}
        return sorted({alias for alias, target in aliases.items() if target in there} | (there - hidden))

    def describe(self, name: str) -> CollectionSpec:
        """The spec of what `name` stands for, under that name."""
        return replace(self._call(self.inner.describe, name), name=name)

    def create(self, spec: CollectionSpec) -> None:
        """As the engine does; an alias of that name, or the collection of aliases, is in the way."""
        aliases = self.aliases()
        if spec.name in {*aliases, *aliases.values()}:
            self._forget_dangling(spec.name)
            aliases = self._known
        if spec.name == HOLDER or spec.name in aliases:
            raise CollectionExists(f"{spec.name!r} is taken: choose another name")
        self.inner.create(spec)

    def _forget_dangling(self, name: str) -> None:
        """Forget aliases by this name or for it that a `drop` broken off half-way has left without a collection."""
        there = set(self.inner.collections())
        dangling = [alias for alias, target in self._known.items() if target not in there and name in (alias, target)]
        if dangling:
            self.inner.delete(HOLDER, ids=dangling)
            self.aliases()

    def drop(self, name: str) -> None:
        """Remove what `name` stands for, and the alias.

        Raises:
            CollectionInUse: an alias of another name stands for it, or for the one that would have the name then.
        """
        if name == HOLDER:
            return
        aliases = self.aliases()
        target = name if isinstance(name, Itself) else aliases.get(name, name)
        for own in (target, name):
            others = sorted(alias for alias, stands_for in aliases.items() if stands_for == own and alias != name)
            if others and (own == target or own in self.inner.collections()):
                raise CollectionInUse(f"{own!r} cannot be dropped, as {others[0]!r} stands for it: drop that")
        self.inner.drop(target)
        if not isinstance(name, Itself) and name in aliases:
            self.inner.delete(HOLDER, ids=[name])
            self.aliases()

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        """Store the records in what `name` stands for."""
        # Once only, as they may be given twice.
        self._call(self.inner.upsert, name, list(records))

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        """Scan what `name` stands for when the first page is read."""

        def begun(target: str) -> tuple[list[Page], Iterator[Page]]:
            pages = self.inner.scan(target, with_vectors=with_vectors, cursor=cursor, batch=batch)
            return list(islice(pages, 1)), pages

        first, rest = self._call(begun, name)
        yield from first
        yield from rest

    def _call(self, method: Callable[..., T], *arguments: Any, **options: Any) -> T:
        if not arguments:
            return method(**options)
        name, *rest = arguments
        target = self.resolved(name)
        try:
            return method(target, *rest, **options)
        except CollectionNotFound:
            now = self.aliases().get(name, name)
            if isinstance(name, Itself) or now == target:
                raise
            return method(now, *rest, **options)
