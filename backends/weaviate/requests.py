"""The gRPC requests that the other modules make."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from weaviate.proto.v1 import aggregate_pb2, base_search_pb2, search_get_pb2

from backends.weaviate.records import STORED, WORDS
from backends.weaviate.schema import Stored


def search_request(
    stored: Stored, *, records: bool = True, vectors: bool = False, condition: Any = True, **options: Any
) -> Any:
    """A request for objects: with what makes a record of them or their ids alone, and with their vectors or not."""
    return search_get_pb2.SearchRequest(
        collection=stored.class_name,
        filters=None if condition is True else condition,
        properties=search_get_pb2.PropertiesRequest(non_ref_properties=STORED if records else ()),
        metadata=search_get_pb2.MetadataRequest(
            uuid=True,
            distance="near_vector" in options,
            score="bm25_search" in options,
            vectors=[stored.vector_name] if vectors else [],
        ),
        uses_123_api=True,
        uses_125_api=True,
        uses_127_api=True,
        **options,
    )


def near(stored: Stored, query: NDArray[np.float32]) -> dict[str, Any]:
    """The option that asks for those near a vector."""
    targets = base_search_pb2.Targets(target_vectors=[stored.vector_name])
    return {"near_vector": base_search_pb2.NearVector(vector_bytes=query.astype("<f4").tobytes(), targets=targets)}


def having_words(wanted: str) -> dict[str, Any]:
    """The option that asks for those with some of these words."""
    return {"bm25_search": base_search_pb2.BM25(query=wanted, properties=[WORDS])}


def count_request(stored: Stored, condition: Any = True) -> Any:
    """A request for the number of objects."""
    filters = None if condition is True else condition
    return aggregate_pb2.AggregateRequest(collection=stored.class_name, objects_count=True, filters=filters)
