"""``clickhouse://`` and ``myscale://``: a server over HTTP, and what they share with the engine in process.

Each collection is a table called ``sightline_NAME`` in the database of the URL; nothing else there is touched. An
`upsert` inserts the new rows and then deletes those they replace; with them goes a row without an id that says so
until that is done, so that whoever finds it can finish what a killed process began. `flush` builds the vector index,
from 10,000 records on where the kind is ``auto``; from then on merges keep it up to date, and searches compare what is
not in it yet. Before that, and under any filter, a search is an exact scan.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.base import (
    Backend,
    Capabilities,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    DimensionMismatch,
    Hit,
    Page,
    Record,
    Where,
    prepare_queries,
    prepare_records,
)
from backends.checks import check_batch, check_collection_name, check_ids, check_index, check_search, check_selection
from backends.clickhouse.connection import Database, OutOfDate, Server, parse_url, quoted
from backends.clickhouse.dialects import ClickHouse, Dialect, MyScale
from backends.clickhouse.filters import Params, where_sql
from backends.clickhouse.records import COLUMNS, TYPES, marker_row, record_of, rows_of
from backends.clickhouse.schema import AUTO_INDEX_ROWS, PREFIX, Table, create_table, read_table, set_comment, table_sql
from backends.clickhouse.search import measure, search, search_text, settings_sql
from backends.clickhouse.words import renew_words
from backends.errors import Denied
from backends.kit.current import on_current
from backends.kit.parts import in_parts
from backends.kit.record_ids import storable_ids
from backends.kit.widths import Width
from backends.kit.words import Renewals, is_outdated

T = TypeVar("T")

# How long another process's flush or drop may go unnoticed; neither makes an answer wrong.
_TABLE_LIFE_S = 2.0
# What is inserted at once is one part, there whole or not at all.
_ROWS, _BYTES = 10_000, 64 << 20
_VERSION_OF_ROW = "concat(toString(seq), ' ', id)"


class ClickHouseStore(Backend):
    """The protocol over tables of a `Database`; subclasses say how it is reached."""

    def __init__(self, database: Database, dialect: Dialect) -> None:
        self._database, self._dialect = database, dialect
        self._known: dict[str, tuple[float, Table]] = {}
        self._renewals = Renewals(dialect.name, (Denied,))

    @staticmethod
    def offered(*, server: bool, concurrent_writers: bool, dialect: type[Dialect] = ClickHouse) -> Capabilities:
        """What a dialect can do."""
        return Capabilities(
            keyword=True,
            persistent=True,
            server=server,
            concurrent_writers=concurrent_writers,
            effort=True,
            metrics=dialect.metrics,
            index_kinds=dialect.kinds,
            quantizations=dialect.quantizations,
        )

    def _find(self, name: str, *, fresh: bool = False) -> Table:
        known = self._known.get(name)
        if known is not None and not fresh and time.monotonic() - known[0] < _TABLE_LIFE_S:
            return known[1]
        table = read_table(self._database, self._dialect, name)
        if table is None:
            self._known.pop(name, None)
            raise CollectionNotFound(f"no collection {name!r} in {self._database.address}")
        # Each time, as who is killed in the middle of an upsert may be another, at any time.
        self._repair(table)
        self._known[name] = (time.monotonic(), table)
        return table

    def _run(self, name: str, work: Callable[[Table], T]) -> T:
        """Do work on a collection; again when what is remembered of it was another's, dropped since."""

        def is_stale(known: Table, error: Exception) -> bool:
            if not isinstance(error, (CollectionNotFound, OutOfDate, DimensionMismatch)):
                return False
            return self._find(name, fresh=True).uuid != known.uuid

        def attempt() -> T:
            return on_current(name, self._database.address, lambda: self._find(name), work, is_stale)

        return self._database.run(attempt)

    def _writer(self, name: str) -> threading.RLock:
        """The lock of those who write to a collection by this database: what they count and replace stays as it is."""
        # One step, whoever does it at once.
        return self._database.writers.setdefault(name, threading.RLock())

    def collections(self) -> list[str]:
        statement = "SELECT name FROM system.tables WHERE database = {d:String} AND startsWith(name, {p:String})"
        rows = self._database.run(lambda: self._database.rows(statement, {"d": self._database.name, "p": PREFIX}))
        return sorted(row[0].removeprefix(PREFIX) for row in rows)

    def describe(self, name: str) -> CollectionSpec:
        return self._database.run(lambda: self._find(name, fresh=True).spec)

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, self._dialect.name)
        self._dialect.check_index(spec)

        def work() -> None:
            try:
                create_table(self._database, self._dialect, spec)
            except CollectionNotFound:
                # It is the database that is not there.
                self._database.execute(f"CREATE DATABASE IF NOT EXISTS {quoted(self._database.name)}")
                create_table(self._database, self._dialect, spec)

        try:
            self._database.run(work)
        except CollectionExists as error:
            raise CollectionExists(f"collection {spec.name!r} is already in {self._database.address}") from error

    def set_encoder(self, name: str, fingerprint: str) -> None:
        def work() -> None:
            table = self._find(name, fresh=True)
            set_comment(self._database, table, replace(table.spec, encoder=fingerprint), table.words)

        with self._writer(name):
            self._database.run(work)
            self._known.pop(name, None)

    def drop(self, name: str) -> None:
        check_collection_name(name)
        statement = f"DROP TABLE IF EXISTS {table_sql(self._database, name)} SYNC"
        self._database.run(lambda: self._database.execute(statement))
        self._known.pop(name, None)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        given = list(records)

        def work(table: Table) -> None:
            kept, vectors = prepare_records(given, table.spec)
            if kept:
                table = self._renew_words(table)

            def bytes_of(row: tuple[Record, NDArray[np.float32]]) -> int:
                # A text is there once more as words.
                return 4 * table.spec.dim + 4 * (len(row[0].text or "") + len(row[0].uri or ""))

            for part in in_parts(zip(kept, vectors, strict=True), bytes_of, most=_ROWS, most_bytes=_BYTES):
                self._write(table, [record for record, _ in part], [vector for _, vector in part])

        with self._writer(name):
            self._run(name, work)

    def _write(
        self, table: Table, records: Sequence[Record], vectors: Sequence[NDArray[np.float32]], seqs: Sequence[int] = ()
    ) -> None:
        """Insert rows, newer than all of their ids, and then delete those that they replace.

        A later `seq` is newer. It is the server's clock, with some bits by chance, since two may write at once.
        """
        ids = [record.id for record in records]
        params = Params()
        statement = (
            "SELECT toUnixTimestamp64Nano(now64(9)), max(seq), count() "  # noqa: S608
            f"FROM {table.sql} WHERE {params.among('id', ids)}"
        )
        ((now, newest, replaced),) = self._database.rows(statement, params.values)
        seq = max(now & ~0xFFF, newest + 1) + secrets.randbits(12)
        rows = rows_of(records, vectors, table.spec, seqs or [seq] * len(ids))
        if replaced:
            rows.append(marker_row(table.spec, seq))
        self._database.insert(table.sql, [*TYPES, table.vector], b"".join(rows), self._dialect.insert_settings)
        if replaced or self.capabilities.concurrent_writers:
            self._settle(table, ids, seq if replaced else None)

    def _settle(self, table: Table, ids: Sequence[str], marker: int | None) -> None:
        """Leave the newest row of each of these ids, and take the marker away, in one step."""
        params = Params()
        statement = f"SELECT id, seq FROM {table.sql} WHERE {params.among('id', ids)} ORDER BY id, seq DESC"  # noqa: S608
        older: list[str] = []
        last, newest = None, 0
        for record_id, seq in self._database.rows(statement, params.values):
            if record_id != last:
                last, newest = record_id, seq
            elif seq < newest:
                # Of two that are equally new none goes: nothing tells them apart, so both would.
                older.append(f"{seq} {record_id}")
        if not older and marker is None:
            return
        params = Params()
        gone = [] if marker is None else [f"(id = '' AND seq = {int(marker)})"]
        if older:
            among = params.among("id", [row.partition(" ")[2] for row in older])
            gone.append(f"({among} AND {params.among(_VERSION_OF_ROW, older)})")
        self._database.execute(self._dialect.delete(table.sql, " OR ".join(gone)), params.values)

    def _repair(self, table: Table) -> None:
        """Finish upserts that were killed between their two steps, or are between them: doing it twice does no harm."""
        for (marker,) in self._database.rows(f"SELECT seq FROM {table.sql} WHERE id = ''"):  # noqa: S608
            rows = self._database.rows(f"SELECT id FROM {table.sql} WHERE seq = {int(marker)} AND id != ''")  # noqa: S608
            try:
                self._settle(table, [row[0] for row in rows], marker)
            except Denied:
                return

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)
        wanted = storable_ids(ids)

        def work(table: Table) -> dict[str, Record]:
            if not wanted:
                return {}
            params = Params()
            statement = f"SELECT {_columns(table, with_vectors)} FROM {table.sql} WHERE {params.among('id', wanted)}"  # noqa: S608
            rows = sorted(self._database.rows(statement, params.values), key=lambda row: int(row[-1]))
            return {row[0]: record_of(row, with_vector=with_vectors) for row in rows}

        found = self._run(name, work)
        return [found[record_id] for record_id in ids if record_id in found]

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        """Delete by id or by filter; returns how many records went.

        They are counted just before they are deleted, so what other processes write at the same moment may be missing
        from the number.
        """
        ids = check_selection(ids, where)
        params = Params()
        condition = where_sql(where, params) if ids is None else params.among("id", storable_ids(ids))

        def work(table: Table) -> int:
            number = self._count(table, condition, params)
            if number:
                doomed = f"id != '' AND {condition}"
                if ids is None and self.capabilities.concurrent_writers:
                    doomed = _versions(table, condition)
                self._database.execute(self._dialect.delete(table.sql, doomed), params.values)
            return number

        with self._writer(name):
            return self._run(name, work)

    def count(self, name: str, where: Where | None = None) -> int:
        params = Params()
        condition = where_sql(where, params)
        return self._run(name, lambda table: self._count(table, condition, params))

    def _count(self, table: Table, condition: str, params: Params) -> int:
        """How many match; where an upsert is under way, of the newest row of each id."""
        settings = settings_sql(params.settings)
        statement = f"SELECT count(), countIf(id = '') FROM {table.sql} WHERE id = '' OR {condition}{settings}"  # noqa: S608
        ((number, markers),) = self._database.rows(statement, params.values)
        if not markers:
            return int(number)
        newest = f"SELECT * FROM {table.sql} WHERE id != '' ORDER BY seq DESC LIMIT 1 BY id"  # noqa: S608
        statement = f"SELECT count() FROM ({newest}) WHERE {condition}{settings}"  # noqa: S608
        ((number,),) = self._database.rows(statement, params.values)
        return int(number)

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

        def work(table: Table) -> list[list[Hit]]:
            queries = prepare_queries(vectors, table.spec)
            return search(self._database, self._dialect, table, queries, k, where, effort)

        return self._run(name, work)

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        check_search(k, None, self.capabilities)

        def work(table: Table) -> list[Hit]:
            self._renewals.attempt(name, lambda: self._renew_words(table))
            return search_text(self._database, table, query, k, where)

        return self._run(name, work)

    def _renew_words(self, table: Table) -> Table:
        """The table, its words taken anew where an earlier version wrote them."""
        if not is_outdated(table.words):
            return table
        with self._writer(table.spec.name):
            table = self._find(table.spec.name, fresh=True)
            if is_outdated(table.words):
                renew_words(self._database, table, self._write)
            return self._find(table.spec.name, fresh=True)

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        after = cursor or ""

        def work(table: Table) -> list[Record]:
            statement = (
                f"SELECT {_columns(table, with_vectors)} FROM {table.sql} WHERE id > {{after:String}} "  # noqa: S608
                f"ORDER BY id, seq DESC LIMIT 1 BY id LIMIT {int(batch)}"
            )
            rows = self._database.rows(statement, {"after": after})
            return [record_of(row, with_vector=with_vectors) for row in rows]

        while page := self._run(name, work):
            after = page[-1].id
            yield Page(page, after)

    def flush(self, name: str) -> None:
        def work(_: Table) -> None:
            table = self._find(name, fresh=True)
            ((having,),) = self._database.rows(f"SELECT count() FROM {table.sql} WHERE has_vector")  # noqa: S608
            wanted = not table.indexed and self._wants_index(table.spec, int(having))
            if wanted:
                self._database.execute(self._dialect.index_ddl(table.sql, table.spec, table.vector))
            if wanted or not self._dialect.is_settled(self._database, PREFIX + name):
                for statement in self._dialect.wait(table.sql):
                    self._database.execute_long(statement)
            table = self._find(name, fresh=True)
            width = measure(self._database, self._dialect, table, int(having))
            if width is not None:
                self._keep_width(name, table, width)

        # Not beside another flush, but beside writers, for whom a merge may take too long to wait for.
        with self._writer(f"{name} flush"):
            self._run(name, work)

    def _keep_width(self, name: str, tried: Table, width: Width) -> None:
        """Store it, beside what others have said meanwhile of the table that it was tried on."""
        with self._writer(name):
            table = self._find(name, fresh=True)
            if table.uuid == tried.uuid:
                set_comment(self._database, table, table.spec, table.words, width)
                self._find(name, fresh=True)

    def _wants_index(self, spec: CollectionSpec, rows: int) -> bool:
        if spec.index.kind == "flat" or not self._dialect.indexes(spec) or rows == 0:
            return False
        return spec.index.kind != "auto" or spec.index.quantization != "none" or rows >= AUTO_INDEX_ROWS

    def close(self) -> None:
        self._database.close()


