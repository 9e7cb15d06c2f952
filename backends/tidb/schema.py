"""What Sightline keeps in a database of TiDB: a table of collections, and a table for each of them."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

import pymysql

from backends.base import CollectionSpec
from backends.errors import BackendError, Unavailable, Unsupported
from backends.tidb.connection import Connection, Database, change, explain, rows

COLLECTIONS = "sightline_collections"
_VERSIONS = "sightline_migrations"
MIN_VERSION = (8, 4)
MAX_DIM = 16_383
# A table that no collection names, of a process that was killed while it made or dropped one. One that is being made
# now is younger.
_LEFTOVER_HOURS = 1
_PREFIX = "sightline_c_"

# One entry per version, never edited once released: a change is a new entry. DDL is no part of a transaction in
# TiDB, so each must be safe to repeat.
_MIGRATIONS = (
    f"""CREATE TABLE IF NOT EXISTS {COLLECTIONS} (
        name VARBINARY(64) PRIMARY KEY CLUSTERED,
        storage VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        spec MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        words INT NOT NULL,
        indexed BOOL NOT NULL DEFAULT FALSE
    )""",
)


@dataclass(frozen=True, slots=True)
class StoredCollection:
    """A collection as stored: its table, spec, the version of its records' words, and whether vectors are indexed."""

    table: str
    spec: CollectionSpec
    words: int
    indexed: bool


def prepare(database: Database) -> None:
    """Bring the database to this version's tables. Safe to call from any number of processes at once.

    Raises `Unavailable` for what is no TiDB or one without vectors, `BackendError` for tables of a newer Sightline.
    """
    with database.connect(timeout_s=None) as connection:
        try:
            _check_version(connection, database.address)
            _migrate(connection, database.address)
        except pymysql.Error as error:
            raise explain(error, database.address) from error


def version_of(connection: Connection) -> tuple[int, ...] | None:
    """TiDB's version; None where another server answers."""
    ((told,),) = rows(connection, "SELECT VERSION()")
    found = re.search(r"TiDB-v?(\d+)\.(\d+)\.(\d+)", str(told))
    return tuple(map(int, found.groups())) if found else None


def _check_version(connection: Connection, address: str) -> None:
    version = version_of(connection)
    if version is None:
        raise Unavailable(f"{address} is no TiDB: MySQL and MariaDB have not its vectors")
    if version < MIN_VERSION:
        raise Unavailable(f"{address} is TiDB {'.'.join(map(str, version))}; vectors need 8.4 or later: upgrade it")


def _migrate(connection: Connection, address: str) -> None:
    version = _version(connection)
    if version == len(_MIGRATIONS):
        return
    if version > len(_MIGRATIONS):
        raise BackendError(
            f"{address}: its tables of Sightline have version {version}, this Sightline knows up to "
            f"{len(_MIGRATIONS)}: upgrade Sightline"
        )
    change(connection, f"CREATE TABLE IF NOT EXISTS {_VERSIONS} (version INT PRIMARY KEY CLUSTERED)")
    for number, statement in enumerate(_MIGRATIONS[version:], start=version + 1):
        change(connection, statement)
        change(connection, f"INSERT IGNORE INTO {_VERSIONS} (version) VALUES (%s)", [number])  # noqa: S608


def _version(connection: Connection) -> int:
    if not rows(connection, "SHOW TABLES LIKE %s", [_VERSIONS.replace("_", r"\_")]):
        return 0
    ((version,),) = rows(connection, f"SELECT MAX(version) FROM {_VERSIONS}")  # noqa: S608
    return int(version or 0)


def read_collection(connection: Connection, name: str) -> StoredCollection | None:
    """What is stored of a collection; None where there is none of that name."""
    statement = f"SELECT storage, spec, words, indexed FROM {COLLECTIONS} WHERE name = %s"  # noqa: S608
    found = rows(connection, statement, [name.encode()])
    if not found:
        return None
    table, spec, words, indexed = found[0]
    return StoredCollection(table, CollectionSpec.from_json(spec), words, bool(indexed))


def check_dim(spec: CollectionSpec) -> None:
    """Raise `Unsupported` for vectors that are too long."""
    if spec.dim > MAX_DIM:
        raise Unsupported(f"TiDB stores vectors of up to {MAX_DIM} dimensions, not {spec.dim}")


def create_table(connection: Connection, spec: CollectionSpec) -> str:
    """Make the table of a collection that is to be, and give its name.

    One row is one key, since the primary key is clustered and there is no other: a transaction of few keys is one step
    for TiDB. `id` is of bytes, which compare as code points and keep the spaces at their end. `metadata` is what comes
    back, `fields` what filters read, `terms` how often each word is there and `length` their sum: what BM25 needs.
    """
    table = f"{_PREFIX}{uuid.uuid4().hex}"
    text = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    change(
        connection,
        f"""CREATE TABLE {table} (
            id VARBINARY(512) NOT NULL,
            modality VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            text MEDIUMTEXT {text},
            uri MEDIUMTEXT {text},
            metadata MEDIUMTEXT {text} NOT NULL,
            fields JSON NOT NULL,
            terms JSON NOT NULL,
            length INT NOT NULL,
            vector VECTOR({spec.dim}),
            PRIMARY KEY (id) CLUSTERED
        )""",
    )
    return table


def drop_table(connection: Connection, table: str) -> None:
    """Remove a table, if it is there."""
    change(connection, f"DROP TABLE IF EXISTS {table}")


def drop_leftovers(connection: Connection) -> None:
    """Remove the tables of collections that a killed process did not finish to make or to drop."""
    statement = f"""
        SELECT table_name FROM information_schema.tables
        WHERE table_schema = DATABASE() AND LEFT(table_name, {len(_PREFIX)}) = '{_PREFIX}'
        AND create_time < NOW() - INTERVAL {_LEFTOVER_HOURS} HOUR
        AND table_name NOT IN (SELECT storage FROM {COLLECTIONS})
    """  # noqa: S608
    for (table,) in rows(connection, statement):
        drop_table(connection, table)
