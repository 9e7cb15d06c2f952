"""Which index a collection gets in pgvector, how it is built, and the SQL that searches it.

The float32 vector always stays in the table. Quantization concerns the index only: its candidates are
scored again with the stored vector, so scores are exact and vectors come back bit for bit.

- Up to 2,000 dimensions an index holds the vectors themselves; ``half`` halves its size.
- From 2,001 to 4,000 pgvector indexes only ``halfvec``, so cosine collections get that by themselves;
  for dot and l2, whose components may exceed half precision's 65,504, ``half`` must be asked for.
- ``binary`` indexes the signs (Hamming distance, cosine only, up to 64,000 dimensions).
- Beyond that, ``auto`` and ``flat`` search exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import psycopg
from psycopg import errors

from backends.base import CollectionSpec
from backends.errors import Unsupported
from backends.pgvector.connection import Connection
from backends.pgvector.schema import MAX_DIM, Installed, table_name

# Below this an exact scan takes milliseconds and is never wrong.
AUTO_INDEX_ROWS = 10_000
HNSW_M, HNSW_EF_CONSTRUCTION = 16, 128
MAX_HALF = 65_504.0
_REPAIRED_SHARE = 0.02
_MAX_DIM = {"none": 2_000, "half": 4_000, "binary": 64_000}
_MAX_LISTS = 32_768
_MAX_BUILD_BYTES = 1 << 30
_DISTANCE = {"cosine": "<#>", "dot": "<#>", "l2": "<->"}
_CLASS = {"<#>": "ip_ops", "<->": "l2_ops"}


@dataclass(frozen=True, slots=True)
class StoredCollection:
    """A collection as stored: number of its table, spec, rows at the last ANALYZE, and the index if built.

    `lists` is an IVF index's number of lists, 0 otherwise; `words` the version of the words of its records.
    """

    number: int
    spec: CollectionSpec
    rows: int
    indexed: bool
    lists: int
    words: int

    @property
    def table(self) -> str:
        return table_name(self.number)

    @property
    def distance(self) -> str:
        """pgvector's operator, lower better. Cosine collections hold unit vectors: their dot product is the cosine."""
        return _DISTANCE[self.spec.metric]


@dataclass(frozen=True, slots=True)
class Layout:
    """An index to be: ``hnsw`` or ``ivfflat``, and how vectors are held in it."""

    method: str
    quantization: str

    def ordering(self, collection: StoredCollection) -> str:
        """The expression to order by, with the placeholder ``query``, which the index answers."""
        dim = collection.spec.dim
        if self.quantization == "half":
            return f"vector::halfvec({dim}) {collection.distance} %(query)s::halfvec({dim})"
        if self.quantization == "binary":
            return f"binary_quantize(vector)::bit({dim}) <~> binary_quantize(%(query)s)::bit({dim})"
        return f"vector {collection.distance} %(query)s"

    def columns(self, collection: StoredCollection) -> str:
        dim, operators = collection.spec.dim, _CLASS[collection.distance]
        if self.quantization == "half":
            return f"((vector::halfvec({dim})) halfvec_{operators})"
        if self.quantization == "binary":
            return f"((binary_quantize(vector)::bit({dim})) bit_hamming_ops)"
        return f"(vector vector_{operators})"


def layout_of(spec: CollectionSpec) -> Layout | None:
    """The index this spec asks for or allows, whatever the size of the collection; `None` is exact search."""
    if spec.index.kind == "flat":
        return None
    quantization = spec.index.quantization
    if quantization == "none" and spec.dim > _MAX_DIM["none"] and spec.metric == "cosine":
        quantization = "half"
    if spec.dim > _MAX_DIM[quantization]:
        return None
    return Layout("ivfflat" if spec.index.kind == "ivf" else "hnsw", quantization)


def check_layout(spec: CollectionSpec, installed: Installed) -> None:
    """Raise `Unsupported` for a spec that this pgvector cannot index as asked, naming what it can."""
    index = spec.index
    if spec.dim > MAX_DIM:
        raise Unsupported(f"pgvector stores vectors of up to {MAX_DIM} dimensions, not {spec.dim}")
    if index.quantization != "none" and index.kind == "flat":
        raise Unsupported("pgvector quantizes its indexes only: take index kind hnsw or ivf, or no quantization")
    if index.quantization == "binary" and spec.metric != "cosine":
        raise Unsupported(f"pgvector's binary quantization keeps angles only: it has no metric {spec.metric!r}")
    layout = layout_of(spec)
    if index.kind in ("hnsw", "ivf") and layout is None:
        raise Unsupported(
            f"pgvector has no {index.kind} index for {spec.dim} dimensions with quantization {index.quantization!r} "
            f"and metric {spec.metric!r}: half goes up to 4,000, binary (cosine) to 64,000, flat has no limit"
        )
    if layout is not None and layout.quantization != "none" and not installed.quantizes:
        version = ".".join(map(str, installed.version))
        raise Unsupported(f"pgvector {version} has no {layout.quantization} index: 0.7 or later has")
    _check_params(spec)


