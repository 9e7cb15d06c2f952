"""VikingDB of Volcengine as a backend, over its HTTP interfaces alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.base import (
    Backend,
    Capabilities,
    CollectionSpec,
    Hit,
    Page,
    Record,
    Unsupported,
    Where,
    prepare_queries,
    prepare_records,
)
from backends.checks import check_batch, check_ids, check_index, check_search, check_selection
from backends.errors import BackendError, DimensionMismatch
from backends.kit.current import Remembered, on_current
from backends.kit.record_ids import storable_ids
from backends.kit.scores import best_first
from backends.kit.ties import search_with_ties
from backends.locks import NameLocks
from backends.vikingdb import schema
from backends.vikingdb.connection import Refused, VikingServer
from backends.vikingdb.filters import Translator, all_of, one_of
from backends.vikingdb.records import (
    BODY,
    HAS,
    HAS_VECTOR,
    ID,
    META_KEY,
    PART,
    PARTS,
    RECORD,
    STAMP,
    key_of,
    new_stamp,
    padded,
    part_keys,
    position_of,
    record_of,
    row_of,
    stamp_ns,
    vector_of,
)
from backends.vikingdb.rows import MAX_LIMIT, Row, Rows, batches
from backends.vikingdb.schema import Stored

T = TypeVar("T")
AT_ONCE = 4
#: Parts of a write that has not ended after this time are of one that was interrupted.
ABANDONED_NS = 3600 * 10**9
STALE_S = 0.02


class _MadeAnew(BackendError):
    """Another collection has the name by now; what was written for the earlier one says nothing of it."""


class VikingBackend(Backend):
    """Records in VikingDB, searched by its flat index.

    URL: ``vikingdb://HOST[:443][?region=&project=default&console=HOST&https=true&timeout=10]``. The key is in
    SIGHTLINE_VIKINGDB_API_KEY, or SIGHTLINE_VIKINGDB_ACCESS_KEY and SIGHTLINE_VIKINGDB_SECRET_KEY sign each call, which
    making, listing and dropping collections asks for. What was written is seen when a call returns, since it waits for
    the index.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=False,
        persistent=True,
        server=True,
        concurrent_writers=True,
        effort=False,
        metrics=frozenset({"cosine", "dot"}),
        string_order=False,
        index_kinds=frozenset({"auto", "flat"}),
        max_k=MAX_LIMIT,
    )

    def __init__(self, server: VikingServer) -> None:
        self._server = server
        self._stored = Remembered(partial(schema.read, server))
        self._names = NameLocks()
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    @classmethod
    def connect(cls, url: str) -> Self:
        """Reach the service that `url` names. Raises `Unavailable`, or `Denied` where the key is refused."""
        return cls(VikingServer.connect(url))

    def collections(self) -> list[str]:
        return schema.list_all(self._server)

    def describe(self, name: str) -> CollectionSpec:
        return self._read(name).spec

    def _read(self, name: str) -> Stored:
        """The collection as VikingDB has it now."""
        self._server.check_open()
        return self._stored.now(name)

    def _with(self, name: str, task: Callable[[Stored], T]) -> T:
        """Do `task` with what is known of the collection; if that is out of date, again with the truth."""
        with self._names.of(name).shared():
            self._server.check_open()
            return on_current(name, self._server.address, lambda: self._stored.find(name), task, self._is_stale)

    def _on_current(self, name: str, task: Callable[[Stored], T]) -> T:
        """The same for what writes: the collection is asked for anew, as one of another length may have its name."""
        with self._names.of(name).shared():
            return on_current(name, self._server.address, lambda: self._read(name), task, self._is_stale)

    def _is_stale(self, known: Stored, error: Exception) -> bool:
        if isinstance(error, _MadeAnew):
            return True
        if not isinstance(error, (Refused, DimensionMismatch)):
            return False
        if self._read(known.spec.name) != known:
            return True
        if gone := isinstance(error, Refused) and error.missing:
            time.sleep(STALE_S)
        return gone

    def _each(self, task: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        """The task on each of the items, a few at a time, since most of it is waiting for the network."""
        if len(items) < 2:
            return [task(item) for item in items]
        with self._lock:
            self._server.check_open()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(AT_ONCE, "sightline-vikingdb")
            threads = self._threads
        try:
            return list(threads.map(task, items))
        except (RuntimeError, CancelledError):
            # Another thread may have closed it meanwhile.
            self._server.check_open()
            raise

    def create(self, spec: CollectionSpec) -> None:
        self._server.check_open()
        check_index(spec, self.capabilities, "VikingDB")
        with self._names.of(spec.name).alone():
            schema.create(self._server, spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        def change(stored: Stored) -> None:
            # What no spec could have is refused before it is stored.
            spec = replace(stored.spec, encoder=fingerprint)
            schema.set_encoder(stored, spec.encoder)
            if self._read(name).rows != stored.rows:
                raise _MadeAnew(f"collection {name!r} in {self._server.address} was made anew")

        self._on_current(name, change)

    def drop(self, name: str) -> None:
        self._server.check_open()
        with self._names.of(name).alone():
            self._stored.forget(name)
            schema.drop(self._server, name)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        given = list(records)
        self._on_current(name, lambda stored: self._write(stored, given))

    def _write(self, stored: Stored, given: Sequence[Record]) -> None:
        kept, vectors = prepare_records(given, stored.spec)
        stamp, dim = new_stamp(), stored.spec.dim
        made = [row_of(record, vector, dim, stamp) for record, vector in zip(kept, vectors, strict=True)]
        for rows in ([part for each in made for part in each[:-1]], [each[-1] for each in made]):
            self._each(stored.rows.upsert, [*batches(rows)])
        written = [each[-1][ID] for each in made]
        # Where another collection of this name was made meanwhile, it has no index of that name.
        self._each(stored.rows.wait_visible, [dict.fromkeys(part, stamp) for part in batches(written)])

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        wanted = check_ids(ids)
        keys = {record_id: key_of(record_id) for record_id in storable_ids(wanted)}
        with self._names.of(name).shared():
            self._server.check_open()
            rows = Rows(self._server, name, schema.stored_name(name), "")
            parts = self._each(rows.fetch, [*batches([META_KEY, *keys.values()])])
            found = {row[ID]: row for part in parts for row in part}
            about = next(iter(rows.whole([found.pop(META_KEY)])), None) if META_KEY in found else None
            if about is None:
                raise self._server.not_found(name)
            stored = schema.parse(self._server, name, about[BODY])
            records = {r.id: r for r in self._records(stored, [*found.values()], with_vectors)}
        return [records[record_id] for record_id in wanted if record_id in records]

    @staticmethod
    def _records(stored: Stored, rows: Sequence[Row], with_vectors: bool) -> list[Record]:
        dim, found = stored.spec.dim, stored.rows.whole(rows)
        if not with_vectors:
            return [record_of(row[BODY], None) for row in found]
        return [
            record_of(row[BODY], vector_of(row, HAS_VECTOR in row[HAS], dim)) for row in stored.rows.with_vectors(found)
        ]

    def _condition(self, stored: Stored, where: Where | None, marker: str = RECORD) -> dict[str, Any] | None:
        """The condition for the records that match, None where none can."""
        found = Translator(lambda keywords: stored.rows.count(one_of(keywords)) > 0).condition(where)
        if found is False:
            return None
        return one_of([marker]) if found is True else all_of(one_of([marker]), found)

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        chosen = check_selection(ids, where)
        if chosen is None:
            return self._with(name, lambda stored: self._delete_where(stored, where))
        keys = [key_of(record_id) for record_id in storable_ids(chosen)]

        def remove(stored: Stored) -> int:
            if not keys:
                self._read(name)
                return 0
            return self._remove(stored, chain.from_iterable(self._each(stored.rows.fetch, [*batches(keys)])))

        return self._with(name, remove)

    def _delete_where(self, stored: Stored, where: Where | None) -> int:
        condition = self._condition(stored, where)
        if condition is None:
            self._read(stored.spec.name)
            return 0
        return self._remove(stored, stored.rows.matching(condition))

    def _remove(self, stored: Stored, found: Iterable[Row]) -> int:
        doomed = list(found)
        parts = [key for row in doomed for key in part_keys(row[ID], row[STAMP], row[PARTS])]
        keys = [row[ID] for row in doomed]
        self._each(stored.rows.delete, [*batches(keys)])
        self._each(stored.rows.wait_visible, [dict.fromkeys(part) for part in batches(keys)])
        self._each(stored.rows.delete, [*batches(parts)])
        return len(keys)

    def count(self, name: str, where: Where | None = None) -> int:
        def run(stored: Stored) -> int:
            condition = self._condition(stored, where)
            if condition is None:
                self._read(name)
                return 0
            return stored.rows.count(condition)

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
            condition = self._condition(stored, where, HAS_VECTOR)
            if condition is None or not len(queries):
                self._read(name)
                return [[] for _ in queries]
            return self._search(stored, queries, int(k), condition)

        return self._with(name, run)

    def _search(
        self, stored: Stored, queries: NDArray[np.float32], k: int, condition: dict[str, Any]
    ) -> list[list[Hit]]:
        asked = [padded(query, stored.spec.dim) for query in queries]

        def ask(rows: list[int], limit: int) -> list[list[tuple[float, Row]]]:
            answers = self._each(lambda row: stored.rows.nearest(asked[row], condition, limit), rows)
            if stored.spec.metric != "cosine":
                return answers
            # The sum over a unit vector may be a little more than 1.
            return [[(min(1.0, max(-1.0, score)), row) for score, row in answer] for answer in answers]

        found = search_with_ties(ask, len(asked), k, lambda one, other: one[0] == other[0], most=MAX_LIMIT)
        return [best_first((_hit(score, row) for score, row in answer), k) for answer in found]

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        raise Unsupported("vikingdb:// has no keyword search by our words: use sightline's keyword index beside it")

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        after = None if cursor is None else (position_of(cursor), cursor)
        self._read(name)
        size = min(int(batch), 1000)
        while page := self._with(name, lambda stored, after=after: self._scanned(stored, after, size, with_vectors)):  # type: ignore[misc]
            records, last = page
            after = position_of(last), last
            if records:
                yield Page(records, last)

    def _scanned(
        self, stored: Stored, after: tuple[int, str] | None, size: int, with_vectors: bool
    ) -> tuple[list[Record], str] | None:
        """The records after a position, some of which may be gone already, and the last one's key; None at the end."""
        rows = stored.rows.by_position(one_of([RECORD]), size, after)
        if not rows:
            return None
        last = str(rows[-1][ID])
        if with_vectors:
            fetched = self._each(stored.rows.fetch, [*batches([row[ID] for row in rows])])
            rows = [row for part in fetched for row in part]
        return self._records(stored, rows, with_vectors), last

    def flush(self, name: str) -> None:
        """Remove what interrupted and replaced writes have left of long texts; nothing else waits to be indexed."""
        self._with(name, self._remove_abandoned)

    def _remove_abandoned(self, stored: Stored) -> None:
        self._read(stored.spec.name)
        for page in batches(list(stored.rows.matching(one_of([PART])))):
            owners = {row[ID]: row[ID][1:].partition(".")[0] for row in page}
            stamps = {row[ID]: row[STAMP] for row in stored.rows.fetch([*owners.values()])}
            done = time.time_ns() - ABANDONED_NS
            lost = [
                row[ID] for row in page if stamps.get(owners[row[ID]]) != row[STAMP] and stamp_ns(row[STAMP]) < done
            ]
            stored.rows.delete(lost)

    def close(self) -> None:
        self._server.close()
        with self._lock:
            if self._threads is not None:
                self._threads.shutdown(cancel_futures=True)
                self._threads = None


def _hit(score: float, row: Row) -> Hit:
    record = record_of(row[BODY], None)
    return Hit(record.id, score, record.modality, record.text, record.uri, record.metadata, exact=True)
