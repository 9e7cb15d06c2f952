"""``tidb://``: a TiDB server or cluster, 8.4 or later.

Each collection is a table whose name begins with ``sightline_``; nothing else in the database is touched. An `upsert`
is one transaction for each hundred records: a record is stored whole or not at all, and all are durable when it
returns. A call that failed in the middle may be made again, and then stores what is missing.

Searches compare every row unless the cluster has TiFlash nodes: then `flush` builds a vector index there, which
searches without a filter use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Self, TypeVar

import pymysql
from numpy.typing import ArrayLike
from pymysql.constants import ER

from backends.base import (
    BackendError,
    Capabilities,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Hit,
    IndexKind,
    Page,
    Record,
    Unsupported,
    Where,
    prepare_queries,
    prepare_records,
)
from backends.checks import check_batch, check_ids, check_index, check_search, check_selection
from backends.kit.record_ids import storable_ids
from backends.kit.sql_store import SqlStore
from backends.text import WORDS_VERSION
from backends.tidb import index
from backends.tidb.connection import (
    RIGHTS,
    Connection,
    Database,
    change,
    explain,
    number_of,
    parse_url,
    rows,
    transaction,
)
from backends.tidb.filters import Clause, where_sql
from backends.tidb.records import COLUMNS, id_parts, record_of, write
from backends.tidb.schema import (
    COLLECTIONS,
    StoredCollection,
    check_dim,
    create_table,
    drop_leftovers,
    drop_table,
    prepare,
    read_collection,
)
from backends.tidb.search import search, search_text
from backends.tidb.words import renew_words

T = TypeVar("T")

_IDS_A_STATEMENT = 1_000


class TidbBackend(SqlStore[Connection, StoredCollection]):
    """Collections in a database of TiDB, over a pool of connections."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True, persistent=True, server=True, concurrent_writers=True, effort=False
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database, "TiDB", (_NotAllowed,))
        self._database = database
        prepare(database)
        self._indexes = database.run(index.has_tiflash)
        if self._indexes:
            kinds: frozenset[IndexKind] = frozenset({"auto", "flat", "hnsw"})
            self.capabilities = replace(self.capabilities, index_kinds=kinds)  # type: ignore[misc]

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open a server's database and bring its tables up to date; see `connection.parse_url` for the URL."""
        return cls(Database(parse_url(url)))

    def _read_collection(self, connection: Connection, name: str) -> StoredCollection | None:
        return read_collection(connection, name)

    def _is_gone(self, error: Exception) -> bool:
        return bool(number_of(error) == ER.NO_SUCH_TABLE)

    def _renew_words(self, connection: Connection, collection: StoredCollection) -> None:
        try:
            renew_words(connection, collection.spec.name, collection)
        except pymysql.Error as error:
            if number_of(error) in RIGHTS:
                raise _NotAllowed(str(explain(error, self._database.address))) from error
            raise

    def collections(self) -> list[str]:
        statement = f"SELECT name FROM {COLLECTIONS} ORDER BY name"  # noqa: S608
        return self._database.run(lambda connection: [row[0].decode() for row in rows(connection, statement)])

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, "this TiDB")
        check_dim(spec)
        index.check_index(spec)

        def work(connection: Connection) -> None:
            drop_leftovers(connection)
            if read_collection(connection, spec.name) is not None:
                raise self._exists(spec.name)
            # First the table, then its name: who is killed in between leaves a table that nobody knows.
            table = create_table(connection, spec)
            statement = f"INSERT INTO {COLLECTIONS} (name, storage, spec, words) VALUES (%s, %s, %s, %s)"  # noqa: S608
            try:
                change(connection, statement, [spec.name.encode(), table, spec.to_json(), WORDS_VERSION])
            except pymysql.IntegrityError as error:
                drop_table(connection, table)
                raise self._exists(spec.name) from error

        self._database.run(work)

    def _exists(self, name: str) -> CollectionExists:
        return CollectionExists(f"collection {name!r} is already in {self._database.address}")

    def set_encoder(self, name: str, fingerprint: str) -> None:
        def work(connection: Connection) -> None:
            with transaction(connection):
                found = rows(connection, f"SELECT spec FROM {COLLECTIONS} WHERE name = %s FOR UPDATE", [name.encode()])  # noqa: S608
                if not found:
                    raise CollectionNotFound(f"no collection {name!r} in {self._database.address}")
                spec = replace(CollectionSpec.from_json(found[0][0]), encoder=fingerprint)
                changed = f"UPDATE {COLLECTIONS} SET spec = %s WHERE name = %s"  # noqa: S608
                change(connection, changed, [spec.to_json(), name.encode()])

        self._database.run(work)
        self._known.pop(name, None)

    def drop(self, name: str) -> None:
        def work(connection: Connection) -> None:
            collection = read_collection(connection, name)
            if collection is not None:
                gone = f"DELETE FROM {COLLECTIONS} WHERE name = %s AND storage = %s"  # noqa: S608
                change(connection, gone, [name.encode(), collection.table])
                drop_table(connection, collection.table)

        self._database.run(work)
        self._known.pop(name, None)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        given = list(records)

        def work(connection: Connection, collection: StoredCollection) -> None:
            kept, vectors = prepare_records(given, collection.spec)
            write(connection, collection.table, kept, vectors)

        self._run_with_words(name, work)

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)
        wanted = [record_id.encode() for record_id in storable_ids(ids)]

        def work(connection: Connection, collection: StoredCollection) -> dict[str, Record]:
            found = {}
            for start in range(0, len(wanted), _IDS_A_STATEMENT):
                part = wanted[start : start + _IDS_A_STATEMENT]
                where = f"id IN ({', '.join(['%s'] * len(part))})"
                for row in rows(connection, _select(collection, where, with_vectors=with_vectors), part):
                    record = record_of(row, with_vector=with_vectors)
                    found[record.id] = record
            return found

        found = self._run(name, work)
        return [found[record_id] for record_id in ids if record_id in found]

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        ids = check_selection(ids, where)
        condition = where_sql(where)
        wanted = [record_id.encode() for record_id in storable_ids(ids or ())]

        def work(connection: Connection, collection: StoredCollection) -> int:
            parts = id_parts(wanted) if ids is not None else _matching(connection, collection, condition)
            return sum(_delete(connection, collection, part, condition) for part in parts)

        return self._run(name, work)

    def count(self, name: str, where: Where | None = None) -> int:
        text, params = where_sql(where)

        def work(connection: Connection, collection: StoredCollection) -> int:
            ((count,),) = rows(connection, f"SELECT COUNT(*) FROM {collection.table} WHERE {text}", params)  # noqa: S608
            return int(count)

        return self._run(name, work)

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
        if effort is not None and self._indexes:
            raise Unsupported("TiDB's vector index has no effort to set: leave it out")

        def work(connection: Connection, collection: StoredCollection) -> list[list[Hit]]:
            return search(connection, collection, prepare_queries(vectors, collection.spec), k, where)

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
        after = cursor or ""

        def work(connection: Connection, collection: StoredCollection) -> list[Record]:
            where = f"id > %s ORDER BY id LIMIT {int(batch)}"
            found = rows(connection, _select(collection, where, with_vectors=with_vectors), [after.encode()])
            return [record_of(row, with_vector=with_vectors) for row in found]

        while page := self._run(name, work):
            after = page[-1].id
            yield Page(page, after)

    def flush(self, name: str) -> None:
        def sizes(connection: Connection, _: StoredCollection) -> tuple[StoredCollection, int]:
            collection = self._find(connection, name, fresh=True)
            having = 0
            if self._indexes:
                ((having,),) = rows(connection, f"SELECT COUNT(vector) FROM {collection.table}")  # noqa: S608
            return collection, having

        collection, having = self._run(name, sizes)
        if collection.indexed or index.wants_index(collection, having):
            self._database.run_long(lambda connection: index.bring_up_to_date(connection, name, collection))
            self._known.pop(name, None)

    def close(self) -> None:
        self._database.close()


class _NotAllowed(BackendError):
    """This user may not write."""


def _select(collection: StoredCollection, where: str, *, with_vectors: bool) -> str:
    columns = f"{COLUMNS}, vector" if with_vectors else COLUMNS
    return f"SELECT {columns} FROM {collection.table} WHERE {where}"  # noqa: S608


def _matching(connection: Connection, collection: StoredCollection, condition: Clause) -> Iterator[list[bytes]]:
    """The ids of the records that match, in parts that one transaction may delete."""
    text, params = condition
    statement = f"SELECT id FROM {collection.table} WHERE id > %s AND {text} ORDER BY id LIMIT {_IDS_A_STATEMENT}"  # noqa: S608
    last = b""
    while found := [row[0] for row in rows(connection, statement, [last, *params])]:
        last = found[-1]
        yield from id_parts(found)


def _delete(connection: Connection, collection: StoredCollection, ids: Sequence[bytes], condition: Clause) -> int:
    """Delete these, as far as they still match: others may have written them anew."""
    text, params = condition
    marks = ", ".join(["%s"] * len(ids))
    statement = f"DELETE FROM {collection.table} WHERE id IN ({marks}) AND {text}"  # noqa: S608
    return change(connection, statement, [*ids, *params])
