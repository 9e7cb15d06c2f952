"""``postgresql://``: any PostgreSQL server with pgvector 0.5 or later.

Each collection is a table of the schema ``sightline``; nothing else in the database is touched. Writes
are transactions: an `upsert` is stored whole or not at all, and durable when it returns. `flush` builds
the vector index (bulk load first, index after), from then on PostgreSQL keeps it up to date; until then,
and for ``auto`` below 10,000 records, searches are exact scans.

The URL is libpq's, e.g. ``postgresql://me:secret@db:5432/photos?sslmode=verify-full``. Session settings
are used, so a PgBouncer in between must pool by session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Self, TypeVar

from numpy.typing import ArrayLike
from psycopg import errors

from backends.base import (
    Capabilities,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Hit,
    Page,
    Record,
    Where,
    prepare_queries,
    prepare_records,
)
from backends.checks import check_batch, check_ids, check_index, check_search, check_selection
from backends.kit.record_ids import storable_ids
from backends.kit.sql_store import SqlStore
from backends.pgvector.connection import Connection, Database, parse_url
from backends.pgvector.dialect import PGVECTOR, Dialect
from backends.pgvector.filters import where_sql
from backends.pgvector.index import (
    MAX_HALF,
    StoredCollection,
    build,
    drop_index,
    maintain,
    read_collection,
    rebuild_is_faster,
    wants_build,
)
from backends.pgvector.records import record_of, write
from backends.pgvector.schema import create_table, prepare, table_name
from backends.pgvector.search import Searcher, search_text
from backends.pgvector.words import renew_words
from backends.text import WORDS_VERSION

T = TypeVar("T")


class PostgresBackend(SqlStore[Connection, StoredCollection]):
    """Collections in the schema ``sightline`` of a PostgreSQL database, over a pool of connections."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True,
        persistent=True,
        server=True,
        concurrent_writers=True,
        effort=True,
        index_kinds=frozenset({"auto", "flat", "hnsw", "ivf"}),
        quantizations=frozenset({"none", "half", "binary"}),
    )

    dialect: ClassVar[Dialect] = PGVECTOR

    def __init__(self, database: Database) -> None:
        super().__init__(database, "PostgreSQL", (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction))
        self._database = database
        self._installed = prepare(database, self.dialect)
        database.open(self._installed.vector_oid, self.dialect.session(self._installed), self.dialect.prepare_threshold)
        self._searcher = Searcher(iterative=self._installed.iterative)

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open a server's database and bring the schema up to date; see the module for the URL."""
        return cls(Database(*parse_url(url)))

    def _read_collection(self, connection: Connection, name: str) -> StoredCollection | None:
        return read_collection(connection, name, self.dialect)

    def _is_gone(self, error: Exception) -> bool:
        return isinstance(error, errors.UndefinedTable)

    def _renew_words(self, connection: Connection, collection: StoredCollection) -> None:
        renew_words(connection, collection)

    def collections(self) -> list[str]:
        statement = "SELECT name FROM sightline.collections ORDER BY name"
        return self._database.run(lambda connection: [row[0] for row in connection.execute(statement)])

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, self.dialect.name)
        self.dialect.check_layout(spec, self._installed)

        def work(connection: Connection) -> None:
            with connection.transaction():
                row = connection.execute(
                    "INSERT INTO sightline.collections (name, spec, words) VALUES (%s, %s, %s) "
                    "ON CONFLICT (name) DO NOTHING RETURNING number",
                    [spec.name, spec.to_json(), WORDS_VERSION],
                ).fetchone()
                if row is None:
                    raise CollectionExists(f"collection {spec.name!r} is already in {self._database.address}")
                create_table(connection, row[0], spec, self.dialect)

        self._database.run(work)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        def work(connection: Connection) -> None:
            with connection.transaction():
                statement = "SELECT number, spec FROM sightline.collections WHERE name = %s FOR UPDATE"
                row = connection.execute(statement, [name]).fetchone()
                if row is None:
                    raise CollectionNotFound(f"no collection {name!r} in {self._database.address}")
                spec = replace(CollectionSpec.from_json(row[1]), encoder=fingerprint)
                changed = "UPDATE sightline.collections SET spec = %s WHERE number = %s"
                connection.execute(changed, [spec.to_json(), row[0]])

        self._database.run(work)
        self._known.pop(name, None)

    def drop(self, name: str) -> None:
        def work(connection: Connection) -> None:
            with connection.transaction():
                statement = "DELETE FROM sightline.collections WHERE name = %s RETURNING number"
                for (number,) in connection.execute(statement, [name]).fetchall():
                    connection.execute(f"DROP TABLE IF EXISTS {table_name(number)}".encode())

        self._database.run(work)
        self._known.pop(name, None)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        given = list(records)

        def work(connection: Connection, collection: StoredCollection) -> None:
            kept, vectors = prepare_records(given, collection.spec)
            layout = collection.layout
            if (
                layout is not None
                and layout.quantization == "half"
                and any(abs(v).max(initial=0) > MAX_HALF for v in vectors)
            ):
                raise ValueError(f"collection {name!r} is indexed in half precision: components reach {MAX_HALF:.0f}")
            if kept:
                write(connection, collection, kept, vectors)

        self._run_with_words(name, work)

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)
        wanted = storable_ids(ids)
        vector = "vector" if with_vectors else "NULL"

        def work(connection: Connection, collection: StoredCollection) -> dict[str, Record]:
            statement = f"SELECT id, {vector}, modality, text, uri, metadata FROM {collection.table} WHERE id = ANY(%s)"  # noqa: S608
            rows = connection.cursor(binary=True).execute(statement.encode(), [wanted])
            return {row[0]: record_of(row, with_vector=with_vectors) for row in rows}

        found = self._run(name, work)
        return [found[record_id] for record_id in ids if record_id in found]

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        ids = check_selection(ids, where)
        text, params = where_sql(where) if ids is None else ("id = ANY(%s)", [storable_ids(ids)])

        def work(connection: Connection, collection: StoredCollection) -> int:
            return connection.execute(f"DELETE FROM {collection.table} WHERE {text}".encode(), params).rowcount  # noqa: S608

        return self._run(name, work)

    def count(self, name: str, where: Where | None = None) -> int:
        return self._run(name, lambda connection, collection: _count(connection, collection, where))

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

        def work(connection: Connection, collection: StoredCollection) -> list[list[Hit]]:
            queries = prepare_queries(vectors, collection.spec)
            return self._searcher.search(connection, collection, queries, k, where, effort)

        return self._run(name, work)

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        check_search(k, None, self.capabilities)
        return self._run_with_words(
            name, lambda connection, collection: search_text(connection, collection, query, k, where), reads=True
        )

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        vector = "vector" if with_vectors else "NULL"
        after = cursor or ""

        def work(connection: Connection, collection: StoredCollection) -> list[Record]:
            statement = (
                f"SELECT id, {vector}, modality, text, uri, metadata FROM {collection.table} "  # noqa: S608
                f"WHERE id > %s ORDER BY id LIMIT {int(batch)}"
            )
            rows = connection.cursor(binary=True).execute(statement.encode(), [after])
            return [record_of(row, with_vector=with_vectors) for row in rows]

        while page := self._run(name, work):
            after = page[-1].id
            yield Page(page, after)

    def flush(self, name: str) -> None:
        def work(connection: Connection, _: StoredCollection) -> None:
            collection = self._find(connection, name, fresh=True)
            rows, having = _sizes(connection, collection)
            if rebuild_is_faster(connection, collection, rows):
                drop_index(connection, collection)
            maintain(connection, collection)
            collection = self._find(connection, name, fresh=True)
            if wants_build(collection, having):
                build(connection, collection, having)
                collection = self._find(connection, name, fresh=True)
            self._searcher.measure(connection, collection, having)
            self._find(connection, name, fresh=True)

        self._run(name, work)

    def close(self) -> None:
        self._database.close()


def _count(connection: Connection, collection: StoredCollection, where: Where | None) -> int:
    text, params = where_sql(where)
    row = connection.execute(f"SELECT count(*) FROM {collection.table} WHERE {text}".encode(), params).fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def _sizes(connection: Connection, collection: StoredCollection) -> tuple[int, int]:
    """How many records there are, and how many have a vector."""
    row = connection.execute(f"SELECT count(*), count(vector) FROM {collection.table}".encode()).fetchone()  # noqa: S608
    return (row[0], row[1]) if row else (0, 0)
