"""Checks of index kinds and quantizations: the declared ones find, the others are refused."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from backends.base import Compare, IndexKind, IndexSpec, Quantization, Record, Unsupported
from backends.conformance.samples import clustered
from backends.conformance.store import Store

DIM = 32
RECALL = 0.9
PARAMETERS: dict[str, dict[str, int]] = {"hnsw": {"m": 12, "ef_construction": 80}, "ivf": {"nlist": 16}}


def refused(store: Store, index: IndexSpec) -> None:
    """`create` raises `Unsupported` and leaves nothing behind."""
    spec = store.spec(DIM, index=index)
    with pytest.raises(Unsupported):
        store.backend.create(spec)
    assert spec.name not in store.backend.collections()


def finds(store: Store, index: IndexSpec) -> None:
    """Search reaches the recall before and after building, and after deletes and replacements."""
    n = store.sizes.indexed
    rows = clustered(n, DIM, seed=21)
    queries = rows[:: max(1, n // 20)] + 0.02
    twin = store.twin(DIM, index=index)
    assert store.backend.describe(twin.name).index == index
    for start in range(0, n, 700):
        stop = min(start + 700, n)
        twin.upsert(Record(f"r{i:05}", rows[i], metadata={"i": i}) for i in range(start, stop))
    for built in (False, True):
        if built:
            store.backend.flush(twin.name)
        twin.same_hits(queries, 10, recall=RECALL)
        twin.same_hits(queries[:5], 10, Compare("i", "lt", n // 10), recall=RECALL)
    twin.delete(where=Compare("i", "lt", n // 4))
    twin.upsert(Record(f"r{i:05}", -rows[i], metadata={"i": i}) for i in range(n // 2, n // 2 + 50))
    twin.same_hits(np.concatenate([queries, -rows[n // 2 : n // 2 + 5]]), 10, recall=RECALL)
    store.backend.flush(twin.name)
    twin.same_hits(queries, 10, recall=RECALL)
    assert store.backend.get(twin.name, ["r00000"]) == []
    store.backend.drop(twin.name)


class IndexChecks:
    """`CollectionSpec.index` does what it says, or is refused at `create`."""

    @pytest.mark.parametrize("kind", get_args(IndexKind))
    def test_index_kinds(self, store: Store, kind: IndexKind) -> None:
        for index in (IndexSpec(kind), *(IndexSpec(kind, params=p) for k, p in PARAMETERS.items() if k == kind)):
            if kind in store.capabilities.index_kinds:
                finds(store, index)
            else:
                refused(store, index)

    @pytest.mark.parametrize("quantization", get_args(Quantization))
    def test_quantizations(self, store: Store, quantization: Quantization) -> None:
        index = IndexSpec("auto", quantization)
        if quantization in store.capabilities.quantizations:
            finds(store, index)
        else:
            refused(store, index)
