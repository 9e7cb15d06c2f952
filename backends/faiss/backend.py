"""``faiss:///dir``: FAISS over rows, metadata and keywords in SQLite, in one folder; the embedded default.

Each collection is a sub-folder: ``store.sqlite3`` (rows, filters, FTS5; what it has committed is the
truth), ``vectors-<generation>.f32`` (the original float32 rows) and ``graph-*.faiss`` (derived).
One open store writes at a time, any number of processes read, and readers see each commit at their
next call. Searches below about 10,000 rows scan exactly; above it `flush` builds HNSW (int8 beyond a
million), unless the spec says otherwise; rows written since the last flush are scanned and merged.
Records without a vector are in SQLite alone.
Deleted rows are gone from every answer at once; `flush` rewrites the vector files without them when
they are more than a fifth.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from numpy.typing import ArrayLike

from backends.base import Backend, Capabilities, CollectionSpec, Hit, Page, Record, Where
from backends.checks import COLLECTION_NAME, check_batch, check_ids, check_index, check_search, check_selection
from backends.errors import BackendError, CollectionExists, CollectionNotFound, Unavailable
from backends.facets import Facet, check_facets
from backends.faiss.collection import CollectionHandle
from backends.faiss.records import STORE, create_store
from backends.kit.current import on_current
from backends.kit.folders import put_aside, remove, remove_leftovers, whole_folder
from backends.locks import FolderLock
from backends.urls import parse_folder_url

ONE_WRITER = (
    "one store at a time writes to a faiss:// folder (any number may read); close that one, or write through it"
)
T = TypeVar("T")


class FaissBackend(Backend):
    """FAISS and SQLite in a folder: one writing process, any number of readers."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True,
        persistent=True,
        server=False,
        concurrent_writers=False,
        effort=True,
        index_kinds=frozenset({"auto", "flat", "hnsw", "ivf"}),
        quantizations=frozenset({"none", "half", "int8"}),
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FolderLock(folder, ONE_WRITER)
        self._open: dict[str, CollectionHandle] = {}
        self._mutex = threading.RLock()
        self._closed = False

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open the folder that the URL names: ``faiss:///abs/dir`` or ``faiss://./relative/dir``.

        The folder is made when the first collection is. Percent escapes are decoded. ValueError for a
        URL of another form, `Unavailable` when the path is not a folder.
        """
        folder = parse_folder_url(url, "faiss")
        if folder.exists() and not folder.is_dir():
            raise Unavailable(f"{folder} is a file; faiss:// keeps its collections in a folder")
        return cls(folder)

    def _find(self, name: str) -> CollectionHandle:
        found = self._open.get(name)
        if found is not None:
            return found
        with self._mutex:
            if self._closed:
                raise Unavailable(f"the store {self.folder} was closed: connect again")
            if name not in self._open:
                if not isinstance(name, str) or not COLLECTION_NAME.match(name):
                    raise CollectionNotFound(f"no collection {name!r} in {self.folder}")
                self._open[name] = CollectionHandle(self.folder / name)
            return self._open[name]

    def _on(self, name: str, action: Callable[[CollectionHandle], T], *, writes: bool = False) -> T:
        """Run `action` on the collection; again on the one that is there now if it was dropped meanwhile."""

        def task(collection: CollectionHandle) -> T:
            result = action(collection)
            if collection.closed and not writes:
                # What was read of it while it made room for another of its name may be a mixture.
                raise CollectionNotFound(f"collection {name!r} in {self.folder} was dropped meanwhile")
            return result

        def is_stale(collection: CollectionHandle, error: Exception) -> bool:
            if isinstance(error, CollectionNotFound):
                self._forget(name, collection)
            # Closed by who dropped it, or with the store, as `_find` then says.
            return isinstance(error, BackendError) and collection.closed

        return on_current(name, self.folder, lambda: self._find(name), task, is_stale)

    def _forget(self, name: str, collection: CollectionHandle) -> None:
        with self._mutex:
            if self._open.get(name) is collection:
                del self._open[name]
        collection.close()

    def _begin_writing(self) -> None:
        with self._mutex:
            if self._closed:
                raise Unavailable(f"the store {self.folder} was closed: connect again")
            if self._lock.acquire():
                self._clean_up()

    def _clean_up(self) -> None:
        """Remove what a killed writer left of an unfinished `create` or `drop`."""
        remove_leftovers(self.folder)
        for folder in self.folder.iterdir():
            if COLLECTION_NAME.match(folder.name) and (folder / STORE).exists():
                with suppress(BackendError):
                    collection = self._find(folder.name)
                    if collection.is_dropped():
                        self._remove(folder.name, collection)

    def collections(self) -> list[str]:
        if self._closed:
            raise Unavailable(f"the store {self.folder} was closed: connect again")
        try:
            names = [path.name for path in self.folder.iterdir() if (path / STORE).exists()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(f"cannot read {self.folder}: {error.strerror or error}") from error
        return sorted(name for name in names if COLLECTION_NAME.match(name) and not self._is_dropped(name))

    def _is_dropped(self, name: str) -> bool:
        collection = None
        try:
            collection = self._find(name)
            return collection.is_dropped()
        except CollectionNotFound:
            return True
        except BackendError:
            # A damaged one is listed.
            return collection is not None and collection.closed

    def describe(self, name: str) -> CollectionSpec:
        def spec(collection: CollectionHandle) -> CollectionSpec:
            found = collection.described()
            if found is None:
                raise CollectionNotFound(f"no collection {name!r} in {self.folder}")
            return found

        return self._on(name, spec)

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, "faiss://")
        self._begin_writing()
        with self._mutex:
            target = self.folder / spec.name
            if target.exists():
                raise CollectionExists(f"collection {spec.name!r} is already in {self.folder}")
            with whole_folder(target) as unfinished:
                unfinished.mkdir()
                create_store(unfinished / STORE, spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        self._find(name)
        self._begin_writing()
        self._on(name, lambda collection: collection.set_encoder(fingerprint), writes=True)

    def drop(self, name: str) -> None:
        while not self._dropped(name):
            pass

    def _dropped(self, name: str) -> bool:
        """Drop the collection that is there now; False where another thread was faster, so that it may be another."""
        if not isinstance(name, str) or not COLLECTION_NAME.match(name) or not (self.folder / name).is_dir():
            return True
        self._begin_writing()
        collection = None
        try:
            collection = self._find(name)
            if collection.is_dropped():
                # By another process that wrote before us, and that may have made it anew.
                self._forget(name, collection)
                collection = self._find(name)
        except CollectionNotFound:
            return True
        except BackendError:
            if collection is not None and collection.closed:
                return False
            # A damaged collection can be dropped too.
            return self._remove(name, None)
        # A write under way ends first. Nobody who has the mutex waits here.
        with collection.writing:
            if self._open.get(name) is not collection:
                return False
            with suppress(BackendError):
                collection.drop()
            return self._remove(name, collection)

    def _remove(self, name: str, collection: CollectionHandle | None) -> bool:
        """Take a collection's folder away, `None` for one that cannot be opened; False when another is there now."""
        with self._mutex:
            if self._open.get(name) is not collection:
                return False
            if collection is not None:
                self._forget(name, collection)
            aside = put_aside(self.folder / name)
        if aside is not None:
            remove(aside)
        return True

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        self._find(name)
        self._begin_writing()
        # An iterator must survive the second attempt on a collection that was dropped meanwhile.
        batch = records if isinstance(records, Sequence) else list(records)
        self._on(name, lambda collection: collection.upsert(batch), writes=True)

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)
        return self._on(name, lambda collection: collection.get(ids, with_vectors))

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        ids = check_selection(ids, where)
        self._find(name)
        self._begin_writing()
        return self._on(name, lambda collection: collection.delete(ids, where), writes=True)

    def count(self, name: str, where: Where | None = None) -> int:
        return self._on(name, lambda collection: collection.count(where))

    def facets(
        self, name: str, fields: Sequence[str], *, where: Where | None = None, top: int = 10
    ) -> dict[str, Facet]:
        wanted = check_facets(fields, top)
        return self._on(name, lambda collection: collection.facets(wanted, where, top))

    def search(
        self,
        name: str,
        vectors: ArrayLike,
        k: int,
        *,
        where: Where | None = None,
        effort: float | None = None,
    ) -> list[list[Hit]]:
        check_search(k, effort, self.capabilities)
        return self._on(name, lambda collection: collection.search(vectors, int(k), where, effort))

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        """BM25 by SQLite FTS5; case and accents folded."""
        check_search(k, None, self.capabilities)
        return self._on(name, lambda collection: collection.search_text(query, int(k), where))

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        """Every record once, in the order of ids, whatever is written meanwhile; cursors outlive the process."""
        check_batch(batch)
        while True:
            page = self._on(name, lambda collection, after=cursor: collection.page(after, batch, with_vectors))  # type: ignore[misc]
            if page is None:
                return
            cursor = page.cursor
            yield page

    def flush(self, name: str) -> None:
        self._find(name)
        self._begin_writing()
        self._on(name, lambda collection: collection.flush(), writes=True)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            collections = list(self._open.values())
            self._open.clear()
        for collection in collections:
            # A write in progress finishes first; its lock is given back only then.
            with collection.writing:
                collection.close()
        self._lock.release()
