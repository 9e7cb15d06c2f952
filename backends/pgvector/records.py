"""Records to and from PostgreSQL rows, and bulk writing by binary COPY."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import errors

from backends.base import NO_VECTOR, Record
from backends.kit.json_text import encode
from backends.pgvector.connection import Connection
from backends.pgvector.filters import metadata_json
from backends.pgvector.index import StoredCollection
from backends.pgvector.schema import allow_null
from backends.text import searched_text, tokenize

_COLUMNS = ("id", "modality", "text", "uri", "metadata", "terms", "length", "vector")
_STAGING = "pg_temp.sightline_staging"
# COPY's binary format, https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
_HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_FIELDS = struct.pack(">h", len(_COLUMNS))
_NULL = struct.pack(">i", -1)
_JSONB_VERSION = b"\x01"
_CHUNK_ROWS = 500
Vectors = Sequence[NDArray[np.float32]]


def _field(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _text(value: str | None) -> bytes:
    return _NULL if value is None else _field(value.encode())


def _vector(vector: NDArray[np.float32]) -> bytes:
    if not vector.size:
        return _NULL
    return _field(struct.pack(">hh", len(vector), 0) + vector.astype(">f4").tobytes())


def _row(record: Record, vector: NDArray[np.float32]) -> bytes:
    terms = Counter(tokenize(searched_text(record.text, record.uri)))
    return b"".join(
        (
            _FIELDS,
            _text(record.id),
            _text(record.modality),
            _text(record.text),
            _text(record.uri),
            _field(_JSONB_VERSION + metadata_json(record.metadata).encode()),
            _field(_JSONB_VERSION + encode(terms).encode()),
            _field(struct.pack(">i", terms.total())),
            _vector(vector),
        )
    )


def _chunks(records: Sequence[Record], vectors: Vectors) -> Iterator[bytes]:
    yield _HEADER
    for start in range(0, len(records), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        yield b"".join(_row(record, vector) for record, vector in zip(records[part], vectors[part], strict=True))
    yield _TRAILER


def _copy(connection: Connection, table: str, records: Sequence[Record], vectors: Vectors) -> None:
    statement = f"COPY {table} ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor().copy(statement.encode()) as copy:
        for chunk in _chunks(records, vectors):
            copy.write(chunk)


def write(connection: Connection, collection: StoredCollection, records: Sequence[Record], vectors: Vectors) -> None:
    """Store the records in one transaction, replacing those whose id is there.

    New ids go straight into the table; where some are there already, by way of a temporary table.
    """
    if not all(vector.size for vector in vectors):
        allow_null(connection, collection.table)
    ids = [record.id for record in records]
    statement = f"SELECT 1 FROM {collection.table} WHERE id = ANY(%s) LIMIT 1"  # noqa: S608
    if connection.execute(statement.encode(), [ids]).fetchone() is None:
        try:
            with connection.transaction():
                _copy(connection, collection.table, records, vectors)
            return
        except errors.UniqueViolation:
            # Another writer stored one of these ids in between.
            pass
    _merge(connection, collection, records, vectors)


def _merge(connection: Connection, collection: StoredCollection, records: Sequence[Record], vectors: Vectors) -> None:
    columns = ", ".join(_COLUMNS)
    changes = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:])
    with connection.transaction():
        connection.execute("SET LOCAL client_min_messages = warning")
        connection.execute(
            f"CREATE TEMP TABLE IF NOT EXISTS sightline_staging (LIKE {collection.table}) ON COMMIT DROP"
            f"{collection.dialect.distributed('id')}".encode()
        )
        _copy(connection, _STAGING, records, vectors)
        # In one order, so that two writers of the same ids wait for each other instead of deadlocking.
        connection.execute(
            f'INSERT INTO {collection.table} ({columns}) SELECT {columns} FROM {_STAGING} ORDER BY id COLLATE "C" '  # noqa: S608
            f"ON CONFLICT (id) DO UPDATE SET {changes}".encode()
        )


def record_of(row: Sequence[Any], *, with_vector: bool) -> Record:
    """The record of a row of id, vector, modality, text, uri and metadata; a vector that is not read is NULL there."""
    record_id, vector, *rest = row
    return Record(record_id, NO_VECTOR if with_vector and vector is None else vector, *rest)
