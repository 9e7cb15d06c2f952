"""Qdrant's engine in process by `qdrant_edge` alone: the other side of `benchmarks.adapters`.

Two shards, one to search and one to write to, with payloads as one would write them for Qdrant, an index
for each of their fields, and the same vectors and configuration as the adapter's.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import qdrant_edge as qe
from numpy.typing import NDArray

from backends.base import Backend, CollectionSpec, Record
from backends.qdrant.driver import DEFAULT_EF
from backends.qdrant.edge import QdrantEdgeBackend
from backends.qdrant.edge_config import config_of
from backends.qdrant.payload import AVERAGE_WORDS, word_index
from backends.qdrant.store import BATCH
from backends.text import BM25_B, BM25_K1, tokenize

FIELDS: dict[str, Any] = {
    "metadata.random": qe.IntegerIndexParams(),
    "metadata.near": qe.IntegerIndexParams(),
    "metadata.year": qe.IntegerIndexParams(),
    "metadata.camera": qe.KeywordIndexParams(),
    "metadata.favourite": qe.BoolIndexParams(),
    "metadata.tags": qe.KeywordIndexParams(),
}
PAYLOAD = ["id", "modality", "text", "uri", "metadata"]


class NativeQdrantEdge:
    """One shard to search and one to write to, in a folder beside the adapter's."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        if not isinstance(backend, QdrantEdgeBackend):
            raise TypeError(f"not a qdrant-edge backend: {backend!r}")
        self._spec = spec
        self._directory = tempfile.TemporaryDirectory(prefix="raw-qdrant-")
        self._shards = 0
        self._searched, self._shard = self._open(), self._open()

    def _open(self) -> qe.EdgeShard:
        self._shards += 1
        path = Path(self._directory.name) / str(self._shards)
        path.mkdir()
        shard = qe.EdgeShard.create(str(path), config_of(self._spec))
        for field, params in FIELDS.items():
            shard.update(qe.UpdateOperation.create_field_index(field, params))
        return shard

    def load(self, records: Sequence[Record]) -> None:
        """Store them and build the graph."""
        self._store(self._searched, records)
        self._searched.optimize()
        self._searched.flush()

    def _request(self, query: NDArray[np.float32], k: int) -> qe.QueryRequest:
        return qe.QueryRequest(
            limit=k,
            query=qe.Query.Nearest(query.tolist(), using="vector"),
            params=qe.SearchParams(hnsw_ef=DEFAULT_EF),
            with_payload=PAYLOAD,
        )

    def search(self, query: NDArray[np.float32], k: int) -> list[str]:
        """One query."""
        return _ids(self._searched.query(self._request(query, k)))

    def search_batch(self, queries: NDArray[np.float32], k: int) -> list[list[str]]:
        """One planned batch."""
        batch = qe.QueryBatchRequest([self._request(query, k) for query in queries])
        return [_ids(points) for points in self._searched.query_batch(batch)]

    def upsert(self, records: Sequence[Record]) -> None:
        """Batches of points, then the engine's own flush, which is how it promises durability."""
        self._store(self._shard, records)
        self._shard.flush()

    def _store(self, shard: qe.EdgeShard, records: Sequence[Record]) -> None:
        for start in range(0, len(records), BATCH):
            points = [self._point(record) for record in records[start : start + BATCH]]
            shard.update(qe.UpdateOperation.upsert_points(points))

    def _point(self, record: Record) -> qe.Point:
        found = tokenize(record.text or "")
        length = BM25_K1 * (1 - BM25_B + BM25_B * len(found) / AVERAGE_WORDS)
        weights = {word_index(word): n * (BM25_K1 + 1) / (n + length) for word, n in Counter(found).items()}
        payload = {
            "id": record.id,
            "modality": record.modality,
            "text": record.text,
            "uri": record.uri,
            "metadata": dict(record.metadata),
        }
        named = {
            "vector": np.asarray(record.vector).tolist(),
            "words": qe.SparseVector(list(weights), list(weights.values())),
        }
        return qe.Point(str(uuid5(NAMESPACE_URL, record.id)), named, payload)

    def clear(self) -> None:
        """A new empty shard in the place of the second one."""
        self._shard.close()
        self._shard = self._open()

    def close(self) -> None:
        """Close it and remove its files."""
        self._shard.close()
        self._searched.close()
        self._directory.cleanup()


def _ids(points: Sequence[Any]) -> list[str]:
    return [str(point.payload["id"]) for point in points]
