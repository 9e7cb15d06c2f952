"""ClickHouse by clickhouse-connect alone, as its documentation shows it: the other side of `benchmarks.adapters`.

Searches read the adapter's own table: a second one would have another graph. Upserts are ClickHouse's usual ones, into
a ReplacingMergeTree of the same columns, which replaces rows when parts are merged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client
from numpy.typing import NDArray

from backends.base import Backend, CollectionSpec, Record
from backends.clickhouse.backend import ClickHouseStore
from backends.clickhouse.connection import Server
from backends.clickhouse.embedded import Folder
from backends.clickhouse.filters import field_maps
from backends.clickhouse.records import TYPES
from backends.clickhouse.schema import read_table
from backends.kit.json_text import encode
from backends.text import tokenize

_STORED = "bench_raw"


class NativeClickHouse:
    """One client, which binds what it is given."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        if not isinstance(backend, ClickHouseStore):
            raise TypeError(f"not a ClickHouse backend: {backend!r}")
        table = read_table(backend._database, backend._dialect, spec.name)
        if table is None:
            raise ValueError(f"collection {spec.name!r} must be there")
        self._table, self._client = table, _client_of(backend)
        self._columns: Mapping[str, str] = {**TYPES, table.vector: "Array(Float32)"}
        self._stored = f"{table.sql.rpartition('.')[0]}.{_STORED}"
        names = ", ".join(f"{name} {kind}" for name, kind in self._columns.items())
        self._client.command(f"DROP TABLE IF EXISTS {self._stored} SYNC")
        self._client.command(
            f"CREATE TABLE {self._stored} ({names}) ENGINE = ReplacingMergeTree(seq) ORDER BY id "
            "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
        )

    def load(self, records: Sequence[Record]) -> None:
        """The adapter's table holds them already."""

    def search(self, query: NDArray[np.float32], k: int) -> list[str]:
        """One statement."""
        statement = (
            "SELECT id, modality, text, uri, metadata, "  # noqa: S608
            f"cosineDistance({self._table.vector}, {{q:Array(Float32)}}) AS d "
            f"FROM {self._table.sql} ORDER BY d LIMIT {k}"
        )
        return [row[0] for row in self._client.query(statement, parameters={"q": query.tolist()}).result_rows]

    def search_batch(self, queries: NDArray[np.float32], k: int) -> list[list[str]]:
        """One statement after the other."""
        return [self.search(query, k) for query in queries]

    def upsert(self, records: Sequence[Record]) -> None:
        """One insertion."""
        counted = [Counter(tokenize(record.text or "")) for record in records]
        maps = [field_maps(record.metadata) for record in records]
        columns = [
            [record.id for record in records],
            [record.modality for record in records],
            [record.text for record in records],
            [record.uri for record in records],
            [encode(dict(record.metadata)) for record in records],
            [scalars for scalars, _ in maps],
            [lists for _, lists in maps],
            counted,
            [words.total() for words in counted],
            [1] * len(records),
            [1] * len(records),
            np.stack([np.asarray(record.vector, dtype=np.float32) for record in records]),
        ]
        self._client.insert(
            self._stored,
            columns,
            column_names=list(self._columns),
            column_type_names=list(self._columns.values()),
            column_oriented=True,
        )

    def clear(self) -> None:
        """Empty the second table."""
        self._client.command(f"TRUNCATE TABLE {self._stored}")

    def close(self) -> None:
        """Drop the table."""
        self._client.command(f"DROP TABLE IF EXISTS {self._stored} SYNC")
        self._client.close()


def _client_of(backend: ClickHouseStore) -> Client:
    """A client of the database of the backend, whichever way that was reached."""
    database = backend._database
    if isinstance(database, Folder):
        return get_client(interface="chdb", path=str(database._path))
    if not isinstance(database, Server):
        raise TypeError(f"not a way to a database that is known here: {database!r}")
    place = database._place
    return get_client(
        host=place.host, port=place.port, username=place.user, password=place.password, secure=place.secure
    )
