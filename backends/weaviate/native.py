"""Weaviate by weaviate-client alone, as its documentation shows it: the other side of `benchmarks.adapters`.

Searches read the adapter's own class; upserts go into a second class with the same settings, properties
and vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import weaviate
from numpy.typing import NDArray
from weaviate.classes.data import DataObject
from weaviate.classes.init import AdditionalConfig, Auth
from weaviate.classes.query import MetadataQuery

from backends.base import Backend, CollectionSpec, Record
from backends.text import tokenize
from backends.weaviate.backend import WeaviateBackend
from backends.weaviate.records import HAS, STAMP, STORED, WORDS, number_properties, object_id, tokens
from backends.weaviate.schema import class_name, class_of, vector_name

BATCH, THREADS = 1000, 2


class NativeWeaviate:
    """One client; two threads where several calls can be under way, for two cores."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        if not isinstance(backend, WeaviateBackend):
            raise TypeError(f"not a Weaviate backend: {backend!r}")
        url, key = backend._server.url, backend._server.key
        self._client = weaviate.connect_to_custom(
            http_host=url.host,
            http_port=url.port,
            http_secure=False,
            grpc_host=url.host,
            grpc_port=url.number("grpc", 50051),
            grpc_secure=False,
            auth_credentials=Auth.api_key(key) if key else None,
            additional_config=AdditionalConfig(),
        )
        self._pool = ThreadPoolExecutor(THREADS)
        self._vector = vector_name(spec)
        self._searched = self._client.collections.get(class_name(spec.name))
        self._second = replace(spec, name="bench_raw")
        self.clear()

    def load(self, records: Sequence[Record]) -> None:
        """The adapter's class holds them already."""

    def search(self, query: NDArray[np.float32], k: int) -> list[str]:
        """One call."""
        found = self._searched.query.near_vector(
            query.tolist(),
            limit=k,
            target_vector=self._vector,
            return_properties=list(STORED),
            return_metadata=MetadataQuery(distance=True),
        )
        return [str(found_object.properties["record_id"]) for found_object in found.objects]

    def search_batch(self, queries: NDArray[np.float32], k: int) -> list[list[str]]:
        """The client has no call for several queries: one each, in two threads."""
        return list(self._pool.map(lambda query: self.search(query, k), queries))

    def _object(self, record: Record) -> DataObject[Any, None]:
        text = record.text or ""
        metadata = dict(record.metadata)
        properties: dict[str, Any] = {
            "record_id": record.id,
            "modality": record.modality,
            "text": text,
            "uri": record.uri,
            "metadata": repr(metadata),
            WORDS: " ".join(tokenize(text)),
            HAS: tokens(record.modality, metadata),
        }
        properties |= {prop: metadata[field] for field, prop in number_properties([record]).items()}
        vectors = {self._vector: np.asarray(record.vector).tolist(), STAMP: [0.0, 0.0]}
        return DataObject(properties, object_id(record.id), vectors)

    def upsert(self, records: Sequence[Record]) -> None:
        """Two calls of 1,000 at a time."""

        def insert(start: int) -> None:
            answer = self._stored.data.insert_many([self._object(r) for r in records[start : start + BATCH]])
            if answer.has_errors:
                raise RuntimeError(str(answer.errors))

        list(self._pool.map(insert, range(0, len(records), BATCH)))

    def clear(self) -> None:
        """Make the second class anew."""
        self._client.collections.delete(class_name(self._second.name))
        self._stored = self._client.collections.create_from_dict(class_of(self._second))

    def close(self) -> None:
        """Drop the class, disconnect."""
        self._client.collections.delete(class_name(self._second.name))
        self._pool.shutdown()
        self._client.close()
