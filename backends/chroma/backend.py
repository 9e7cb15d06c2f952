"""``chroma://host:8000``, a Chroma server, and ``chroma-embedded:///dir``, the same engine in process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from backends.base import (
    Backend,
    Capabilities,
    CollectionSpec,
    Hit,
    Page,
    Record,
    Unsupported,
    Where,
    matches,
    prepare_queries,
    prepare_records,
)
from backends.checks import check_batch, check_ids, check_index, check_search, check_selection
from backends.chroma.connection import Connection
from backends.chroma.filters import Condition, TooLarge, Translator, has
from backends.chroma.records import RECORD, Floats, Row, batches, is_bare, kind_token, record_of, rows_of
from backends.chroma.schema import Collections, Handle
from backends.chroma.search import HITS_PER_CALL, compare, search
from backends.kit.current import on_current
from backends.kit.record_ids import storable_ids
from backends.registry import canonical
from backends.urls import parse_folder_url

T = TypeVar("T")

IDS_PER_CALL = 1_000
PAGE_BYTES = 8 << 20
IDS_ONLY: list[str] = []


@dataclass(frozen=True, slots=True)
class Selection:
    """What a filter selects: what Chroma's own filter does, None for everything, or the records of these ids.

    `searched` are those of the ids that have a vector.
    """

    where: Condition | None = None
    ids: list[str] | None = None
    searched: list[str] | None = None


class ChromaStore(Backend):
    """The protocol over a `Connection`; subclasses say how to connect."""

    capabilities: ClassVar[Capabilities]

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._collections = Collections(connection)
        try:
            self._most = int(connection.read(lambda client: client.get_max_batch_size()))
        except BaseException:
            connection.close()
            raise

    # Collections

    def collections(self) -> list[str]:
        return self._collections.names()

    def describe(self, name: str) -> CollectionSpec:
        return self._collections.find_now(name).spec

    def create(self, spec: CollectionSpec) -> None:
        self._connection.check_open()
        check_index(spec, self.capabilities, "Chroma")
        self._collections.create(spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        self._collections.set_encoder(name, fingerprint)

    def drop(self, name: str) -> None:
        self._collections.drop(name)

    def _on(self, name: str, task: Callable[[Handle], T]) -> T:
        """Do the task on the collection that is there now: others may drop it and make it anew."""

        def is_stale(at: Handle, error: Exception) -> bool:
            gone = self._collections.is_gone(at, error)
            self._collections.forget(name)
            return gone

        return on_current(name, self._connection.place, lambda: self._collections.find(name), task, is_stale)

    # Records

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        given = list(records)

        def task(at: Handle) -> None:
            kept, vectors = prepare_records(given, at.spec)
            with at.writer:
                for batch in batches(rows_of(kept, vectors, at.spec.dim), self._most):
                    self._store(at, batch)

        self._on(name, task)

    def _store(self, at: Handle, batch: list[Row]) -> None:
        """Upsert records, without those keys of what they replace that they have not."""
        # Once for the log, once for the graph, and as much again for metadata and what is written anew.
        self._connection.check_room(4 * sum(vector.nbytes + 3 * len(row[RECORD]) for _, vector, row in batch))
        ids = [record_id for record_id, _, _ in batch]
        there = self._get(at, ids=ids, include=["metadatas"])
        old = dict(zip(there["ids"], there["metadatas"], strict=True))
        metadatas = [dict.fromkeys(old.get(i) or ()) | row if i in old else row for i, _, row in batch]
        with self._connection.calling(at.spec.name):
            at.stored.upsert(ids=ids, embeddings=[vector for _, vector, _ in batch], metadatas=metadatas)

    def _get(self, at: Handle, **asked: Any) -> Any:
        return self._connection.read(lambda _: at.stored.get(**asked), at.spec.name)

    def _read(self, at: Handle, ids: Sequence[str], *include: str, batch: int = IDS_PER_CALL) -> Iterator[Any]:
        """What Chroma stores of these ids, in pages; missing ones are skipped."""
        step = self._page(at, batch) if "embeddings" in include else batch
        for start in range(0, len(ids), step):
            answer = self._get(at, ids=list(ids[start : start + step]), include=list(include))
            if answer["ids"]:
                yield answer

    def _page(self, at: Handle, batch: int) -> int:
        """How many records with vectors are read at once."""
        return max(1, min(batch, IDS_PER_CALL, PAGE_BYTES // (4 * at.spec.dim)))

    def rows(self, at: Handle, ids: Sequence[str]) -> dict[str, Any]:
        """The stored metadata of these ids."""
        pairs = (
            pair
            for page in self._read(at, ids, "metadatas")
            for pair in zip(page["ids"], page["metadatas"], strict=True)
        )
        # Without metadata is what is deleted at this moment.
        return {record_id: row for record_id, row in pairs if row is not None}

    def vectors(self, at: Handle, ids: Sequence[str]) -> Iterator[tuple[list[str], Floats]]:
        """The vectors of these ids, in pages."""
        for page in self._read(at, ids, "embeddings"):
            yield page["ids"], np.asarray(page["embeddings"], np.float32)

    def _records(self, at: Handle, ids: Sequence[str], *, with_vectors: bool) -> list[Record]:
        """The records of these ids, in their order; missing ones are skipped."""
        found: dict[str, Record] = {}
        for page in self._read(at, ids, "metadatas", *(["embeddings"] if with_vectors else [])):
            vectors = page["embeddings"] if with_vectors else [None] * len(page["ids"])
            for record_id, row, vector in zip(page["ids"], page["metadatas"], vectors, strict=True):
                if row is not None:
                    found[record_id] = record_of(record_id, row, vector)
        return [found[record_id] for record_id in ids if record_id in found]

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)

        def task(at: Handle) -> list[Record]:
            records = self._records(at, storable_ids(ids), with_vectors=with_vectors)
            found = {record.id: record for record in records}
            return [found[record_id] for record_id in ids if record_id in found]

        return self._on(name, task)

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        """Delete by id or by filter; returns how many records went.

        On a server they are looked up just before the deletion, so the count may be wrong by what other clients write
        at the same moment. Chroma looks at the filter again, if it takes it, so what no longer matches stays.
        """
        ids = check_selection(ids, where)

        def task(at: Handle) -> int:
            with at.writer:
                if ids is None:
                    selection = self._select(at, where)
                    doomed = selection.ids if selection.ids is not None else self.ids(at, selection.where)
                else:
                    selection = Selection()
                    doomed = [record_id for page in self._read(at, storable_ids(ids)) for record_id in page["ids"]]
                for start in range(0, len(doomed), IDS_PER_CALL):
                    with self._connection.calling(name):
                        at.stored.delete(ids=doomed[start : start + IDS_PER_CALL], where=selection.where)
            return len(doomed)

        return self._on(name, task)

    def count(self, name: str, where: Where | None = None) -> int:
        def task(at: Handle) -> int:
            selection = self._select(at, where)
            if selection.ids is None and selection.where is None:
                return self.count_all(at)
            return len(selection.ids if selection.ids is not None else self.ids(at, selection.where))

        return self._on(name, task)

    def count_all(self, at: Handle) -> int:
        """How many records there are."""
        return int(self._connection.read(lambda _: at.stored.count(), at.spec.name))

    # Filters

    def ids(self, at: Handle, where: Condition | None, limit: int | None = None) -> list[str]:
        """The ids of all that match Chroma's filter, or of `limit` of them."""
        found: list[str] = self._get(at, where=where, limit=limit, include=IDS_ONLY)["ids"]
        return found

    def _select(self, at: Handle, where: Where | None) -> Selection:
        """What a filter selects. One that is too large for Chroma is answered here, from all metadata."""
        translator = Translator(lambda field: bool(self.ids(at, has(kind_token(field, "l")), limit=1)))
        try:
            found = translator.translate(where)
        except TooLarge:
            return self._evaluate(at, where)
        if isinstance(found, bool):
            return Selection() if found else Selection(ids=[], searched=[])
        return Selection(found)

    def _evaluate(self, at: Handle, where: Where | None) -> Selection:
        ids: list[str] = []
        searched: list[str] = []
        for record_id, row in self.rows(at, self.ids(at, None)).items():
            record = record_of(record_id, row, None)
            if matches(where, record.metadata, record.modality):
                ids.append(record_id)
                if not is_bare(row):
                    searched.append(record_id)
        return Selection(ids=ids, searched=searched)

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        # Pages by offset would shift under deletes.
        at, ids = self._on(name, lambda at: (at, sorted(i for i in self.ids(at, None) if i > (cursor or ""))))
        step = self._page(at, batch) if with_vectors else batch
        for start in range(0, len(ids), step):
            page = ids[start : start + step]
            if records := self._records(at, page, with_vectors=with_vectors):
                yield Page(records, page[-1])

    # Search

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
        if effort is not None:
            raise Unsupported("Chroma has no effort of a single search: leave it out")

        def task(at: Handle) -> list[list[Hit]]:
            queries = prepare_queries(vectors, at.spec)
            if not len(queries):
                return []
            selection = self._select(at, where)
            if selection.searched is not None:
                return compare(self, at, queries, int(k), selection.searched)
            return search(self, at, queries, int(k), selection.where)

        return self._on(name, task)

    def _query(self, at: Handle, **asked: Any) -> Any:
        return self._connection.read(lambda _: at.stored.query(**asked), at.spec.name)

    def query(self, at: Handle, queries: Floats, limit: int, where: Condition | None) -> list[list[Any]]:
        """For each query the nearest `limit` that match, as (id, distance, metadata)."""
        answers: list[list[Any]] = []
        step = max(1, HITS_PER_CALL // limit)
        for start in range(0, len(queries), step):
            asked = {"query_embeddings": queries[start : start + step], "n_results": limit, "where": where}
            found = self._query(at, include=["metadatas", "distances"], **asked)
            columns = zip(found["ids"], found["distances"], found["metadatas"], strict=True)
            answers += [list(zip(*one, strict=True)) for one in columns]
        return answers

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        self._connection.check_open()
        raise Unsupported("Chroma has no keyword search that ranks what it finds")

    def flush(self, name: str) -> None:
        """Chroma indexes what it stores by itself; nothing is to be waited for, and no space can be given back."""
        self._collections.find_now(name)

    def close(self) -> None:
        self._connection.close()


class ChromaBackend(ChromaStore):
    """A Chroma server, 1.0 or later."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=False,
        persistent=True,
        server=True,
        concurrent_writers=True,
        effort=False,
        string_order=False,
        index_kinds=frozenset({"auto", "hnsw"}),
    )

    @classmethod
    def connect(cls, url: str) -> Self:
        """Connect to ``chroma://[:KEY@]host[:8000]``.

        Options: ``https`` (false), ``tenant`` and ``database`` (Chroma's defaults), ``timeout_s`` (120) of one call.
        The key is better given in SIGHTLINE_CHROMA_TOKEN. Raises `Unavailable` within ten seconds when nothing answers
        or the key is refused, ValueError for a malformed URL.
        """
        return cls(Connection.to_server(url))


class ChromaEmbeddedBackend(ChromaStore):
    """Chroma's engine in process, its files in a folder that one process at a time has open."""

    capabilities: ClassVar[Capabilities] = replace(ChromaBackend.capabilities, server=False, concurrent_writers=False)

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open the folder of ``chroma:///abs/dir``, ``chroma-embedded:///abs/dir`` or ``chroma://./relative/dir``.

        It is made if need be. ValueError for a URL of another form, `Unavailable` when another process has the folder
        open or it cannot be written.
        """
        return cls(Connection.to_folder(parse_folder_url(canonical(url), "chroma-embedded")))