def _versions(table: Table, condition: str) -> str:
    """Those rows, of all that are there now, whose record matches: the newest row of its id does.

    While another client's upsert replaces a row both are there: without the newer the older one would come back.
    """
    some = f"SELECT id FROM {table.sql} WHERE id != '' AND {condition}"  # noqa: S608
    newest = f"SELECT id FROM {table.sql} WHERE id IN ({some}) GROUP BY id HAVING argMax({condition}, seq)"  # noqa: S608
    return f"(id, seq) IN (SELECT id, seq FROM {table.sql} WHERE id IN ({newest}))"  # noqa: S608


def _columns(table: Table, with_vectors: bool) -> str:
    return f"{COLUMNS}, {table.vector}, seq" if with_vectors else f"{COLUMNS}, seq"


class ClickHouseBackend(ClickHouseStore):
    """A ClickHouse server."""

    capabilities: ClassVar[Capabilities] = ClickHouseStore.offered(server=True, concurrent_writers=True)
    scheme: ClassVar[str] = "clickhouse"
    dialect: ClassVar[type[Dialect]] = ClickHouse

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open the database that the URL names; see `backends.clickhouse.connection.parse_url`."""
        variable = f"SIGHTLINE_{cls.scheme.upper()}_PASSWORD"
        place = parse_url(url, cls.scheme, variable=variable, secure=cls.dialect.secure)
        database, dialect = Server(place), cls.dialect()
        try:
            dialect.check(database)
        except BaseException:
            database.close()
            raise
        return cls(database, dialect)


class MyScaleBackend(ClickHouseBackend):
    """MyScale."""

    capabilities: ClassVar[Capabilities] = ClickHouseStore.offered(
        server=True, concurrent_writers=True, dialect=MyScale
    )
    scheme: ClassVar[str] = "myscale"
    dialect: ClassVar[type[Dialect]] = MyScale
