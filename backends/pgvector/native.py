"""pgvector by psycopg alone, as its documentation shows it: the other side of `benchmarks.adapters`.

Searches read the adapter's own table: a second one would have another graph, and the two would push
each other out of PostgreSQL's buffers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from backends.base import Backend, CollectionSpec, Record
from backends.pgvector.backend import PostgresBackend
from backends.pgvector.dialect import SETTINGS
from backends.pgvector.index import read_collection
from backends.text import tokenize

_COLUMNS = "id, modality, text, uri, metadata, terms, length, vector"
_TYPES = ("text", "text", "text", "text", "jsonb", "jsonb", "int4", "vector")


class NativePgvector:
    """One connection with prepared statements; a table of the same columns and indexes for upserts."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        if not isinstance(backend, PostgresBackend):
            raise TypeError(f"not a PostgreSQL backend: {backend!r}")
        # The server of the backend, whichever way that was reached.
        self._connection = psycopg.connect(backend._database._conninfo, autocommit=True)
        register_vector(self._connection)
        execute = self._connection.execute
        collection = read_collection(self._connection, spec.name)
        if collection is None:
            raise ValueError(f"collection {spec.name!r} must be there")
        self._table = collection.table
        execute("CREATE SCHEMA IF NOT EXISTS bench_raw")
        execute("DROP TABLE IF EXISTS bench_raw.stored")
        # Before `load`, so without the vector index, as the adapter's second collection is.
        execute(f"CREATE TABLE bench_raw.stored (LIKE {self._table} INCLUDING ALL)".encode())
        execute("CREATE TEMP TABLE staging (LIKE bench_raw.stored) ON COMMIT DELETE ROWS")
        for name, value in SETTINGS.items():
            execute("SELECT set_config(%s, %s, false)", [name, value])

    def load(self, records: Sequence[Record]) -> None:
        """The adapter's table holds them already."""

    def _statement(self, k: int) -> bytes:
        return (
            f"SELECT id, modality, text, uri, metadata, vector <#> %s AS distance FROM {self._table} "  # noqa: S608
            f"ORDER BY vector <#> %s LIMIT {k}"
        ).encode()

    def search(self, query: NDArray[np.float32], k: int) -> list[str]:
        """One statement."""
        cursor = self._connection.cursor(binary=True).execute(self._statement(k), [query, query])
        return [row[0] for row in cursor.fetchall()]

    def search_batch(self, queries: NDArray[np.float32], k: int) -> list[list[str]]:
        """One pipeline."""
        statement = self._statement(k)
        with self._connection.pipeline():
            cursors = [self._connection.cursor(binary=True).execute(statement, [q, q]) for q in queries]
            return [[row[0] for row in cursor.fetchall()] for cursor in cursors]

    def upsert(self, records: Sequence[Record]) -> None:
        """Binary COPY by way of a temporary table, as an upsert has to."""
        with self._connection.transaction():
            with self._connection.cursor().copy(
                f"COPY staging ({_COLUMNS}) FROM STDIN (FORMAT BINARY)".encode()
            ) as copy:
                copy.set_types(_TYPES)
                for r in records:
                    terms = Counter(tokenize(r.text or ""))
                    row = (
                        r.id,
                        r.modality,
                        r.text,
                        r.uri,
                        Jsonb(dict(r.metadata)),
                        Jsonb(terms),
                        terms.total(),
                        r.vector,
                    )
                    copy.write_row(row)
            self._connection.execute(
                f"INSERT INTO bench_raw.stored ({_COLUMNS}) SELECT {_COLUMNS} FROM staging "  # noqa: S608
                "ON CONFLICT (id) DO UPDATE SET modality = excluded.modality, text = excluded.text, "
                "uri = excluded.uri, metadata = excluded.metadata, terms = excluded.terms, "
                "length = excluded.length, vector = excluded.vector".encode()
            )

    def clear(self) -> None:
        """Empty the second table."""
        self._connection.execute("TRUNCATE bench_raw.stored")

    def close(self) -> None:
        """Drop the tables."""
        self._connection.execute("DROP SCHEMA bench_raw CASCADE")
        self._connection.close()
