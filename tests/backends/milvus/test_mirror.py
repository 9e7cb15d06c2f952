"""The copy in memory of what Milvus Lite holds: what it finds is what a comparison of everything finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends import connect
from backends.base import NO_VECTOR, CollectionSpec, Compare, Metric, Record, explain
from backends.conformance.samples import metadata_of, some, vectors
from backends.exact.backend import ExactBackend
from backends.filters import matches
from backends.milvus.filters import Dialect
from backends.milvus.mirror import Mirror
from backends.milvus.records import row_of

DIALECT = Dialect(guarded=True, lists_as_text=True)


def row(record: Record) -> dict[str, Any]:
    assert record.vector is not None
    return row_of(record, record.vector, 8, DIALECT, keyword=True)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_it_finds_what_a_comparison_of_everything_finds(metric: Metric) -> None:
    oracle, mirror = ExactBackend(), Mirror(8)
    oracle.create(CollectionSpec("c", 8, metric))
    for seed in range(4):
        # Later batches replace records of earlier ones, half of which are then deleted, and some lose their vector.
        records = [Record(r.id, r.vector, r.modality, r.text, r.uri, metadata_of(seed)) for r in some(900, seed=seed)]
        rows = vectors(900, 8, seed)
        if metric == "cosine":
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        records = [
            Record(r.id, NO_VECTOR if i % 50 == seed else rows[i], r.modality, r.text, r.uri, r.metadata)
            for i, r in enumerate(records)
        ]
        oracle.upsert("c", records)
        mirror.put([row(r) for r in records])
        doomed = [r.id for r in records[seed::4]]
        oracle.delete("c", ids=doomed)
        mirror.remove(doomed)
        for where in (None, Compare("n", "eq", seed), Compare("modality", "eq", "text"), Compare("n", "gt", 99)):
            queries = vectors(5, 8, seed=9)
            if metric == "cosine":
                queries /= np.linalg.norm(queries, axis=1, keepdims=True)
            found, n = mirror.search(queries, 20, where, metric)
            assert n == sum(
                r.has_vector for p in oracle.scan("c") for r in p.records if matches(where, r.metadata, r.modality)
            )
            for mine, theirs in zip(found, oracle.search("c", queries, 20, where=where), strict=True):
                assert [(hit.id, hit.metadata, hit.text, hit.uri) for hit in mine] == [
                    (hit.id, hit.metadata, hit.text, hit.uri) for hit in theirs
                ]
                np.testing.assert_allclose([h.score for h in mine], [h.score for h in theirs], atol=1e-6)


def test_equal_vectors_tie_by_id_however_many_there_are() -> None:
    mirror = Mirror(8)
    one = vectors(1, 8)[0]
    mirror.put([row(Record(f"r{i:04}", one)) for i in np.random.default_rng(1).permutation(3_000)])
    ((hits,), n) = mirror.search(vectors(1, 8, seed=2), 7, None, "dot")
    assert n == 3_000
    assert [hit.id for hit in hits] == [f"r{i:04}" for i in range(7)]


def test_a_write_that_failed_leaves_no_copy_behind(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(f"milvus-lite://{tmp_path}") as backend:
        backend.create(CollectionSpec("c", 8))
        backend.upsert("c", some(20))
        with explain() as plans:
            assert len(backend.search("c", vectors(1, 8), 20)[0]) == 20
        assert plans[0].note == "of a copy in memory"

        def fails(*_: Any, **__: Any) -> None:
            raise OSError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Mirror, "put", fails)
            with pytest.raises(OSError, match="no space"):
                backend.upsert("c", some(5, prefix="new"))
        # Stored by Lite, not by the copy: which is made anew.
        assert len(backend.search("c", vectors(1, 8), 99)[0]) == backend.count("c") == 25
