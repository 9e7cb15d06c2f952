"""The vector index, which a cluster keeps on its TiFlash nodes: whether it is there, and how it is built.

A table gets a copy on TiFlash, then the index on that copy. Reading it sees all that was written before.
"""

from __future__ import annotations

import time

import pymysql

from backends.base import CollectionSpec, Metric
from backends.errors import Unavailable, Unsupported
from backends.tidb.connection import RIGHTS, Connection, change, number_of, rows
from backends.tidb.schema import COLLECTIONS, StoredCollection

# Below this an exact scan takes milliseconds and is never wrong.
AUTO_INDEX_ROWS = 10_000
# What the index is made for, and must be asked by. There is none for inner products.
DISTANCES: dict[Metric, str] = {"cosine": "VEC_COSINE_DISTANCE", "l2": "VEC_L2_DISTANCE"}
_POLL_S = 1.0
_COPY_WAITS = 3_600


def has_tiflash(connection: Connection) -> bool:
    """Whether the cluster has TiFlash nodes; False where this user may not know (it takes the PROCESS privilege)."""
    statement = "SELECT COUNT(*) FROM information_schema.cluster_info WHERE type = 'tiflash'"
    try:
        ((count,),) = rows(connection, statement)
    except pymysql.Error as error:
        if number_of(error) not in RIGHTS:
            raise
        return False
    return bool(count)


def check_index(spec: CollectionSpec) -> None:
    """Raise `Unsupported` for an index that TiDB cannot make as asked."""
    if spec.index.kind != "hnsw":
        return
    if spec.metric not in DISTANCES:
        raise Unsupported(f"TiDB has no hnsw index for the metric {spec.metric!r}: take flat, or cosine or l2")
    if spec.index.params:
        raise Unsupported(
            f"TiDB's hnsw index has no parameters to set: leave out {', '.join(sorted(spec.index.params))}"
        )


def wants_index(collection: StoredCollection, having: int) -> bool:
    """Whether a flush is to build an index over so many vectors: where it was asked for, or ``auto`` pays."""
    spec = collection.spec
    if collection.indexed or spec.metric not in DISTANCES:
        return False
    return spec.index.kind == "hnsw" or (spec.index.kind == "auto" and having >= AUTO_INDEX_ROWS)


def bring_up_to_date(connection: Connection, name: str, collection: StoredCollection) -> None:
    """Build the index where there is none, else have it take in what was written since."""
    if collection.indexed:
        # What is written is first beside the part of the copy that the index is over.
        change(connection, f"ALTER TABLE {collection.table} COMPACT TIFLASH REPLICA")
    else:
        _build(connection, name, collection)


def _build(connection: Connection, name: str, collection: StoredCollection) -> None:
    """Copy the table to TiFlash, index its vectors there, and note that searches may use the index."""
    table = collection.table
    change(connection, f"ALTER TABLE {table} SET TIFLASH REPLICA 1")
    _wait_for_copy(connection, table)
    change(
        connection,
        f"ALTER TABLE {table} ADD VECTOR INDEX IF NOT EXISTS vectors "
        f"(({DISTANCES[collection.spec.metric]}(vector))) USING HNSW",
    )
    statement = f"UPDATE {COLLECTIONS} SET indexed = TRUE WHERE name = %s AND storage = %s"  # noqa: S608
    change(connection, statement, [name.encode(), table])


def _wait_for_copy(connection: Connection, table: str) -> None:
    statement = (
        "SELECT available FROM information_schema.tiflash_replica WHERE table_schema = DATABASE() AND table_name = %s"
    )
    for _ in range(_COPY_WAITS):
        if rows(connection, statement, [table]) == [(1,)]:
            return
        time.sleep(_POLL_S)
    raise Unavailable(
        f"TiFlash has not copied the table {table} within {_COPY_WAITS * _POLL_S:.0f} s: are its nodes running?"
    )
