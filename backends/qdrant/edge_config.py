"""What Sightline asks of Qdrant's engine in process: filters, shard configuration, search parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qdrant_edge as qe

from backends.base import CollectionSpec
from backends.qdrant.driver import Plan
from backends.qdrant.payload import DENSE, SPARSE, TOKENS
from backends.qdrant.store import OVERSAMPLING

# Cosine vectors have unit length already; by dot product the engine leaves their bits alone.
DISTANCES = {"cosine": qe.Distance.Dot, "dot": qe.Distance.Dot, "l2": qe.Distance.Euclid}


class EdgeDialect:
    """The filter classes of `qdrant_edge`."""

    def has_any(self, keywords: Sequence[str]) -> Any:
        return qe.FieldCondition(key=TOKENS, match=qe.MatchAny(any=list(keywords)))

    def between(self, key: str, **bounds: float) -> Any:
        return qe.FieldCondition(key=key, range=qe.RangeFloat(**bounds))

    def one_of(self, point_ids: Sequence[str]) -> Any:
        return qe.HasIdCondition(set(point_ids))

    def combine(self, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        return qe.Filter(must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None)


def config_of(spec: CollectionSpec) -> Any:
    """The shard configuration of a collection."""
    index = spec.index
    graph = qe.HnswIndexConfig(
        m=0 if index.kind == "flat" else index.params.get("m", 16),
        ef_construct=index.params.get("ef_construction", 100),
        full_scan_threshold=10_000,
    )
    quantized: Any = None
    if index.quantization == "int8":
        quantized = qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=0.99, always_ram=True)
    elif index.quantization == "binary":
        quantized = qe.BinaryQuantizationConfig(
            always_ram=True,
            encoding=qe.BinaryQuantizationEncoding.TwoBits,
            query_encoding=qe.BinaryQuantizationQueryEncoding.Scalar8Bits,
        )
    dense = qe.EdgeVectorParams(spec.dim, DISTANCES[spec.metric], hnsw_config=graph, quantization_config=quantized)
    return qe.EdgeConfig(
        vectors={DENSE: dense},
        sparse_vectors={SPARSE: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)},
        # Asked for by name, the graph is built however few vectors there are.
        optimizers=qe.EdgeOptimizersConfig(indexing_threshold=1 if index.kind == "hnsw" else None),
        wal_enabled=True,
    )


def params_of(spec: CollectionSpec, plan: Plan, filtered: bool) -> Any:
    """How the engine is to search."""
    if plan.exact:
        return qe.SearchParams(exact=True, quantization=qe.QuantizationSearchParams(ignore=True))
    oversampling = OVERSAMPLING.get(spec.index.quantization)
    return qe.SearchParams(
        hnsw_ef=plan.ef,
        quantization=qe.QuantizationSearchParams(rescore=True, oversampling=oversampling) if oversampling else None,
        acorn=qe.AcornSearchParams(enable=True, max_selectivity=1.0) if filtered else None,
    )