def _check_params(spec: CollectionSpec) -> None:
    params = spec.index.params
    for name, low, high in (("m", 2, 100), ("ef_construction", 4, 1000), ("nlist", 1, _MAX_LISTS)):
        if name in params and not low <= params[name] <= high:
            raise Unsupported(f"pgvector takes {name} from {low} to {high}, not {params[name]}")
    if spec.index.kind == "hnsw" and params.get("ef_construction", 1000) < 2 * params.get("m", HNSW_M):
        raise Unsupported("pgvector needs an ef_construction of at least twice m")


def default_lists(rows: int) -> int:
    """IVF lists for a number of rows: its square root, so that lists and centroids cost the same to scan."""
    return min(_MAX_LISTS, max(1, math.isqrt(rows)))


def wants_build(collection: StoredCollection, rows: int) -> bool:
    """Whether `flush` must (re)build: no index yet though due, or IVF lists chosen for a far smaller collection."""
    index = collection.spec.index
    if layout_of(collection.spec) is None or rows == 0:
        return False
    if not collection.indexed:
        return index.kind != "auto" or index.quantization != "none" or rows >= AUTO_INDEX_ROWS
    return 0 < 2 * collection.lists < default_lists(rows) and "nlist" not in index.params


def build(connection: Connection, collection: StoredCollection, rows: int) -> None:
    """Build the collection's vector index in one transaction; readers go on, writers wait."""
    try:
        _build(connection, collection, rows, parallel=True)
    except errors.DiskFull:
        # Parallel builds share memory through /dev/shm, which containers often limit to 64 MB.
        _build(connection, collection, rows, parallel=False)


def _build(connection: Connection, collection: StoredCollection, rows: int, *, parallel: bool) -> None:
    layout = layout_of(collection.spec)
    if layout is None:
        raise AssertionError("wants_build said that there is something to build")
    params = collection.spec.index.params
    if layout.method == "hnsw":
        m, ef_construction = params.get("m", HNSW_M), params.get("ef_construction", HNSW_EF_CONSTRUCTION)
        options = f"m = {m}, ef_construction = {max(ef_construction, 2 * m)}"
    else:
        options = f"lists = {params.get('nlist', default_lists(rows))}"
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
        if not parallel:
            connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        if collection.indexed:
            connection.execute(f"DROP INDEX IF EXISTS sightline.{name}".encode())
        connection.execute(
            f"CREATE INDEX IF NOT EXISTS {name} ON {collection.table} USING {layout.method} "
            f"{layout.columns(collection)} WITH ({options})".encode()
        )


def read_collection(connection: Connection, name: str) -> StoredCollection | None:
    """The collection of this name as the database has it now."""
    row = connection.execute(
        "SELECT c.number, c.spec, coalesce(t.reltuples, -1)::bigint, i.indexrelid IS NOT NULL, "
        "(SELECT split_part(o, '=', 2)::int FROM unnest(x.reloptions) o WHERE o LIKE 'lists=%%'), c.words "
        "FROM sightline.collections c "
        "LEFT JOIN pg_class t ON t.oid = to_regclass('sightline.c' || c.number) "
        "LEFT JOIN pg_class x ON x.oid = to_regclass('sightline.c' || c.number || '_vector') "
        "LEFT JOIN pg_index i ON i.indexrelid = x.oid AND i.indisvalid WHERE c.name = %s",
        [name],
    ).fetchone()
    if row is None:
        return None
    return StoredCollection(row[0], CollectionSpec.from_json(row[1]), row[2], row[3], row[4] or 0, row[5])


def rebuild_is_faster(connection: Connection, collection: StoredCollection, rows: int) -> bool:
    """Whether so many rows were deleted or replaced that a new graph is cheaper than repairing the old one.

    VACUUM finds new neighbours for every node that has lost one, which is a quarter of the graph when
    1% is gone, on one core and page by page; a build has all cores and works in memory (20,000 rows
    with 40% gone: 33 s against 5 s). Until it is built again, searches are exact scans.
    """
    layout = layout_of(collection.spec)
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
