"""``milvus://`` and ``milvus-lite://``: the Milvus server and its Lite in process, by one client."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from numpy.typing import ArrayLike
from pymilvus import MilvusClient, MilvusException

from backends.base import (
    Backend,
    Capabilities,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Hit,
    IndexSpec,
    Page,
    Record,
    Unavailable,
    Unsupported,
    Where,
    prepare_queries,
    prepare_records,
)
from backends.checks import check_batch, check_ids, check_index, check_search, check_selection
from backends.errors import BackendError
from backends.milvus_connection import CALL_S, POLL_S, Connection, LiteServer, TooLarge
from backends.milvus_rows import (
    STORED,
    batches,
    description_of,
    hit_of,
    own_name,
    record_of,
    row_of,
    spec_of,
    stored_name,
    words_of,
)
from backends.milvus_schema import FLAT, WORDS_VECTOR, Index, index_of, index_params, schema_of
from backends.milvus_search import MAX_LIMIT, Ask, Floats, search
from backends.milvus_where import NOTHING, Dialect, all_of, expression, id_in, quote
from backends.urls import folder_of, server_of
from backends.where import check_string

PAGE_BYTES = 16 << 20
IDS_PER_REQUEST = 1_000
# Lite reads what it has not flushed row by row in Python, 20 times as slow as what it has.
LITE_FLUSH_ROWS = 1_000
# Where a graph pays: a scan of this many bytes takes a server of two cores about 30 ms.
GRAPH_BYTES = 256 << 20
REFRESH_S = 1.0
INDEX_STALLED_S = 300.0
REMEDY = "start it with: sightline engines up milvus, or check host and port"


@dataclass(slots=True)
class Opened:
    """A collection that this handle has used: its spec, and the index it had when last asked."""

    spec: CollectionSpec
    stored: str
    index: Index = FLAT
    asked: float = -REFRESH_S
    unflushed: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)


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
    _lite: LiteServer | None = None

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self._connection, self._dialect = connection, dialect
        self._opened: dict[str, Opened] = {}

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open ``milvus://host[:19530][?database=x&token=user:password&secure=true&timeout=60]``.

        The token may come from the environment, SIGHTLINE_MILVUS_TOKEN, instead. `timeout` bounds each
        call, in seconds.
        """
        parts = server_of(url, "milvus", 19530, ("token", "database", "secure", "timeout"))
        token = parts.options.get("token") or os.environ.get("SIGHTLINE_MILVUS_TOKEN", "")
        host = parts.address.removeprefix("milvus://")
        connection = Connection(
            f"{'https' if parts.flag('secure', False) else 'http'}://{host}",
            parts.address,
            REMEDY,
            token=token,
            database=parts.options.get("database", ""),
            timeout_s=parts.number("timeout", int(CALL_S), 86_400),
        )
        # Unknown versions are taken for new ones. From 2.5 on, a missing key makes a comparison unknown.
        new = connection.release >= (2, 5) or connection.release == (0, 0)
        backend = cls(connection, Dialect(guarded=new, lists_as_text=False))
        if new:
            # BM25 came with 2.5; what a class cannot know of its server, the instance says.
            backend.capabilities = _with_keyword(cls.capabilities)  # type: ignore[misc]
        return backend

    # Collections

    def collections(self) -> list[str]:
        names = []
        for stored in self._connection.call("", lambda client: client.list_collections()):
            name = own_name(stored)
            if name is not None:
                with contextlib.suppress(CollectionNotFound):
                    self._find(name)
                    names.append(name)
        return sorted(names)

    def _find(self, name: str) -> Opened:
        """The collection, known or asked for. Raises `CollectionNotFound`."""
        self._connection.check_open()
        opened = self._opened.get(name)
        if opened is None:
            stored = stored_name(name)
            description = self._connection.call(name, lambda client: client.describe_collection(stored))
            spec = spec_of(description)
            if spec is None:
                raise CollectionNotFound(
                    f"collection {stored!r} in {self._connection.address} was not made by Sightline"
                )
            opened = self._opened.setdefault(name, Opened(spec, stored))
            if self._lite is not None:
                opened.lock = self._lite.locks.setdefault(name, threading.RLock())
        return opened

    def _call(self, opened: Opened, work: Any) -> Any:
        name = opened.spec.name
        try:
            return self._connection.call(name, work, lambda: self._load(opened))
        except CollectionNotFound:
            self._opened.pop(name, None)
            raise

    def describe(self, name: str) -> CollectionSpec:
        self._opened.pop(name, None)
        return self._find(name).spec

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, "Milvus")
        index = index_of(spec.index, self._lite is not None)
        stored, keyword = stored_name(spec.name), self.capabilities.keyword
        call = self._connection.call
        if call(spec.name, lambda client: client.has_collection(stored)):
            raise CollectionExists(f"collection {spec.name!r} is already in {self._connection.address}")
        schema = schema_of(spec, keyword, self._lite is not None)
        properties = {"sightline": description_of(spec)} if self._lite is not None else {}
        call(spec.name, lambda client: client.create_collection(stored, schema=schema, properties=properties))
        opened = Opened(spec, stored, index)
        try:
            self._index(opened, index)
        except BackendError:
            self.drop(spec.name)
            raise
        self._load(opened)

    def _index(self, opened: Opened, index: Index) -> None:
        params = index_params(opened.spec, index, self.capabilities.keyword)
        self._connection.call(
            opened.spec.name, lambda client: client.create_index(opened.stored, params, sync=False, timeout=CALL_S)
        )

    def _load(self, opened: Opened) -> None:
        """Ask for the collection to be loaded; where its creator was killed before, give it its index."""

        def load(client: MilvusClient) -> None:
            with contextlib.suppress(MilvusException):
                if not client.list_indexes(opened.stored, field_name="vector"):
                    self._index(opened, index_of(opened.spec.index, self._lite is not None))
                client.load_collection(opened.stored, _async=True, timeout=CALL_S)

        self._connection.call(opened.spec.name, load)

    def drop(self, name: str) -> None:
        self._connection.check_open()
        try:
            opened = self._find(name)
            self._connection.call(name, lambda client: client.drop_collection(opened.stored))
        except CollectionNotFound:
            return
        finally:
            self._opened.pop(name, None)

    def _index_now(self, opened: Opened) -> Index:
        """The index that the collection has; `flush`, here or elsewhere, may have made a graph of ``auto``."""
        spec = opened.spec.index
        if spec.kind != "auto" or spec.quantization != "none" or self._lite is not None:
            return index_of(spec, self._lite is not None)
        if time.monotonic() - opened.asked >= REFRESH_S:
            said = self._call(opened, lambda client: client.describe_index(opened.stored, "vector")) or {}
            opened.index = Index(said.get("index_type", "FLAT"), {})
            opened.asked = time.monotonic()
        return opened.index

    # Records

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        opened = self._find(name)
        kept, vectors = prepare_records(records, opened.spec)
        keyword = self.capabilities.keyword
        rows = [row_of(r, v, self._dialect, keyword) for r, v in zip(kept, vectors, strict=True)]
        if not rows:
            return
        with opened.lock:
            for batch in batches(rows, opened.spec.dim):
                if self._lite is not None:
                    # Lite's upsert keeps the old row's dynamic fields; its insert replaces all of it.
                    self._call(opened, lambda client, b=batch: client.insert(opened.stored, b))
                else:
                    self._call(opened, lambda client, b=batch: client.upsert(opened.stored, b, timeout=CALL_S))
            self._written(opened, len(rows))

    def _written(self, opened: Opened, n: int) -> None:
        """Wait until what was written is seen by every reader."""
        if self._lite is None:
            # Not ``Session``, which waits for the client's last write alone: 2.3 tells it no time of a delete.
            self._call(
                opened,
                lambda client: client.query(
                    opened.stored, filter=NOTHING, output_fields=["id"], limit=1, consistency_level="Strong"
                ),
            )
            return
        opened.unflushed += n
        if opened.unflushed >= LITE_FLUSH_ROWS:
            self._call(opened, lambda client: client.flush(opened.stored))
            opened.unflushed = 0

    def rows(self, name: str, ids: list[str], fields: list[str]) -> list[dict[str, Any]]:
        """The rows of these ids, in any order."""
        opened, found = self._find(name), []
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

    def _query(self, opened: Opened, selection: str, fields: list[str], **options: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call(
            opened,
            lambda client: client.query(
                opened.stored, filter=selection, output_fields=fields, consistency_level="Bounded", **options
            ),
        )
        return found

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        check_ids(ids)
        self._find(name)
        wanted = _usable(ids)
        fields = ["id", *STORED, "vector"] if with_vectors else ["id", *STORED]
        found = {row["id"]: record_of(row) for row in self.rows(name, wanted, fields)}
        return [found[i] for i in ids if i in found]

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        check_selection(ids, where)
        opened = self._find(name)
        with opened.lock:
            if ids is not None:
                doomed = [row["id"] for row in self.rows(name, _usable(ids), ["id"])]
            else:
                selection = expression(where, self._dialect)
                doomed = [row["id"] for page in self.pages(name, selection, ["id"]) for row in page]
            for start in range(0, len(doomed), IDS_PER_REQUEST):
                selection = id_in(doomed[start : start + IDS_PER_REQUEST])
                self._call(opened, lambda client, s=selection: client.delete(opened.stored, filter=s))
            if doomed:
                self._written(opened, len(doomed))
        return len(doomed)

    def count(self, name: str, where: Where | None = None) -> int:
        return self.count_matching(name, expression(where, self._dialect))

    def count_matching(self, name: str, selection: str) -> int:
        """How many rows match an expression."""
        opened = self._find(name)
        if self._lite is not None and selection:
            return len(self._query(opened, selection, ["id"]))
        return int(self._query(opened, selection, ["count(*)"])[0]["count(*)"])

    def pages(
        self, name: str, selection: str, fields: list[str], batch: int = MAX_LIMIT, after: str = ""
    ) -> Iterator[list[dict[str, Any]]]:
        """All rows that match, in the order of their ids, in pages of up to `batch`."""
        opened = self._find(name)
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
        fields = ["id", *STORED, "vector"] if with_vectors else ["id", *STORED]
        for page in self.pages(name, "", fields, batch, cursor or ""):
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
        opened = self._find(name)
        queries = prepare_queries(vectors, opened.spec)
        if not len(queries):
            return []
        selection = expression(where, self._dialect)
        index = self._index_now(opened)
        return search(self, Ask(name, opened.spec.metric, index, queries, int(k), selection, effort))

    def nearest(self, ask: Ask, queries: Floats, limit: int, params: dict[str, int], fields: list[str]) -> list[Any]:
        """Milvus's hits for each query."""
        opened = self._find(ask.name)

        def work(client: MilvusClient) -> list[Any]:
            found: list[Any] = client.search(
                opened.stored, list(queries), filter=ask.expression, limit=limit, output_fields=fields,
                search_params={"params": params}, anns_field="vector", consistency_level="Bounded",
            )  # fmt: skip
            return found

        try:
            answers: list[Any] = self._call(opened, work)
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
            rows = {row["id"]: row for row in self.rows(ask.name, [hit["id"] for hit in found], ["id", *fields])}
            return [[{**hit, "entity": rows[hit["id"]]} for hit in found if hit["id"] in rows]]
        return answers

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        if not self.capabilities.keyword:
            self._connection.check_open()
            raise Unsupported(
                f"Milvus {self._connection.version} has no keyword search: it came with 2.5, and Milvus Lite has it"
            )
        check_search(k, None, self.capabilities)
        opened = self._find(name)
        # Twice the same word weighs no more, and stray text is not parsed: Milvus gets words only.
        wanted = " ".join(dict.fromkeys(words_of(query).split()))
        if not wanted:
            return []
        (found,) = self._call(
            opened,
            lambda client: client.search(
                opened.stored, [wanted], filter=expression(where, self._dialect), limit=min(int(k), MAX_LIMIT),
                output_fields=STORED, anns_field=WORDS_VECTOR, consistency_level="Bounded",
            ),
        )  # fmt: skip
        hits = [hit_of(hit["id"], hit["entity"], float(hit["distance"]), True) for hit in found]
        return sorted((hit for hit in hits if hit.score > 0), key=lambda hit: (-hit.score, hit.id))

    # Upkeep

    def flush(self, name: str) -> None:
        """Seal and index everything; a collection of kind ``auto`` that has outgrown scanning gets a graph.

        While that graph is built, searches by any handle wait.
        """
        opened = self._find(name)
        self._call(opened, lambda client: client.flush(opened.stored, timeout=CALL_S))
        opened.unflushed = 0
        if self._index_now(opened) == FLAT and opened.spec.index.kind == "auto" and self._lite is None:
            size_bytes = self.count_matching(name, "") * opened.spec.dim * 4
            if size_bytes > GRAPH_BYTES:
                self._make_graph(opened)
        self._await_index(opened)

    def _make_graph(self, opened: Opened) -> None:
        with opened.lock:
            self._call(opened, lambda client: client.release_collection(opened.stored))
            self._call(opened, lambda client: client.drop_index(opened.stored, "vector"))
            self._index(opened, index_of(IndexSpec("hnsw"), False))
            opened.asked = -REFRESH_S
            self._load(opened)

    def _await_index(self, opened: Opened) -> None:
        least, since = None, time.monotonic()
        while True:
            said = self._call(opened, lambda client: client.describe_index(opened.stored, "vector")) or {}
            pending = int(said.get("pending_index_rows", 0))
            if pending == 0:
                return
            if least is None or pending < least:
                least, since = pending, time.monotonic()
            if time.monotonic() - since > INDEX_STALLED_S:
                raise Unavailable(
                    f"{self._connection.address} has not indexed {pending} rows of {opened.spec.name!r} for "
                    f"{INDEX_STALLED_S:.0f} s: look at its index nodes' logs"
                )
            time.sleep(POLL_S)

    def close(self) -> None:
        self._opened.clear()
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
        lite = LiteServer.of(folder_of(url, "milvus-lite"))
        try:
            connection = Connection(
                f"http://127.0.0.1:{lite.port}", f"milvus-lite://{lite.folder}", "this is a fault of Milvus Lite"
            )
        except BaseException:
            lite.release()
            raise
        backend = cls(connection, Dialect(guarded=True, lists_as_text=True))
        backend._lite = lite
        return backend

    def close(self) -> None:
        super().close()
        lite, self._lite = self._lite, None
        if lite is not None:
            lite.release()


def _with_keyword(least: Capabilities) -> Capabilities:
    return replace(least, keyword=True)


def _usable(ids: Sequence[str]) -> list[str]:
    """The ids that can name a record, each once."""
    found = []
    for record_id in dict.fromkeys(ids):
        with contextlib.suppress(ValueError):
            check_string(record_id, "id", 512)
            if record_id:
                found.append(record_id)
    return found
