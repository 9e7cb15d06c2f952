"""What every wrapper passes on: the whole protocol, and what the wrapped store says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ParamSpec, TypeVar

from numpy.typing import ArrayLike

from backends.base import Backend, CollectionSpec, Hit, Page, Record, Where
from backends.facets import Facet

P = ParamSpec("P")
T = TypeVar("T")


class Wrapper(Backend):
    """A backend that is `inner` in everything its subclass does not do in another way.

    A subclass overrides the methods that it changes, or `_call`, which stands around each of them but `scan` and
    `close`. Closing it closes `inner`.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        # Declared by the class of every engine, but here it depends on what is inside.
        self.capabilities = inner.capabilities  # type: ignore[misc]
        self.place = inner.place

    def _call(self, method: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call a method of `inner`."""
        return method(*arguments, **options)

    def collections(self) -> list[str]:
        return self._call(self.inner.collections)

    def describe(self, name: str) -> CollectionSpec:
        return self._call(self.inner.describe, name)

    def resolved(self, name: str) -> str:
        return self._call(self.inner.resolved, name)

    def create(self, spec: CollectionSpec) -> None:
        self._call(self.inner.create, spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        self._call(self.inner.set_encoder, name, fingerprint)

    def drop(self, name: str) -> None:
        self._call(self.inner.drop, name)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        self._call(self.inner.upsert, name, records)

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        return self._call(self.inner.get, name, ids, with_vectors=with_vectors)

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        return self._call(self.inner.delete, name, ids=ids, where=where)

    def count(self, name: str, where: Where | None = None) -> int:
        return self._call(self.inner.count, name, where)

    def facets(
        self, name: str, fields: Sequence[str], *, where: Where | None = None, top: int = 10
    ) -> dict[str, Facet]:
        return self._call(self.inner.facets, name, fields, where=where, top=top)

    def search(
        self, name: str, vectors: ArrayLike, k: int, *, where: Where | None = None, effort: float | None = None
    ) -> list[list[Hit]]:
        return self._call(self.inner.search, name, vectors, k, where=where, effort=effort)

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        return self._call(self.inner.search_text, name, query, k, where=where)

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        return self.inner.scan(name, with_vectors=with_vectors, cursor=cursor, batch=batch)

    def flush(self, name: str) -> None:
        self._call(self.inner.flush, name)

    def close(self) -> None:
        self.inner.close()
