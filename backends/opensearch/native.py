"""The servers' own clients alone, as their documentation shows them: the other side of `benchmarks.adapters`.

Searches read the adapter's own index; upserts go into a second one with the same mapping, by the helper for bulk
requests. Metadata stand in the documents in their own types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Backend, CollectionSpec, Record
from backends.checks import plain_metadata
from backends.opensearch import schema
from backends.opensearch.backend import LuceneBackend
from backends.opensearch.records import BYTES, HAS, ID, VECTOR, WORDS, tokens
from backends.opensearch.search import WIDTH
from backends.text import tokenize

BULK = 500


class _Native:
    """What both have in common: a subclass opens its client, and gives the helper for bulk requests."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        if not isinstance(backend, LuceneBackend):
            raise TypeError(f"not a backend over Lucene: {backend!r}")
        self._backend = backend
        url = backend._server.url
        self._client, self._bulk = self._open(f"http://{url.host}:{url.port}")
        self._searched = schema.read(backend._server, spec.name).alias
        self._second = replace(spec, name="bench_raw")
        self.clear()

    def _open(self, address: str) -> tuple[Any, Callable[..., Any]]:
        raise NotImplementedError

    def _body(self, query: list[float], k: int) -> dict[str, Any]:
        near = self._backend.dialect.near(query, k, WIDTH, None)
        return {**near, "size": k, "_source": {"excludes": [BYTES]}, "track_total_hits": False}

    def load(self, records: Sequence[Record]) -> None:
        """The adapter's index holds them already."""

    def search(self, query: NDArray[np.float32], k: int) -> list[str]:
        """One call."""
        answer = self._client.search(index=self._searched, body=self._body(query.tolist(), k))
        return [str(hit["_source"][ID]) for hit in answer["hits"]["hits"]]

    def search_batch(self, queries: NDArray[np.float32], k: int) -> list[list[str]]:
        """All in one call of several searches."""
        lines = [part for query in queries.tolist() for part in ({"index": self._searched}, self._body(query, k))]
        answers = self._client.msearch(body=lines)["responses"]
        return [[str(hit["_source"][ID]) for hit in answer["hits"]["hits"]] for answer in answers]

    def _actions(self, records: Sequence[Record]) -> Iterator[dict[str, Any]]:
        for record in records:
            text = record.text or ""
            metadata = plain_metadata(record.metadata)
            document = {
                ID: record.id,
                "modality": record.modality,
                "text": text,
                "uri": record.uri,
                "metadata": metadata,
                WORDS: " ".join(tokenize(text)),
                HAS: tokens(record.modality, metadata, has_vector=True),
                VECTOR: np.asarray(record.vector).tolist(),
            }
            yield {"_index": self._stored, "_id": record.id, "_source": document}

    def upsert(self, records: Sequence[Record]) -> None:
        """Requests of 500, then visible."""
        self._bulk(self._client, self._actions(records), chunk_size=BULK)
        self._client.indices.refresh(index=self._stored)

    def clear(self) -> None:
        """Make the second index anew."""
        server = self._backend._server
        schema.drop(server, self._second.name)
        schema.create(server, self._backend.dialect, self._second)
        self._stored = schema.read(server, self._second.name).alias

    def close(self) -> None:
        """Drop the index, disconnect."""
        schema.drop(self._backend._server, self._second.name)
        self._client.close()


class NativeOpenSearch(_Native):
    """opensearch-py."""

    def _open(self, address: str) -> tuple[Any, Callable[..., Any]]:
        import opensearchpy
        from opensearchpy import helpers

        return opensearchpy.OpenSearch(address, timeout=120), helpers.bulk


class NativeElasticsearch(_Native):
    """elasticsearch-py."""

    def _open(self, address: str) -> tuple[Any, Callable[..., Any]]:
        import elasticsearch
        from elasticsearch import helpers

        return elasticsearch.Elasticsearch(address, request_timeout=120), helpers.bulk
