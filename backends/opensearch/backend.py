"""Collections as indexes of OpenSearch or Elasticsearch; the classes of the two servers say what differs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.base import (
    MAX_TEXT_BYTES,
    MAX_URI_BYTES,
    Backend,
    BackendError,
    Capabilities,
    CollectionNotFound,
    CollectionSpec,
    DimensionMismatch,
    Hit,
    Page,
    Record,
    Unsupported,
    Where,
    prepare_queries,
    prepare_records,
)
from backends.checks import MAX_METADATA_BYTES, check_batch, check_ids, check_index, check_search, check_selection
from backends.errors import Denied
from backends.kit.current import Remembered, on_current
from backends.kit.json_text import encode
from backends.kit.record_ids import storable_ids
from backends.kit.words import Renewals, is_outdated, log_renewal
from backends.opensearch import schema
from backends.opensearch.connection import LuceneServer, ServerRefused
from backends.opensearch.dialect import Dialect
from backends.opensearch.filters import MAX_TERMS, Translator
from backends.opensearch.records import BYTES, ID, VECTOR, document_of, record_of, vector_json
from backends.opensearch.schema import Stored
from backends.opensearch.search import MAX_K, Searcher
from backends.text import WORDS_VERSION

T = TypeVar("T")
BATCH, BATCH_BYTES = 500, 8 << 20
DELETED_AT_ONCE, DELETE_ROUNDS = 5_000, 100
# A record without its vector has at most this much, and a page this much of them.
RECORD_BYTES, PAGE_BYTES = MAX_TEXT_BYTES + MAX_URI_BYTES + MAX_METADATA_BYTES + 4096, 64 << 20

CAPABILITIES = Capabilities(
    keyword=True,
    persistent=True,
    server=True,
    concurrent_writers=True,
    effort=True,
    index_kinds=frozenset({"auto", "flat", "hnsw"}),
    quantizations=frozenset({"none", "int8"}),
    max_k=MAX_K,
)


class LuceneBackend(Backend):
    """Records in indexes on Lucene, searched by its graphs and its BM25."""

    dialect: ClassVar[Dialect]

    def __init__(self, server: LuceneServer) -> None:
        self._server = server
        self._stored = Remembered(partial(schema.read, server))
        self._searcher = Searcher(server, self.dialect)
        self._renewing = threading.Lock()
        self._renewals = Renewals(self.dialect.product.name, (Denied,))

    @classmethod
    def connect(cls, url: str) -> Self:
        """Reach the server that `url` names. Raises `Unavailable` with the address and what to start."""
        return cls(cls.dialect.connect(url))

    def collections(self) -> list[str]:
        return schema.list_all(self._server)

    def describe(self, name: str) -> CollectionSpec:
        return self._read(name).spec

    def _read(self, name: str) -> Stored:
        """The collection as the server has it now."""
        return self._stored.now(name)

    def _with(self, name: str, task: Callable[[Stored], T]) -> T:
        """Do `task` with what is known of the collection; if that is out of date, again with the truth."""
        self._server.check_open()
        return on_current(name, self._server.address, lambda: self._stored.find(name), task, self._is_stale)

    def _is_stale(self, known: Stored, error: Exception) -> bool:
        if isinstance(error, DimensionMismatch) or (isinstance(error, ServerRefused) and error.gone):
            return self._read(known.spec.name).alias != known.alias
        return False

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, self.dialect.product.name)
        schema.create(self._server, self.dialect, spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        schema.set_encoder(self._server, name, fingerprint)
        self._stored.forget(name)

    def drop(self, name: str) -> None:
        self._stored.forget(name)
        schema.drop(self._server, name)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        stored = self._read(name)
        kept, vectors = prepare_records(records, stored.spec)
        if not kept:
            return
        try:
            self._with_current_words(stored)
            for lines in _requests(kept, vectors):
                self._server.bulk(stored.alias, lines)
            self._server.refresh(stored.alias)
        except ServerRefused as error:
            raise self._dropped(name, error) from error

    def _with_current_words(self, stored: Stored) -> None:
        """Take the words of its records anew where an earlier version wrote them."""
        if not is_outdated(stored.words):
            return
        with self._renewing:
            stored = self._read(stored.spec.name)
            if not is_outdated(stored.words):
                return
            log_renewal(f"collection {stored.spec.name!r} in {self.dialect.product.name}")
            after = None
            while hits := next(
                self._pages(stored, {"match_all": {}}, BATCH, {"seq_no_primary_term": True}, after), None
            ):
                # What others replace meanwhile is in the same page once more.
                if self._server.bulk(stored.alias, [_rewritten(hit) for hit in hits]) == len(hits):
                    after = hits[-1]["sort"][0]
                self._server.refresh(stored.alias)
            # As it is now: others may have set another encoder meanwhile, or made the collection anew.
            current = self._read(stored.spec.name)
            if current.alias == stored.alias:
                schema.write(self._server, replace(current, words=WORDS_VERSION))
                self._read(stored.spec.name)

    def _dropped(self, name: str, error: ServerRefused) -> Exception:
        if not error.gone:
            return error
        self._stored.forget(name)
        return CollectionNotFound(f"collection {name!r} in {self._server.address} was dropped meanwhile")

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)
        wanted = storable_ids(ids)
        if not wanted:
            self._read(name)
            return []

        def read(stored: Stored) -> list[Record]:
            size = _page(stored.spec, BATCH, with_vectors=with_vectors)
            found: dict[str, Record] = {}
            for start in range(0, len(wanted), size):
                for source in self._server.sources(stored.alias, wanted[start : start + size], _left_out(with_vectors)):
                    record = record_of(source, with_vector=with_vectors)
                    found[record.id] = record
            return [found[i] for i in ids if i in found]

        return self._with(name, read)

    def _query(self, stored: Stored, where: Where | None) -> dict[str, Any] | bool:
        """The filter as a query, True or False."""

        def matching(query: dict[str, Any]) -> list[str]:
            found: list[str] = []
            for hits in self._pages(stored, query, MAX_K, {"_source": False, "docvalue_fields": [ID]}):
                found += [hit["fields"][ID][0] for hit in hits]
                if len(found) > MAX_TERMS:
                    raise Unsupported(
                        f"{self.dialect.product.name} takes fewer comparisons in one filter, and a part of this one "
                        f"matches more than {MAX_TERMS:,} records: put several values of one field into one $in"
                    )
            return found

        return Translator(matching).query(where)

    def _pages(
        self, stored: Stored, query: dict[str, Any], size: int, fields: dict[str, Any], after: str | None = None
    ) -> Iterator[list[Any]]:
        """The documents that match, by their ids, in pages."""
        while True:
            body = {"query": {"bool": {"filter": [query]}}, "sort": [ID], "size": size, "track_total_hits": False}
            body |= fields if after is None else {**fields, "search_after": [after]}
            (answer,) = self._server.searches(stored.alias, [body])
            hits = answer["hits"]["hits"]
            if not hits:
                return
            yield hits
            after = hits[-1]["sort"][0]

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        ids = check_selection(ids, where)
        if ids is None:
            return self._with(name, lambda stored: self._delete_where(stored, where))
        wanted = storable_ids(ids)
        if not wanted:
            self._read(name)
            return 0

        def remove(stored: Stored) -> int:
            n = 0
            for start in range(0, len(wanted), DELETED_AT_ONCE):
                n += self._delete(stored, [{"_id": i} for i in wanted[start : start + DELETED_AT_ONCE]])
            return n

        return self._with(name, remove)

    def _delete_where(self, stored: Stored, where: Where | None) -> int:
        """Delete what matches, in the version that was seen: what is replaced meanwhile is looked at again.

        By their ids, as not every server has the module that deletes by a query.
        """
        query = self._query(stored, where)
        if query is False:
            self._read(stored.spec.name)
            return 0
        body = {
            "query": {"bool": {"filter": [query]}},
            "size": DELETED_AT_ONCE,
            "track_total_hits": False,
            "_source": False,
            "seq_no_primary_term": True,
        }
        n = 0
        for _ in range(DELETE_ROUNDS):
            while True:
                (answer,) = self._server.searches(stored.alias, [body])
                hits = answer["hits"]["hits"]
                if not hits:
                    return n
                actions = [
                    {"_id": h["_id"], "if_seq_no": h["_seq_no"], "if_primary_term": h["_primary_term"]} for h in hits
                ]
                removed = self._delete(stored, actions)
                n += removed
                if not removed:
                    break
            time.sleep(0.05)
        raise BackendError(
            f"records of collection {stored.spec.name!r} in {self._server.address} are replaced faster than they can "
            "be deleted: delete again when others write less"
        )

    def _delete(self, stored: Stored, actions: Sequence[dict[str, Any]]) -> int:
        lines = [json.dumps({"delete": action}, ensure_ascii=False).encode() + b"\n" for action in actions]
        removed = self._server.bulk(stored.alias, lines)
        self._server.refresh(stored.alias)
        return removed

    def count(self, name: str, where: Where | None = None) -> int:
        def run(stored: Stored) -> int:
            query = self._query(stored, where)
            if query is False:
                self._read(name)
                return 0
            return self._searcher.count(stored, query)

        return self._with(name, run)

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
            condition = self._query(stored, where)
            if condition is False or not len(queries):
                self._read(name)
                return [[] for _ in queries]
            return self._searcher.search(stored, queries, int(k), condition, effort)

        return self._with(name, run)

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        check_search(k, None, self.capabilities)

        def run(stored: Stored) -> list[Hit]:
            condition = self._query(stored, where)
            if condition is False:
                self._read(name)
                return []
            self._renewals.attempt(name, lambda: self._with_current_words(stored))
            return self._searcher.search_text(stored, query, int(k), condition)

        return self._with(name, run)

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        self._read(name)

        def read(stored: Stored) -> list[Any]:
            size = _page(stored.spec, int(batch), with_vectors=with_vectors)
            fields = {"_source": {"excludes": list(_left_out(with_vectors))}}
            return next(self._pages(stored, {"match_all": {}}, size, fields, cursor), [])

        while hits := self._with(name, read):
            cursor = hits[-1]["sort"][0]
            yield Page([record_of(hit["_source"], with_vector=with_vectors) for hit in hits], cursor)

    def flush(self, name: str) -> None:
        """Return when all writes are on disk and searched, and segments with many deleted records are written anew."""
        stored = self._read(name)
        try:
            self._server.refresh(stored.alias)
            self._server.call("POST", f"/{stored.alias}/_flush")
            self._server.call("POST", f"/{stored.alias}/_forcemerge", only_expunge_deletes="true")
            width = self._searcher.measure(stored)
            if width is not None:
                # That took a while: what others have said of it since stays.
                now = self._read(name)
                if now.alias == stored.alias:
                    schema.write(self._server, replace(now, width=width))
                self._stored.forget(name)
        except ServerRefused as error:
            raise self._dropped(name, error) from error

    def close(self) -> None:
        self._server.close()


def _left_out(with_vectors: bool) -> Sequence[str]:
    return () if with_vectors else (BYTES,)


def _page(spec: CollectionSpec, wanted: int, *, with_vectors: bool) -> int:
    """How many records a page may have so that an answer is never too large for the server."""
    row_bytes = RECORD_BYTES + (6 * spec.dim if with_vectors else 0)
    return max(1, min(wanted, MAX_K, PAGE_BYTES // row_bytes))


def _lines(action: dict[str, Any], record: Record, vector: NDArray[np.float32]) -> bytes:
    """An action of a bulk request that stores a record."""
    document = encode(document_of(record, vector))
    if vector.size:
        document = f'{document[:-1]},"{VECTOR}":{vector_json(vector)}}}'
    return f"{encode({'index': action})}\n{document}\n".encode()


def _rewritten(hit: Any) -> bytes:
    """The action that stores a document as it would be written now, unless it has been replaced."""
    record = record_of(hit["_source"], with_vector=True)
    assert record.vector is not None
    action = {"_id": hit["_id"], "if_seq_no": hit["_seq_no"], "if_primary_term": hit["_primary_term"]}
    return _lines(action, record, record.vector)


def _requests(kept: list[Record], vectors: list[NDArray[np.float32]]) -> Iterator[list[bytes]]:
    """The actions that store these records, in requests of a bounded size."""
    batch: list[bytes] = []
    weight = 0
    for record, vector in zip(kept, vectors, strict=True):
        batch.append(_lines({"_id": record.id}, record, vector))
        weight += len(batch[-1])
        if len(batch) == BATCH or weight > BATCH_BYTES:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch
