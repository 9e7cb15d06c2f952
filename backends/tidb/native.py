"""TiDB by PyMySQL alone, as TiDB's documentation shows it: the other side of `benchmarks.adapters`.

Searches read the adapter's own table; upserts go into a second one of the same columns, in transactions as long as the
adapter's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pymysql
from numpy.typing import NDArray

from backends.base import Backend, CollectionSpec, Record
from backends.text import tokenize
from backends.tidb.backend import TidbBackend
from backends.tidb.records import MAX_ROWS
from backends.tidb.schema import create_table, drop_table, read_collection

_COLUMNS = "id, modality, text, uri, metadata, fields, terms, length, vector"


class NativeTidb:
    """One connection; a table of the same columns for upserts."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        if not isinstance(backend, TidbBackend):
            raise TypeError(f"not a TiDB backend: {backend!r}")
        self._connection = pymysql.connect(**backend._database._place.arguments, charset="utf8mb4", autocommit=True)
        collection = read_collection(self._connection, spec.name)
        if collection is None:
            raise ValueError(f"collection {spec.name!r} must be there")
        self._searched = collection.table
        self._spec = spec
        self._stored = create_table(self._connection, spec)

    def load(self, records: Sequence[Record]) -> None:
        """The adapter's table holds them already."""

    def search(self, query: NDArray[np.float32], k: int) -> list[str]:
        """One statement."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, modality, text, uri, metadata, VEC_COSINE_DISTANCE(vector, %s) AS distance "  # noqa: S608
                f"FROM {self._searched} ORDER BY distance LIMIT {k}",
                [str(query.tolist())],
            )
            return [row[0].decode() for row in cursor.fetchall()]

    def search_batch(self, queries: NDArray[np.float32], k: int) -> list[list[str]]:
        """MySQL's protocol has one statement at a time."""
        return [self.search(query, k) for query in queries]

    def upsert(self, records: Sequence[Record]) -> None:
        """Statements of as many rows as the adapter's."""
        with self._connection.cursor() as cursor:
            for start in range(0, len(records), MAX_ROWS):
                part = records[start : start + MAX_ROWS]
                marks = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s, %s)"] * len(part))
                values = [value for record in part for value in _row(record)]
                cursor.execute(f"REPLACE INTO {self._stored} ({_COLUMNS}) VALUES {marks}", values)  # noqa: S608

    def clear(self) -> None:
        """Make the second table anew."""
        drop_table(self._connection, self._stored)
        self._stored = create_table(self._connection, self._spec)

    def close(self) -> None:
        """Drop the table, disconnect."""
        drop_table(self._connection, self._stored)
        self._connection.close()


def _row(record: Record) -> tuple[object, ...]:
    metadata = json.dumps(dict(record.metadata))
    terms = Counter(tokenize(record.text or ""))
    vector = str(np.asarray(record.vector).tolist())
    return (
        record.id.encode(),
        record.modality,
        record.text,
        record.uri,
        metadata,
        metadata,
        json.dumps(terms),
        terms.total(),
        vector,
    )
