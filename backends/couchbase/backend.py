"""Couchbase Server as a backend, over its HTTP interfaces alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.base import (
    Backend,
    Capabilities,
    CollectionNotFound,
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
from backends.couchbase import schema
from backends.couchbase.connection import CouchbaseServer, Refused
from backends.couchbase.filters import Condition
from backends.couchbase.records import COLUMNS, document_of, key_of, record_of
from backends.couchbase.schema import Stored
from backends.errors import DimensionMismatch
from backends.kit.current import on_current
from backends.kit.record_ids import storable_ids
from backends.kit.scores import best_first

T = TypeVar("T")
# How long another process's flush or drop may go unnoticed; neither makes an answer wrong.
_KNOWN_S = 2.0
# Below this an exact scan is quick, and a vector index needs documents to be made of.
_AUTO_INDEX_ROWS = 10_000
_LEAST_INDEXED = 1_000
_BATCH_BYTES = 8 << 20
# Of one answer, and of one transaction that deletes.
_PAGE, _PAGE_BYTES, _NUMBER_BYTES = 1_000, 96 << 20, 22
_DELETED = 5_000
DEFAULT_EFFORT = 0.5


class CouchbaseBackend(Backend):
    """Documents in the scope ``sightline`` of a bucket, a collection each.

    URL: ``couchbase://USER[:PASSWORD]@HOST[:8091]/BUCKET[?https=true&query_port=8093&timeout=10]``. The password may be
    in SIGHTLINE_COUCHBASE_PASSWORD. A batch of writes is a transaction, on the disks of a majority when it returns.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=False,
        persistent=True,
        server=True,
        concurrent_writers=True,
        effort=True,
        index_kinds=frozenset({"auto", "flat", "ivf"}),
    )

    def __init__(self, server: CouchbaseServer) -> None:
        self._server = server
        self._known: dict[str, tuple[float, Stored]] = {}

    @classmethod
    def connect(cls, url: str) -> Self:
        """Reach the bucket that `url` names. Raises `Unavailable`, or `Denied` where the password is wrong."""
        server = CouchbaseServer(url)
        try:
            schema.prepare(server)
        except BaseException:
            server.close()
            raise
        return cls(server)

    def _find(self, name: str, *, fresh: bool = False) -> Stored:
        self._server.check_open()
        known = self._known.get(name)
        if known is not None and not fresh and time.monotonic() - known[0] < _KNOWN_S:
            return known[1]
        self._known.pop(name, None)
        stored = schema.read(self._server, name)
        self._known[name] = (time.monotonic(), stored)
        return stored

    def _with(self, name: str, task: Callable[[Stored], T]) -> T:
        """Do `task` with what is known of the collection; if that is out of date, again with the truth."""

        def is_stale(known: Stored, error: Exception) -> bool:
            if not (isinstance(error, DimensionMismatch) or (isinstance(error, Refused) and error.missing)):
                return False
            return self._find(name, fresh=True).keyspace != known.keyspace

        try:
            return on_current(name, self._server.address, lambda: self._find(name), task, is_stale)
        except Refused as error:
            if error.missing:
                self._known.pop(name, None)
                raise CollectionNotFound(f"collection {name!r} in {self._server.address} was dropped") from error
            raise

    def _ask(self, stored: Stored, statement: str, values: dict[str, object]) -> list[dict[str, Any]]:
        """The rows of a statement in which KEYSPACE stands for the collection's."""
        return self._server.query(statement.replace("KEYSPACE", self._server.keyspace(stored.keyspace), 1), values)

    def _change(self, stored: Stored, statement: str, values: dict[str, object]) -> list[dict[str, Any]]:
        text = statement.replace("KEYSPACE", self._server.keyspace(stored.keyspace), 1)
        return self._server.query(text, values, writes=True)

    def collections(self) -> list[str]:
        return schema.list_all(self._server)

    def describe(self, name: str) -> CollectionSpec:
        return self._find(name, fresh=True).spec

    def create(self, spec: CollectionSpec) -> None:
        self._server.check_open()
        check_index(spec, self.capabilities, "Couchbase")
        schema.create(self._server, spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        stored = self._find(name, fresh=True)
        if not schema.set_encoder(self._server, stored, fingerprint):
            raise CollectionNotFound(f"collection {name!r} in {self._server.address} was dropped")
        self._known.pop(name, None)

    def drop(self, name: str) -> None:
        self._server.check_open()
        self._known.pop(name, None)
        schema.drop(self._server, name)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        given = list(records)

        def write(stored: Stored) -> None:
            kept, vectors = prepare_records(given, stored.spec)
            for rows in _batches(kept, vectors):
                self._change(
                    stored, "UPSERT INTO KEYSPACE (KEY k, VALUE d) SELECT r.k, r.d FROM $rows AS r", {"rows": rows}
                )

        # Documents go to whatever has the keyspace, so a collection made anew meanwhile must be seen first.
        self._find(name, fresh=True)
        self._with(name, write)

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        wanted = check_ids(ids)
        keys = [key_of(record_id) for record_id in storable_ids(wanted)]

        def read(stored: Stored) -> dict[str, Record]:
            columns = f"{COLUMNS}, d.v" if with_vectors else COLUMNS
            statement, found = f"SELECT {columns} FROM KEYSPACE AS d USE KEYS $keys", {}  # noqa: S608
            for some in _parts(keys, _page(stored, with_vectors=with_vectors)):
                for row in self._ask(stored, statement, {"keys": some}):
                    record = record_of(row, with_vector=with_vectors)
                    found[record.id] = record
            return found

        found = self._with(name, read)
        return [found[record_id] for record_id in wanted if record_id in found]

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        chosen = check_selection(ids, where)
        condition = Condition(where)

        def remove(stored: Stored) -> int:
            if chosen is None:
                statement = f"DELETE FROM KEYSPACE AS d WHERE {condition.text} LIMIT {_DELETED} RETURNING d.id"  # noqa: S608
                total, gone = 0, _DELETED
                while gone == _DELETED:
                    gone = len(self._change(stored, statement, condition.values))
                    total += gone
                return total
            statement = "DELETE FROM KEYSPACE AS d USE KEYS $keys RETURNING d.id"
            keys = [key_of(record_id) for record_id in storable_ids(chosen)]
            return sum(len(self._change(stored, statement, {"keys": some})) for some in _parts(keys, _DELETED))

        return self._with(name, remove)

    def count(self, name: str, where: Where | None = None) -> int:
        condition = Condition(where)
        statement = f"SELECT COUNT(*) AS n FROM KEYSPACE AS d WHERE {condition.text}"  # noqa: S608
        return self._with(name, lambda stored: int(self._ask(stored, statement, condition.values)[0]["n"]))

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
        condition = Condition(where)

        def run(stored: Stored) -> list[list[Hit]]:
            queries = prepare_queries(vectors, stored.spec)
            if not len(queries):
                return []
            # What an index loses under a filter nobody has measured here, so filters are scanned.
            by_index = stored.indexed and where is None and effort != 1
            return [self._nearest(stored, query, int(k), condition, effort if by_index else 1.0) for query in queries]

        return self._with(name, run)

    def _nearest(
        self, stored: Stored, query: NDArray[np.float32], k: int, condition: Condition, effort: float | None
    ) -> list[Hit]:
        values = {**condition.values, "q": query.tolist()}
        measure = f'VECTOR_DISTANCE(d.v, $q, "{stored.similarity}")'
        if effort != 1.0:
            probes = max(1, round(64 * (effort or DEFAULT_EFFORT) ** 2))
            near = f'APPROX_VECTOR_DISTANCE(d.v, $q, "{stored.similarity}", {probes}, TRUE)'
            statement = f"SELECT {COLUMNS}, {measure} AS distance FROM KEYSPACE AS d ORDER BY {near} LIMIT {k}"  # noqa: S608
            rows = self._ask(stored, statement, {"q": values["q"]})
            # Without its index, which others can drop, this is a scan in which what has no vector comes first.
            if len(rows) == k and all(row.get("distance") is not None for row in rows):
                return best_first((self._hit(stored, row, exact=False) for row in rows), k)
        rows = self._ask(
            stored,
            f"SELECT {COLUMNS}, {measure} AS distance FROM KEYSPACE AS d "  # noqa: S608
            f"WHERE {condition.text} AND d.v IS NOT MISSING ORDER BY distance, d.id LIMIT {k}",
            values,
        )
        return best_first((self._hit(stored, row, exact=True) for row in rows), k)

    @staticmethod
    def _hit(stored: Stored, row: dict[str, Any], *, exact: bool) -> Hit:
        record = record_of(row, with_vector=False)
        distance = float(row["distance"])
        score = min(1.0, max(-1.0, 1.0 - distance)) if stored.spec.metric == "cosine" else 0.0 - distance
        return Hit(record.id, score, record.modality, record.text, record.uri, record.metadata, exact)

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        raise Unsupported("couchbase:// has no keyword search by our words: use sightline's keyword index beside it")

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        after = cursor or ""
        columns = f"{COLUMNS}, d.v" if with_vectors else COLUMNS

        def read(stored: Stored) -> list[dict[str, Any]]:
            limit = min(int(batch), _page(stored, with_vectors=with_vectors))
            statement = (
                f"SELECT META(d).id AS k, {columns} FROM KEYSPACE AS d WHERE META(d).id > $after "  # noqa: S608
                f"ORDER BY META(d).id LIMIT {limit}"
            )
            return self._ask(stored, statement, {"after": after})

        while rows := self._with(name, read):
            after = rows[-1]["k"]
            yield Page([record_of(row, with_vector=with_vectors) for row in rows], after)

    def flush(self, name: str) -> None:
        def work(_: Stored) -> None:
            stored = self._find(name, fresh=True)
            rows = self._ask(stored, "SELECT COUNT(*) AS n FROM KEYSPACE AS d WHERE d.v IS NOT MISSING", {})[0]["n"]
            least = _LEAST_INDEXED if stored.spec.index.kind == "ivf" else _AUTO_INDEX_ROWS
            if stored.wants_index and not stored.indexed and rows >= least:
                schema.build(self._server, stored)
                self._find(name, fresh=True)

        self._with(name, work)

    def close(self) -> None:
        self._server.close()
        self._known.clear()


def _page(stored: Stored, *, with_vectors: bool) -> int:
    """How many records are read at once: an answer of more bytes would be refused."""
    return max(1, min(_PAGE, _PAGE_BYTES // (_NUMBER_BYTES * stored.spec.dim))) if with_vectors else _PAGE


def _parts(keys: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The keys, `size` at a time; none of them once, so that the collection is asked for."""
    for start in range(0, max(1, len(keys)), size):
        yield keys[start : start + size]


def _batches(records: Sequence[Record], vectors: Sequence[NDArray[np.float32]]) -> Iterator[list[dict[str, object]]]:
    """The rows of an upsert, some megabytes at a time."""
    rows: list[dict[str, object]] = []
    size = 0
    for record, vector in zip(records, vectors, strict=True):
        document = document_of(record, vector)
        rows.append({"k": key_of(record.id), "d": document})
        # A number takes some 20 characters; a character is up to 4 bytes, and metadata are there twice.
        size += 20 * vector.size + 4 * len(record.text or "") + 8 * len(str(document["body"])) + 500
        if size > _BATCH_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
