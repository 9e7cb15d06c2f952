"""What Sightline keeps in PostgreSQL: a schema of its own, made by migrations, and a table per collection."""

from __future__ import annotations

import psycopg

from backends.base import CollectionSpec
from backends.errors import BackendError, Unavailable
from backends.pgvector.connection import Connection, Database, connection_lost, explain
from backends.pgvector.dialect import PGVECTOR, Dialect, Installed

SCHEMA = "sightline"
# "sightlin" in ASCII: the key of the lock under which schemas are migrated, whatever process does it.
_MIGRATION_LOCK = 0x73696768746C696E
# Vectors up to here stay in the row (pages have 8 KiB); longer ones move out of line, which slows scans.
_INLINE_DIM = 1_500


def prepare(database: Database, dialect: Dialect = PGVECTOR) -> Installed:
    """Bring the database to this version's schema and say what it has of vectors.

    Safe to call from any number of processes at once. Raises `Unavailable` when they are missing
    or too old, the encoding is not UTF-8, or the schema is of a newer Sightline.
    """
    with database.connect() as connection:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise Unavailable(f"{database.address} has encoding {encoding}: create a database with ENCODING 'UTF8'")
        try:
            if _version(connection) != len(dialect.migrations()) or dialect.find(connection) is None:
                with connection.transaction():
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATION_LOCK])
                    _migrate(connection, database.address, dialect)
            installed = dialect.find(connection)
        except psycopg.Error as error:
            raise explain(error, database.address, lost=connection_lost(error, connection)) from error
    return dialect.check_installed(installed, database.address)


def _version(connection: Connection) -> int:
    row = connection.execute("SELECT to_regclass('sightline.migrations') IS NOT NULL").fetchone()
    if not row or not row[0]:
        return 0
    row = connection.execute("SELECT coalesce(max(version), 0) FROM sightline.migrations").fetchone()
    return int(row[0]) if row else 0


def _migrate(connection: Connection, address: str, dialect: Dialect) -> None:
    if dialect.find(connection) is None:
        dialect.install(connection, address)
    connection.execute("CREATE SCHEMA IF NOT EXISTS sightline")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS sightline.migrations "
        "(version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        f"{dialect.distributed('version')}".encode()
    )
    version = _version(connection)
    if version > len(dialect.migrations()):
        raise BackendError(
            f"{address}: its schema {SCHEMA!r} has version {version}, this Sightline knows up to "
            f"{len(dialect.migrations())}: upgrade Sightline"
        )
    for number, script in enumerate(dialect.migrations()[version:], start=version + 1):
        connection.execute(script.encode())
        connection.execute("INSERT INTO sightline.migrations (version) VALUES (%s)", [number])


def table_name(number: int) -> str:
    """The table of a collection: numbered, because collection names may differ in case only or be too long."""
    return f"{SCHEMA}.c{number}"


def create_table(connection: Connection, number: int, spec: CollectionSpec, dialect: Dialect) -> None:
    """Make a collection's table: the record, its words with their counts, and its vector as float32, NULL for none.

    `terms` maps each folded word of text and file name to how often it is there, `length` is their sum: what BM25
    needs, read off by key. A ``tsvector`` would hold the same words, but gives counts only by unpacking
    the whole document (4 to 7 times slower over 20,000 texts of 60 words), and refuses long words.
    """
    table = table_name(number)
    storage = "PLAIN" if spec.dim <= _INLINE_DIM else "EXTERNAL"
    for statement in (
        f"""CREATE TABLE {table} (
            id text COLLATE "C" PRIMARY KEY,
            modality text COLLATE "C" NOT NULL,
            text text,
            uri text,
            metadata jsonb NOT NULL,
            terms jsonb NOT NULL,
            length integer NOT NULL,
            vector vector({spec.dim})
        ){dialect.distributed("id")}""",
        f"ALTER TABLE {table} ALTER COLUMN vector SET STORAGE {storage}",
        f"CREATE INDEX ON {table} USING gin (metadata jsonb_path_ops)",
        f"CREATE INDEX ON {table} USING gin (terms)",
        f"CREATE INDEX ON {table} (length)",
    ):
        connection.execute(statement.encode())


def allow_null(connection: Connection, table: str) -> None:
    """See to it that a table takes records without a vector: those made before there were any do not."""
    statement = f"SELECT attnotnull FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'vector'"  # noqa: S608
    row = connection.execute(statement.encode()).fetchone()
    if row is not None and row[0]:
        connection.execute(f"ALTER TABLE {table} ALTER COLUMN vector DROP NOT NULL".encode())
