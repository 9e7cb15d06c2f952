"""A collection's table and vector index in PostgreSQL: what is there, when to build, how it is kept in order."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

import psycopg
from psycopg import errors

from backends.base import CollectionSpec
from backends.kit.widths import Width
from backends.pgvector.connection import Connection
from backends.pgvector.dialect import DISTANCES, PGVECTOR, Dialect, Layout, default_lists
from backends.pgvector.filters import number_index
from backends.pgvector.schema import table_name

# Below this an exact scan takes milliseconds and is never wrong.
AUTO_INDEX_ROWS = 10_000
MAX_HALF = 65_504.0
_REPAIRED_SHARE = 0.02
_MAX_BUILD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class StoredCollection:
    """A collection as stored: number of its table, spec, rows at the last ANALYZE, and the index if built.

    `lists` is an IVF index's number of lists, 0 otherwise; `words` the version of the words of its records; `width` how
    wide its graph has to be searched, None where that was not tried.
    """

    number: int
    spec: CollectionSpec
    rows: int
    indexed: bool
    lists: int
    words: int
    dialect: Dialect
    width: Width | None = None

    @property
    def table(self) -> str:
        return table_name(self.number)

    @property
    def distance(self) -> str:
        """The operator, lower better, of its metric."""
        return DISTANCES[self.spec.metric]

    @property
    def layout(self) -> Layout | None:
        """The index that its spec asks for or allows; `None` is exact search."""
        return self.dialect.layout(self.spec)


def wants_build(collection: StoredCollection, rows: int) -> bool:
    """Whether `flush` must (re)build: no index yet though due, or IVF lists chosen for a far smaller collection."""
    index = collection.spec.index
    if collection.layout is None or rows == 0:
        return False
    if not collection.indexed:
        return index.kind != "auto" or index.quantization != "none" or rows >= AUTO_INDEX_ROWS
    return 0 < 2 * collection.lists < default_lists(rows) and "nlist" not in index.params


def build(connection: Connection, collection: StoredCollection, rows: int) -> None:
    """Build the collection's vector index in one transaction; readers go on, writers wait."""
    try:
        _build(connection, collection, rows, setting=None)
    except errors.DiskFull:
        # Parallel builds share memory through /dev/shm, which containers often limit to 64 MB.
        if collection.dialect.serial_build is None:
            raise
        _build(connection, collection, rows, setting=collection.dialect.serial_build)


def _build(connection: Connection, collection: StoredCollection, rows: int, *, setting: str | None) -> None:
    name = f"c{collection.number}_vector"
    # The graph is built several times faster while it fits: vector, 2m neighbours of 6 bytes and headers.
    need_bytes = rows * (4 * collection.spec.dim + 512) * 5 // 4
    memory_kib = max(64 << 10, min(_MAX_BUILD_BYTES, need_bytes) >> 10)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('sightline.build'), %s)", [collection.number])
        connection.execute(
            "SELECT set_config('statement_timeout', '0', true), set_config('maintenance_work_mem', %s, true)",
            [f"{memory_kib}kB"],
        )
        if setting is not None:
            connection.execute(setting.encode())
        if collection.indexed:
            connection.execute(f"DROP INDEX IF EXISTS sightline.{name}".encode())
        elif _is_there(connection, name):
            # Another process built it while this one waited for the lock.
            return
        statement = collection.dialect.create_index(name, collection.table, collection.spec, rows)
        connection.execute(statement.encode())


def _is_there(connection: Connection, index: str) -> bool:
    row = connection.execute(f"SELECT to_regclass('sightline.{index}') IS NOT NULL".encode()).fetchone()
    return bool(row and row[0])


def read_collection(connection: Connection, name: str, dialect: Dialect = PGVECTOR) -> StoredCollection | None:
    """The collection of this name as the database has it now."""
    row = connection.execute(
        "SELECT c.number, c.spec, coalesce(t.reltuples, -1)::bigint, i.indexrelid IS NOT NULL, "
        "(SELECT split_part(o, '=', 2)::int FROM unnest(x.reloptions) o WHERE o LIKE 'lists=%%'), c.words, "
        "obj_description(i.indexrelid, 'pg_class') "
        "FROM sightline.collections c "
        "JOIN pg_namespace s ON s.nspname = 'sightline' "
        "LEFT JOIN pg_class t ON t.relnamespace = s.oid AND t.relname = ('c' || c.number)::name "
        "LEFT JOIN pg_class x ON x.relnamespace = s.oid AND x.relname = ('c' || c.number || '_vector')::name "
        "LEFT JOIN pg_index i ON i.indexrelid = x.oid AND i.indisvalid WHERE c.name = %s",
        [name],
    ).fetchone()
    if row is None:
        return None
    return StoredCollection(
        number=row[0],
        spec=CollectionSpec.from_json(row[1]),
        rows=row[2],
        indexed=row[3],
        lists=row[4] or 0,
        words=row[5],
        dialect=dialect,
        width=Width.from_json(row[6]),
    )


def keep_width(connection: Connection, collection: StoredCollection, width: Width) -> None:
    """Keep it with the index, and as long as that; not where this user does not own the index."""
    # Its JSON has names and numbers only.
    statement = f"COMMENT ON INDEX sightline.c{collection.number}_vector IS '{width.to_json()}'"
    with suppress(errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def index_field(connection: Connection, collection: StoredCollection, field: str) -> None:
    """Make an index of a metadata field's numbers; not where this user may not, or others write for too long."""
    name = f"c{collection.number}_{blake2b(field.encode(), digest_size=8).hexdigest()}"
    if _is_there(connection, name):
        return
    with suppress(errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction, errors.LockNotAvailable):
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('sightline.build'), %s)", [collection.number])
            connection.execute(
                "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '2s', true)"
            )
            connection.execute(number_index(name, collection.table, field).encode())
        # So that the planner knows how many rows it finds.
        connection.execute(f"ANALYZE {collection.table}".encode())


def rebuild_is_faster(connection: Connection, collection: StoredCollection, rows: int) -> bool:
    """Whether so many rows were deleted or replaced that a new graph is cheaper than repairing the old one.

    VACUUM finds new neighbours for every node that has lost one, which is a quarter of the graph when
    1% is gone, on one core and page by page; a build has all cores and works in memory (20,000 rows
    with 40% gone: 33 s against 5 s). Until it is built again, searches are exact scans.
    """
    layout = collection.layout
    if not collection.indexed or layout is None or layout.method != "hnsw":
        return False
    statement = f"SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = '{collection.table}'::regclass"  # noqa: S608
    row = connection.execute(statement.encode()).fetchone()
    return bool(row and row[0] > _REPAIRED_SHARE * rows)


def drop_index(connection: Connection, collection: StoredCollection) -> None:
    """Drop the vector index."""
    connection.execute(f"DROP INDEX IF EXISTS sightline.c{collection.number}_vector".encode())


def maintain(connection: Connection, collection: StoredCollection) -> None:
    """Give back the space of deleted rows and refresh the planner's statistics."""
    try:
        connection.execute(f"VACUUM (ANALYZE) {collection.table}".encode())
    except psycopg.errors.LockNotAvailable:
        # Another process is vacuuming this table: the same end by other hands.
        return
