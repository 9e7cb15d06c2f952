"""Milvus by pymilvus alone, as its documentation shows it: the other side of `benchmarks.adapters`.

Two collections, one to search and one to write to, under the adapter's index, with the metadata as
dynamic fields. Searches bring all fields but the vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, Function, FunctionType, MilvusClient

from backends.base import MAX_ID_BYTES, MAX_TEXT_BYTES, MAX_URI_BYTES, Backend, CollectionSpec, Record
from backends.milvus.backend import MilvusBackend
from backends.milvus.schema import METRICS, index_of
from backends.milvus.search import DEFAULT_EF

SEARCHED, WRITTEN = "bench_raw", "bench_raw_upsert"
FIELDS = ["modality", "text", "uri", "random", "near", "year", "camera", "favourite", "tags"]
INSERTED = 5_000


class NativeMilvus:
    """A client of its own to the backend's server; in Lite, to the server in this process."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        if not isinstance(backend, MilvusBackend):
            raise TypeError(f"not a Milvus backend: {backend!r}")
        self._client = MilvusClient(backend._connection._client._config.uri, dedicated=True)
        self._spec, self._lite, self._keyword = spec, backend._lite is not None, backend.capabilities.keyword
        for name in (SEARCHED, WRITTEN):
            self._make(name)

    def _make(self, name: str) -> None:
        client = self._client
        client.drop_collection(name)
        schema = client.create_schema(enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._spec.dim)
        schema.add_field("modality", DataType.VARCHAR, max_length=16)
        schema.add_field("text", DataType.VARCHAR, max_length=MAX_TEXT_BYTES, enable_analyzer=self._keyword)
        schema.add_field("uri", DataType.VARCHAR, max_length=MAX_URI_BYTES)
        index = index_of(self._spec.index, lite=self._lite)
        params = client.prepare_index_params()
        params.add_index("vector", index_type=index.type, metric_type=METRICS[self._spec.metric], params=index.params)
        if self._keyword:
            schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
            schema.add_function(Function("bm25", FunctionType.BM25, ["text"], ["words"]))
            params.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        client.create_collection(name, schema=schema, index_params=params)

    def _store(self, name: str, records: Sequence[Record]) -> None:
        rows = [
            {"id": r.id, "vector": r.vector, "modality": r.modality, "text": r.text, "uri": r.uri, **r.metadata}
            for r in records
        ]
        for start in range(0, len(rows), INSERTED):
            self._client.upsert(name, rows[start : start + INSERTED])

    def load(self, records: Sequence[Record]) -> None:
        """Store them and wait for the index."""
        self._store(SEARCHED, records)
        self._client.flush(SEARCHED)
        while self._client.describe_index(SEARCHED, "vector").get("pending_index_rows"):
            pass

    def _search(self, queries: NDArray[np.float32], k: int) -> list[Any]:
        found: list[Any] = self._client.search(
            SEARCHED,
            list(queries),
            limit=k,
            output_fields=FIELDS,
            anns_field="vector",
            search_params={"params": {"ef": DEFAULT_EF}},
            consistency_level="Bounded",
        )
        return found

    def search(self, query: NDArray[np.float32], k: int) -> list[str]:
        """One request."""
        return [hit["id"] for hit in self._search(query[None], k)[0] if hit["entity"]]

    def search_batch(self, queries: NDArray[np.float32], k: int) -> list[list[str]]:
        """One request for all."""
        return [[hit["id"] for hit in hits if hit["entity"]] for hits in self._search(queries, k)]

    def upsert(self, records: Sequence[Record]) -> None:
        """As many rows in a request as the adapter sends, then the wait until a search has them.

        In Lite they are there at once, and a flush is what keeps the next search from reading them in Python.
        """
        self._store(WRITTEN, records)
        if self._lite:
            self._client.flush(WRITTEN)
        else:
            self._client.query(WRITTEN, filter='id == ""', limit=1, output_fields=["id"], consistency_level="Strong")

    def clear(self) -> None:
        """Make the second collection anew."""
        self._make(WRITTEN)

    def close(self) -> None:
        """Drop the collections."""
        for name in (SEARCHED, WRITTEN):
            self._client.drop_collection(name)
        self._client.close()
