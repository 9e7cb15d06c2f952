"""Chroma by chromadb alone, as its documentation shows it: the other side of `benchmarks.adapters`.

Searches read the adapter's own collection; upserts go into a second one with the same settings, metadata and vectors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Backend, CollectionSpec, Record
from backends.checks import unit_length
from backends.chroma.backend import ChromaStore
from backends.chroma.records import metadata_row
from backends.chroma.schema import PREFIX, SUFFIX

Floats = NDArray[np.float32]
SECOND = "bench_raw"


class NativeChroma:
    """The client that the adapter opened, since a folder has one process and one client; its own collections."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        if not isinstance(backend, ChromaStore):
            raise TypeError(f"not a Chroma backend: {backend!r}")
        self._backend = backend
        self._client = backend._connection.client
        self._searched = self._client.get_collection(PREFIX + spec.name + SUFFIX, embedding_function=None)
        self._second = replace(spec, name=SECOND)
        self._most = self._client.get_max_batch_size()
        self.clear()

    def load(self, records: Sequence[Record]) -> None:
        """The adapter's collection holds them already."""

    def search(self, query: Floats, k: int) -> list[str]:
        """One call, payloads and distances fetched too."""
        return self._found(query[None], k)[0]

    def search_batch(self, queries: Floats, k: int) -> list[list[str]]:
        """All queries in one call."""
        return self._found(queries, k)

    def _found(self, queries: Floats, k: int, where: dict[str, Any] | None = None) -> list[list[str]]:
        answer = self._searched.query(
            query_embeddings=queries, n_results=k, where=where, include=["metadatas", "distances"]
        )
        for rows in answer["metadatas"]:
            for row in rows:
                json.loads(row["record"])
        found: list[list[str]] = answer["ids"]
        return found

    def upsert(self, records: Sequence[Record]) -> None:
        """As many at once as Chroma takes. Unit vectors, as the adapter's collection has them."""
        for start in range(0, len(records), self._most):
            batch = records[start : start + self._most]
            vectors = np.stack([np.asarray(record.vector, np.float32) for record in batch])
            self._stored.upsert(
                ids=[record.id for record in batch],
                embeddings=unit_length(vectors) if self._second.metric == "cosine" else vectors,
                metadatas=[metadata_row(record, bare=False) for record in batch],
            )

    def clear(self) -> None:
        """Make the second collection anew."""
        self._backend.drop(SECOND)
        self._backend.create(self._second)
        self._stored = self._client.get_collection(PREFIX + SECOND + SUFFIX, embedding_function=None)

    def close(self) -> None:
        """Drop the second collection."""
        self._backend.drop(SECOND)
