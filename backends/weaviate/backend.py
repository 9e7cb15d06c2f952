"""``weaviate://host:port``: collections as classes of a Weaviate server, 1.33 or later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from weaviate.proto.v1 import batch_delete_pb2, batch_pb2

from backends.base import (
    MAX_TEXT_BYTES,
    MAX_URI_BYTES,
    Backend,
    Capabilities,
    CollectionNotFound,
    CollectionSpec,
    DimensionMismatch,
    Hit,
    Page,
    Record,
    Unavailable,
    Unsupported,
    Where,
    prepare_queries,
    prepare_records,
)
from backends.checks import MAX_METADATA_BYTES, check_batch, check_ids, check_index, check_search, check_selection
from backends.errors import Denied
from backends.kit.current import Remembered, on_current
from backends.kit.record_ids import check_uuid_cursor
from backends.kit.words import Renewals, is_outdated, log_renewal
from backends.locks import NameLocks
from backends.weaviate import repair as mend
from backends.weaviate import schema, words
from backends.weaviate.connection import WRITE_S, ServerRefused, WeaviateServer, is_busy
from backends.weaviate.filters import Translator, by_id, everything
from backends.weaviate.records import (
    BEFORE_FIRST,
    new_stamp,
    number_properties,
    object_id,
    object_ids,
    object_of,
    record_of,
    size_bytes,
)
from backends.weaviate.requests import search_request
from backends.weaviate.schema import Stored
from backends.weaviate.search import MAX_K, Searcher

T = TypeVar("T")
# How often records are sent whose server goes away each time.
SENDS = 10
# Between two looks at a collection that is being dropped and made.
POLL_S = 0.05
# How often a write is tried while the server, or another client's `set_encoder`, changes the class.
BUSY_ATTEMPTS = 40
BATCH, BATCH_BYTES, BATCH_WINDOW = 500, 8 << 20, 2
# An answer may have 100 MiB; a record without its vector has at most this much: text, uri and metadata.
PAGE_BYTES, RECORD_BYTES = 96 << 20, MAX_TEXT_BYTES + MAX_URI_BYTES + MAX_METADATA_BYTES + 4096


class WeaviateBackend(Backend):
    """Records on a Weaviate server, searched by its HNSW or flat index and its BM25.

    URL: ``weaviate://[:KEY@]host[:8080][?grpc=50051&https=false&grpc_https=false&timeout=10]``; the API key
    also from SIGHTLINE_WEAVIATE_API_KEY. On a server with ASYNC_INDEXING a search sees what was written
    when `flush` has returned, on others at once.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True,
        persistent=True,
        server=True,
        concurrent_writers=True,
        effort=True,
        index_kinds=frozenset({"auto", "flat", "hnsw"}),
        quantizations=frozenset({"none", "int8", "binary"}),
        max_k=MAX_K,
    )

    def __init__(self, server: WeaviateServer) -> None:
        self._server = server
        self._stored = Remembered(partial(schema.read, server))
        self._schema_lock = threading.Lock()
        self._names = NameLocks()
        self._searcher = Searcher(server)
        self._renewals = Renewals("Weaviate", (Denied,))

    @classmethod
    def connect(cls, url: str) -> Self:
        """Reach the server that `url` names. Raises `Unavailable` with the address and what to start."""
        return cls(WeaviateServer.connect(url))

    def collections(self) -> list[str]:
        return schema.list_all(self._server)

    def describe(self, name: str) -> CollectionSpec:
        return self._read(name).spec

    def _read(self, name: str) -> Stored:
        """The collection as the server has it now."""
        return self._stored.now(name)

    def _with(self, name: str, task: Callable[[Stored], T]) -> T:
        """Do `task` with what is known of the collection; if that is out of date, again with the truth.

        The server drops and makes a class step by step, so that its schema may name one that it cannot search.
        """
        with self._names.of(name).shared():
            return self._now(name, task)

    def _now(self, name: str, task: Callable[[Stored], T]) -> T:
        """The same for who holds the name's lock, which is not reentrant: who waits to drop it would go first."""
        self._server.check_open()
        return on_current(name, self._server.address, lambda: self._stored.find(name), task, self._is_stale)

    def _is_stale(self, known: Stored, error: Exception) -> bool:
        if not isinstance(error, (ServerRefused, DimensionMismatch)):
            return False
        if self._read(known.spec.name) != known:
            return True
        gone = isinstance(error, ServerRefused) and error.gone
        if gone:
            time.sleep(POLL_S)
        return gone

    def _dropped(self, name: str) -> CollectionNotFound:
        self._stored.forget(name)
        return CollectionNotFound(f"collection {name!r} in {self._server.address} was dropped meanwhile")

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, "Weaviate")
        with self._names.of(spec.name).alone():
            schema.create(self._server, spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        with self._names.of(name).shared():
            schema.set_encoder(self._server, name, fingerprint)
            self._stored.forget(name)

    def drop(self, name: str) -> None:
        # The server stops answering some of the searches that meet a drop.
        with self._names.of(name).alone():
            self._stored.forget(name)
            schema.drop(self._server, name)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        given = list(records)
        with self._names.of(name).shared():
            self._upsert(name, given)

    def _upsert(self, name: str, records: list[Record]) -> None:
        # Always asked for anew: Weaviate would make up a class for records of one that has been dropped.
        stored = self._read(name)
        kept, vectors = prepare_records(records, stored.spec)
        if not kept:
            return
        stored = self._with_current_words(stored)
        try:
            self._store(stored, kept, vectors)
        except ServerRefused as error:
            if schema.clear(self._server, name) or error.gone:
                raise self._dropped(name) from error
            raise

    def _store(self, stored: Stored, kept: list[Record], vectors: list[NDArray[np.float32]]) -> None:
        name = stored.spec.name
        numbers = number_properties(kept)
        if not stored.numbers.issuperset(numbers.values()):
            with self._schema_lock:
                stored = self._stored.put(name, schema.add_numbers(self._server, stored, numbers.values()))
        numbers = {field: prop for field, prop in numbers.items() if prop in stored.numbers}

        self._searcher.written(name)
        objects = [object_id(record.id) for record in kept[-BATCH_WINDOW * BATCH :]]
        for _ in range(SENDS):
            seen = self._server.outages
            self._send(stored, kept, vectors, numbers)
            mend.persist_index_log(self._server, stored, objects)
            if self._server.outages == seen:
                return
            # A server that was killed meanwhile has the objects, but no longer all of the index. Sent again with
            # another stamp, they are indexed again.
        raise Unavailable(
            f"Weaviate at {self._server.address} went away {SENDS} times while records were stored: see its log"
        )

    def _send(
        self, stored: Stored, kept: list[Record], vectors: list[NDArray[np.float32]], numbers: Mapping[str, str]
    ) -> None:
        """Have the server store and index these records; the log of its index may still be in its memory."""

        def requests() -> Iterator[batch_pb2.BatchObjectsRequest]:
            batch: list[batch_pb2.BatchObject] = []
            weight, stamp = 0, new_stamp()
            for record, vector in zip(kept, vectors, strict=True):
                batch.append(object_of(record, vector, stamp, stored.class_name, stored.vector_name, numbers))
                weight += size_bytes(record) + vector.nbytes
                if len(batch) == BATCH or weight > BATCH_BYTES:
                    yield batch_pb2.BatchObjectsRequest(objects=batch)
                    batch, weight = [], 0
            if batch:
                yield batch_pb2.BatchObjectsRequest(objects=batch)

        for attempt in range(1, BUSY_ATTEMPTS + 1):
            refused = [
                error.error
                for reply in self._server.calls("BatchObjects", requests(), window=BATCH_WINDOW, timeout_s=WRITE_S)
                for error in reply.errors
            ]
            if not refused:
                return
            if attempt == BUSY_ATTEMPTS or not all(map(is_busy, refused)):
                raise self._server.refused(f"{len(refused)} records were not stored: {refused[0]}")
            time.sleep(POLL_S)

    def _with_current_words(self, stored: Stored) -> Stored:
        """The collection, the words of its records taken anew where an earlier version wrote them."""
        if not is_outdated(stored.words):
            return stored
        name = stored.spec.name
        with self._schema_lock:
            stored = self._read(name)
            if is_outdated(stored.words):
                log_renewal(f"collection {name!r} in Weaviate")
                pages = self._pages(name, BEFORE_FIRST, self._now)
                read = partial(self._now, name)
                words.take_words_anew(
                    self._server, stored, pages, lambda ids: read(self._reading(object_ids(ids), ids))
                )
                stored = self._read(name)
        return stored

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)
        objects = object_ids(ids)
        if not objects:
            self._read(name)
            return []
        return self._with(name, self._reading(objects, ids, with_vectors=with_vectors))

    def _reading(
        self, objects: list[str], ids: Sequence[str], *, with_vectors: bool = False
    ) -> Callable[[Stored], list[Record]]:
        def read(stored: Stored) -> list[Record]:
            found: dict[str, Record] = {}
            size = _page(stored.spec, BATCH, with_vectors)
            for start in range(0, len(objects), size):
                part = objects[start : start + size]
                request = search_request(stored, vectors=with_vectors, limit=len(part), condition=by_id(part))
                for result in self._server.call("Search", request).results:
                    record = record_of(result, with_vector=with_vectors)
                    found[record.id] = record
            return [found[i] for i in ids if i in found]

        return read

    def _translator(self, stored: Stored) -> Translator:
        def longer(condition: Any) -> list[tuple[str, Any]]:
            request = search_request(stored, limit=MAX_K, condition=condition)
            results = self._server.call("Search", request).results
            if len(results) == MAX_K:
                raise Unsupported(
                    f"{MAX_K:,} or more strings begin with the same 48 bytes as the one to compare with, "
                    "too many for Weaviate to order: compare with a shorter string"
                )
            return [(result.metadata.id, record_of(result, with_vector=False).metadata) for result in results]

        return Translator(stored.numbers, longer)

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        ids = check_selection(ids, where)
        self._searcher.written(name)
        if ids is None:
            return self._with(name, lambda stored: self._delete_where(stored, where))
        objects = object_ids(ids)
        if not objects:
            self._read(name)
            return 0
        parts = [objects[start : start + BATCH] for start in range(0, len(objects), BATCH)]
        return sum(self._with(name, lambda stored, part=part: self._delete(stored, by_id(part))) for part in parts)  # type: ignore[misc]

    def _delete_where(self, stored: Stored, where: Where | None) -> int:
        condition = self._translator(stored).filter(where)
        if condition is False:
            self._read(stored.spec.name)
            return 0
        n = 0
        # One call deletes at most what the server's QUERY_MAXIMUM_RESULTS says, 10,000 unless changed.
        while deleted := self._delete(stored, condition):
            n += deleted
        return n

    def _delete(self, stored: Stored, condition: Any) -> int:
        filters = everything() if condition is True else condition
        request = batch_delete_pb2.BatchDeleteRequest(collection=stored.class_name, filters=filters)
        n = 0
        for _ in range(BUSY_ATTEMPTS):
            reply = self._server.call("BatchDelete", request, timeout_s=WRITE_S, retry=False)
            n += int(reply.successful)
            if not reply.failed:
                return n
            # It does not say why. That it is busy with the class passes.
            time.sleep(POLL_S)
        shards = self._server.rest("GET", f"/schema/{stored.class_name}/shards") or ()
        why = "a shard is read-only" if any(s.get("status") == "READONLY" for s in shards) else "no reason given"
        raise self._server.refused(f"{reply.failed} deletions failed: {why}")

    def count(self, name: str, where: Where | None = None) -> int:
        return self._with(name, lambda stored: self._count(stored, self._translator(stored).filter(where)))

    def _count(self, stored: Stored, condition: Any) -> int:
        if condition is False:
            self._read(stored.spec.name)
            return 0
        return self._searcher.count(stored, condition)

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

        def run(stored: Stored) -> list[list[Hit]]:
            queries = prepare_queries(vectors, stored.spec)
            condition = self._translator(stored).filter(where)
            if condition is False or not len(queries):
                self._read(name)
                return [[] for _ in queries]
            return self._searcher.search(stored, queries, int(k), condition, effort)

        return self._with(name, run)

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        check_search(k, None, self.capabilities)

        def run(stored: Stored) -> list[Hit]:
            condition = self._translator(stored).filter(where)
            if condition is False:
                self._read(name)
                return []
            self._renewals.attempt(name, lambda: self._with_current_words(stored))
            return self._searcher.search_text(self._stored.find(name), query, int(k), condition)

        return self._with(name, run)

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        after = BEFORE_FIRST if cursor is None else check_uuid_cursor(cursor, name)
        self._read(name)
        yield from self._pages(name, after, self._with, int(batch), with_vectors=with_vectors)

    def _pages(
        self, name: str, after: str, within: Callable[..., Any], batch: int = 1000, *, with_vectors: bool = False
    ) -> Iterator[Page]:
        def read(stored: Stored) -> Any:
            limit = _page(stored.spec, batch, with_vectors)
            request = search_request(stored, vectors=with_vectors, limit=limit, after=after)
            return self._server.call("Search", request).results

        while results := within(name, read):
            after = results[-1].metadata.id
            yield Page([record_of(result, with_vector=with_vectors) for result in results], after)

    def flush(self, name: str) -> None:
        """Return when all writes are indexed.

        Records that a crash has left stored but not indexed are indexed, in collections of up to 25,000;
        in larger ones they are when they are upserted again.
        """
        with self._names.of(name).shared():
            stored = self._read(name)
            mend.flush(self._server, stored)
            width = self._searcher.measure(stored)
            if width is not None:
                schema.set_width(self._server, name, width)
                self._read(name)

    def close(self) -> None:
        self._server.close()


def _page(spec: CollectionSpec, wanted: int, with_vectors: bool) -> int:
    """How many records a page may have so that an answer stays below gRPC's limit whatever they hold."""
    row_bytes = RECORD_BYTES + (4 * spec.dim if with_vectors else 0)
    return max(1, min(wanted, PAGE_BYTES // row_bytes))
