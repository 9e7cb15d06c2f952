"""``milvus://`` and ``milvus-lite://``: the Milvus server and its Lite in process, by one client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

from numpy.typing import ArrayLike
from pymilvus import MilvusClient

from backends.base import (
    Backend,
    Capabilities,
    CollectionSpec,
    Hit,
    Page,
    Record,
    Unsupported,
    Where,
    check_where,
    prepare_queries,
    prepare_records,
)
from backends.checks import check_batch, check_ids, check_index, check_search, check_selection
from backends.errors import Denied
from backends.kit.record_ids import storable_ids
from backends.kit.scores import best_first
from backends.kit.words import Renewals, is_outdated
from backends.milvus.collections import CollectionHandle, Collections
from backends.milvus.connection import CALL_S, Connection, LiteServer, TooLarge
from backends.milvus.filters import BARE, NOTHING, Dialect, all_of, expression, id_in, modality_in, quote
from backends.milvus.lite_filters import lite_expression
from backends.milvus.mirror import Mirror, fill
from backends.milvus.records import (
    STORED,
    WORDS_VECTOR,
    batches,
    hit_of,
    is_bare,
    record_of,
    row_of,
    words_of,
)
from backends.milvus.search import MAX_LIMIT, Floats, SearchRequest, measure, search
from backends.milvus.words import renew_words
from backends.plans import note_plan
from backends.text import wanted_words
from backends.urls import parse_folder_url

PAGE_BYTES = 16 << 20
IDS_PER_REQUEST = 1_000
# Lite reads what it has not flushed row by row in Python, 20 times as slow as what it has.
LITE_FLUSH_ROWS = 1_000


class MilvusBackend(Backend):
    """Collections in a Milvus server, 2.3 or later.

    Reads are at consistency level ``Bounded``, which never waits; instead every write waits until the
    server's search nodes have it (up to 200 ms), so that it is visible to all handles when it returns.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=False,
        persistent=True,
        server=True,
        concurrent_writers=True,
        effort=True,
        index_kinds=frozenset({"auto", "flat", "hnsw", "ivf"}),
        quantizations=frozenset({"none", "int8"}),
        max_k=MAX_LIMIT,
    )

    def __init__(self, connection: Connection, dialect: Dialect, *, lite: LiteServer | None, keyword: bool) -> None:
        self._connection, self._dialect, self._lite = connection, dialect, lite
        self._collections = Collections(connection, lite, keyword)
        self._renewals = Renewals("Milvus", (Denied,))
        if keyword != self.capabilities.keyword:
            # What a class cannot know of its server, the instance says.
            self.capabilities = replace(self.capabilities, keyword=keyword)  # type: ignore[misc]

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open ``milvus://host[:19530][?database=x&token=user:password&secure=true&timeout=60]``.

        The token may come from the environment, SIGHTLINE_MILVUS_TOKEN, instead. `timeout` bounds each
        call, in seconds.
        """
        connection = Connection.to(url)
        # Unknown versions are taken for new ones. BM25 came with 2.5, and so did unknown truth values: what a
        # comparison with a missing key was false before.
        new = connection.release >= (2, 5) or connection.release == (0, 0)
        return cls(connection, Dialect(guarded=new, lists_as_text=False), lite=None, keyword=new)

    # Collections

    def collections(self) -> list[str]:
        return self._collections.names()

    def describe(self, name: str) -> CollectionSpec:
        return self._collections.spec_now(name)

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, "Milvus")
        self._collections.create(spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        self._collections.set_encoder(name, fingerprint)

    def drop(self, name: str) -> None:
        self._collections.drop(name)

    # Records

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        opened = self._collections.find(name)
        kept, vectors = prepare_records(records, opened.spec)
        keyword, dim = self.capabilities.keyword, opened.spec.dim
        rows = [row_of(r, v, dim, self._dialect, keyword) for r, v in zip(kept, vectors, strict=True)]
        if not rows:
            return
        self._renew_words(opened)
        if any(map(is_bare, rows)):
            opened.has_bare = True
        with opened.lock:
            for batch in batches(rows, opened.spec.dim):
                self._collections.call(opened, partial(self._store, opened.stored, batch))
            self._written(opened, len(rows))

    def _store(self, stored: str, batch: list[dict[str, Any]], client: MilvusClient) -> None:
        if self._lite is None:
            client.upsert(stored, batch, timeout=CALL_S)
            return
        # Lite's upsert keeps the old row's dynamic fields; its insert replaces all of it.
        with self._lite.name(stored).mirrored() as mirror:
            client.insert(stored, batch)
            if mirror:
                mirror.put(batch)

    def _written(self, opened: CollectionHandle, n: int) -> None:
        """Wait until what was written is seen by every reader."""
        if self._lite is None:
            # Not ``Session``, which waits for the client's last write alone: 2.3 tells it no time of a delete.
            self._collections.call(
                opened,
                lambda client: client.query(
                    opened.stored, filter=NOTHING, output_fields=["id"], limit=1, consistency_level="Strong"
                ),
            )
            return
        opened.unflushed += n
        if opened.unflushed >= LITE_FLUSH_ROWS:
            self._collections.flush(opened)

    def _renew_words(self, opened: CollectionHandle) -> None:
        if self.capabilities.keyword and is_outdated(opened.words):
            pages = self.pages(opened, "", ["*", "vector"])
            renew_words(self._collections, opened, pages, partial(self._replace, opened))

    def _replace(self, opened: CollectionHandle, batch: list[dict[str, Any]]) -> None:
        self._collections.call(opened, partial(self._store, opened.stored, batch))
        self._written(opened, len(batch))

    def rows(self, opened: CollectionHandle, ids: list[str], fields: list[str]) -> list[dict[str, Any]]:
        """The rows of these ids, in any order."""
        found: list[dict[str, Any]] = []
        step, start = IDS_PER_REQUEST, 0
        while start < len(ids):
            selection = id_in(ids[start : start + step])
            try:
                found += self._query(opened, selection, fields)
            except TooLarge:
                if step == 1:
                    raise
                step = max(1, step // 8)
            else:
                start += step
        return found

    def _query(
        self, opened: CollectionHandle, selection: str, fields: list[str], **options: Any
    ) -> list[dict[str, Any]]:
        return self._collections.read(
            opened,
            lambda client, level: client.query(
                opened.stored, filter=selection, output_fields=fields, consistency_level=level, **options
            ),
        )

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)
        opened = self._collections.find(name)
        wanted = storable_ids(ids)
        fields = ["id", *STORED, "vector"] if with_vectors else ["id", *STORED]
        found = {row["id"]: record_of(row) for row in self.rows(opened, wanted, fields)}
        return [found[i] for i in ids if i in found]

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        ids = check_selection(ids, where)
        opened = self._collections.find(name)
        with opened.lock:
            if ids is not None:
                doomed = [row["id"] for row in self.rows(opened, storable_ids(ids), ["id"])]
            else:
                selection = self._expression(opened, where)
                doomed = [row["id"] for page in self.pages(opened, selection, ["id"]) for row in page]
            for start in range(0, len(doomed), IDS_PER_REQUEST):
                selection = id_in(doomed[start : start + IDS_PER_REQUEST])
                remove = partial(_remove, opened.stored, selection)
                with opened.name.mirrored() if opened.name is not None else nullcontext() as mirror:
                    self._collections.call(opened, remove)
                    if mirror:
                        mirror.remove(doomed[start : start + IDS_PER_REQUEST])
            if doomed:
                self._written(opened, len(doomed))
        return len(doomed)

    def count(self, name: str, where: Where | None = None) -> int:
        opened = self._collections.find(name)
        return self.count_matching(opened, self._expression(opened, where))

    def _expression(self, opened: CollectionHandle, where: Where | None) -> str:
        if where is None or self._lite is None:
            return expression(where, self._dialect)
        return lite_expression(self, opened, where, self._dialect)

    def count_matching(self, opened: CollectionHandle, selection: str) -> int:
        """How many rows match an expression."""
        if self._lite is not None and selection:
            return len(self._query(opened, selection, ["id"]))
        return int(self._query(opened, selection, ["count(*)"])[0]["count(*)"])

    def pages(
        self, opened: CollectionHandle, selection: str, fields: list[str], batch: int = MAX_LIMIT, after: str = ""
    ) -> Iterator[list[dict[str, Any]]]:
        """All rows that match, in the order of their ids, in pages of up to `batch`."""
        limit = min(batch, MAX_LIMIT)
        if "vector" in fields:
            limit = max(1, min(limit, PAGE_BYTES // (4 * opened.spec.dim)))
        while True:
            parts = [part for part in (selection, f"(id > {quote(after)})" if after else "") if part]
            try:
                # What an iterator asks: the first rows by id, over all segments.
                page = self._query(opened, all_of(parts), fields, limit=limit, iterator="True")
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            if not page:
                return
            page.sort(key=lambda row: row["id"])
            after = page[-1]["id"]
            yield page

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        opened = self._collections.find(name)
        fields = ["id", *STORED, "vector"] if with_vectors else ["id", *STORED]
        for page in self.pages(opened, "", fields, batch, cursor or ""):
            yield Page([record_of(row) for row in page], page[-1]["id"])

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
        opened = self._collections.find(name)
        queries = prepare_queries(vectors, opened.spec)
        if not len(queries):
            return []
        if effort in (None, 1) and (mirror := self._mirror(opened)) is not None:
            check_where(where)
            with opened.in_use():
                found, n = mirror.search(queries, int(k), where, opened.spec.metric)
            note_plan("scan", queries=len(queries), candidates=n, note="of a copy in memory")
            return found
        selection = self._expression(opened, where)
        index = self._collections.index_now(opened)
        return search(
            self,
            SearchRequest(
                opened=opened,
                metric=opened.spec.metric,
                index=index,
                queries=queries,
                k=int(k),
                expression=selection,
                effort=effort,
                lite=self._lite is not None,
            ),
        )

    def _mirror(self, opened: CollectionHandle) -> Mirror | None:
        """The copy in memory of what Lite holds, made by the first search; None of a server, or of too much."""
        name = opened.name
        if name is None or name.mirror is False:
            return None
        if name.mirror is None:
            # With the right to write, so that nothing is written meanwhile.
            with opened.lock:
                if name.mirror is None:
                    fields = ["id", *STORED, "vector"]
                    name.mirror = fill(opened.spec.dim, lambda: self.pages(opened, "", fields)) or False
        return name.mirror or None

    def nearest(
        self, ask: SearchRequest, queries: Floats, limit: int, params: dict[str, int], fields: list[str]
    ) -> list[Any]:
        """Milvus's hits for each query."""
        opened = ask.opened

        def work(client: MilvusClient, level: str) -> list[Any]:
            found: list[Any] = client.search(
                opened.stored,
                list(queries),
                filter=ask.expression,
                limit=limit,
                output_fields=fields,
                search_params={"params": params},
                anns_field="vector",
                consistency_level=level,
            )
            return found

        try:
            answers = self._collections.read(opened, work)
        except TooLarge:
            if len(queries) > 1:
                middle = len(queries) // 2
                return [
                    hits
                    for half in (queries[:middle], queries[middle:])
                    for hits in self.nearest(ask, half, limit, params, fields)
                ]
            if fields == ["id"]:
                raise
            (found,) = self.nearest(ask, queries, limit, params, ["id"])
            rows = {row["id"]: row for row in self.rows(opened, [hit["id"] for hit in found], ["id", *fields])}
            return [[{**hit, "entity": rows[hit["id"]]} for hit in found if hit["id"] in rows]]
        return answers

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        if not self.capabilities.keyword:
            self._connection.check_open()
            raise Unsupported(
                f"Milvus {self._connection.version} has no keyword search: it came with 2.5, and Milvus Lite has it"
            )
        check_search(k, None, self.capabilities)
        opened = self._collections.find(name)
        self._renewals.attempt(name, lambda: self._renew_words(opened))
        # Twice the same word weighs no more, and stray text is not parsed: Milvus gets words only.
        wanted = words_of(wanted_words(query))
        if not wanted:
            return []
        selection = self._expression(opened, where)
        (found,) = self._collections.read(
            opened,
            lambda client, level: client.search(
                opened.stored,
                [wanted],
                filter=selection,
                limit=int(k),
                output_fields=STORED,
                anns_field=WORDS_VECTOR,
                consistency_level=level,
            ),
        )
        # Lite gives the score with a minus before it.
        return best_first(hit_of(hit["id"], hit["entity"], abs(hit["distance"]), exact=True) for hit in found)

    # Upkeep

    def flush(self, name: str) -> None:
        """Seal and index everything; a collection of kind ``auto`` that has outgrown scanning gets a graph.

        While that graph is built, searches by any handle wait.
        """
        opened = self._collections.find(name)
        self._collections.flush(opened)
        opened.has_bare = self.count_matching(opened, modality_in(list(BARE.values()))) > 0
        if self._collections.needs_graph(opened, self.count_matching(opened, "")):
            self._collections.make_graph(opened)
        self._collections.await_index(opened)
        if self._lite is None:
            rows = self.count_matching(opened, "")
            if (width := measure(self, opened, self._collections.index_now(opened), rows)) is not None:
                self._collections.note_width(opened, width)

    def close(self) -> None:
        self._connection.close()


class MilvusLiteBackend(MilvusBackend):
    """Milvus Lite in this process, its data in one folder; one process at a time."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True,
        persistent=True,
        server=False,
        concurrent_writers=False,
        effort=True,
        index_kinds=frozenset({"auto", "flat", "hnsw", "ivf"}),
        quantizations=frozenset({"none", "int8"}),
        max_k=MAX_LIMIT,
    )

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open ``milvus-lite:///dir``; the folder is made where there is none."""
        lite = LiteServer.of(parse_folder_url(url, "milvus-lite"))
        try:
            connection = Connection(
                f"http://127.0.0.1:{lite.port}", f"milvus-lite://{lite.folder}", "this is a fault of Milvus Lite"
            )
        except BaseException:
            lite.release()
            raise
        return cls(connection, Dialect(guarded=True, lists_as_text=True), lite=lite, keyword=True)

    def close(self) -> None:
        super().close()
        lite, self._lite = self._lite, None
        if lite is not None:
            lite.release()


def _remove(stored: str, selection: str, client: MilvusClient) -> None:
    client.delete(stored, filter=selection)
