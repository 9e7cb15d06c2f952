"""Checks of vector search: scores, order, ties, k, bad arguments, hits' fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.base import Compare, DimensionMismatch, Or, Record, Unsupported
from backends.conformance.samples import some, vectors
from backends.conformance.store import Store

BAD_QUERIES: dict[str, Any] = {
    "NaN": [[np.nan] + [1.0] * 7],
    "inf": [[1.0] * 7 + [np.inf]],
    "beyond float32": np.array([[1e300] + [1.0] * 7]),
    "words": [["a"] * 8],
}


class SearchChecks:
    """Searching by vector."""

    def test_every_metric_agrees_with_the_oracle(self, store: Store) -> None:
        for metric in sorted(store.capabilities.metrics):
            twin = store.twin(dim=16, metric=metric)
            twin.upsert(some(store.sizes.records, 16))
            for k in (1, 7, 100):
                twin.same_hits(vectors(5, 16, seed=3), k)
            twin.same_hits(twin.same_records()[4].vector[None, :], 3)  # type: ignore[index]

    def test_scores_are_the_known_ones(self, store: Store) -> None:
        records = [Record("near", np.array([3.0, 4.0], np.float32)), Record("far", np.array([-6.0, 8.0], np.float32))]
        expected = {
            "cosine": {"near": 0.6, "far": -0.6},
            "dot": {"near": 6.0, "far": -12.0},
            "l2": {"near": -(17**0.5), "far": -(128**0.5)},
        }
        for metric in sorted(store.capabilities.metrics):
            name = store.collection(2, metric)
            store.backend.upsert(name, records)
            (hits,) = store.backend.search(name, [[2.0, 0.0]], 2)
            assert [hit.id for hit in hits] == ["near", "far"]
            for hit in hits:
                assert hit.score == pytest.approx(expected[metric][hit.id], abs=1e-3)

    def test_cosine_ignores_the_length_of_vectors(self, store: Store) -> None:
        if "cosine" not in store.capabilities.metrics:
            pytest.skip("the engine declares no cosine")
        twin = store.twin(metric="cosine")
        rows = vectors(40, 8, seed=1)
        twin.upsert(Record(f"v{i:02}", row * 10.0 ** (i % 9 - 4)) for i, row in enumerate(rows))
        for scale in (1e-6, 1.0, 1e6):
            for hits in twin.same_hits(rows[:4] * scale, len(rows)):
                assert hits[0].score == pytest.approx(1.0, abs=1e-3)
                assert all(-1.001 <= hit.score <= 1.001 for hit in hits)

    def test_identical_vectors_stand_in_order_of_their_ids(self, store: Store) -> None:
        for metric in sorted(store.capabilities.metrics):
            twin = store.twin(dim=24, metric=metric)
            rows = vectors(5, 24, seed=2)
            order = np.random.default_rng(4).permutation(60)
            twin.upsert(Record(f"t{i:03}", rows[i % 5]) for i in order)
            for hits in twin.same_hits(rows + vectors(5, 24, seed=3) * 0.1, 60):
                assert [hit.id for hit in hits[:12]] == sorted(hit.id for hit in hits[:12])
                assert len({int(hit.id[1:]) % 5 for hit in hits[:12]}) == 1

    def test_ties_at_the_cut_go_to_the_lower_ids_when_exact(self, store: Store) -> None:
        twin = store.twin(dim=24)
        row = vectors(1, 24, seed=2)[0]
        twin.upsert(Record(f"t{i:03}", row) for i in np.random.default_rng(4).permutation(50))
        twin.upsert(some(50, 24))
        for k in (1, 10, 49):
            (hits,) = twin.same_hits(row[None, :], k)
            if hits[0].exact:
                assert [hit.id for hit in hits] == [f"t{i:03}" for i in range(k)]

    def test_many_queries_at_once_answer_as_one_by_one(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(store.sizes.records))
        queries = vectors(300, 8, seed=6)
        together = twin.same_hits(queries, 5)
        for i in range(0, 300, 60):
            (alone,) = twin.same_hits(queries[i : i + 1], 5)
            # Where the index answers, each may miss something else.
            if alone[0].exact and together[i][0].exact:
                assert [hit.id for hit in alone] == [hit.id for hit in together[i]]

    def test_no_queries_no_lists(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, some(3))
        assert store.backend.search(name, np.empty((0, 8), np.float32), 3) == []

    def test_an_empty_collection_has_no_hits(self, store: Store) -> None:
        name = store.collection()
        assert store.backend.search(name, vectors(3, 8), 5) == [[], [], []]
        assert store.backend.search(name, vectors(1, 8), 5, where=Compare("n", "gt", 1)) == [[]]
        assert store.backend.get(name, ["a"]) == []
        assert list(store.backend.scan(name)) == []
        store.backend.flush(name)
        assert store.backend.search(name, vectors(1, 8), 5) == [[]]

    def test_k_beyond_the_collection_gives_all(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(7))
        for k in (7, 8, store.capabilities.max_k or 100_000):
            assert [len(hits) for hits in twin.same_hits(vectors(2, 8), k)] == [7, 7]
        for k in (3, 50):
            twin.same_hits(vectors(2, 8), k, Compare("n", "gte", 4))
        assert store.backend.search(twin.name, vectors(1, 8), 5, where=Or(())) == [[]]

    def test_max_k_is_where_the_engine_stops(self, store: Store) -> None:
        limit = store.capabilities.max_k
        name = store.collection()
        store.backend.upsert(name, some(5))
        if limit is None:
            assert len(store.backend.search(name, vectors(1, 8), 1_000_000)[0]) == 5
            return
        assert len(store.backend.search(name, vectors(1, 8), limit)[0]) == 5
        with pytest.raises(Unsupported, match=str(limit)):
            store.backend.search(name, vectors(1, 8), limit + 1)

    def test_k_must_be_positive_integers(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, some(3))
        for k in (0, -1, 2.5, "3", None, True):
            with pytest.raises(ValueError, match="k must be"):
                store.backend.search(name, vectors(1, 8), k)  # type: ignore[arg-type]
        assert len(store.backend.search(name, vectors(1, 8), np.int64(2))[0]) == 2  # type: ignore[arg-type]

    @pytest.mark.parametrize("what", BAD_QUERIES)
    def test_bad_queries_are_refused(self, store: Store, what: str) -> None:
        name = store.collection()
        with pytest.raises(ValueError):
            store.backend.search(name, BAD_QUERIES[what], 3)
        store.backend.upsert(name, some(3))
        with pytest.raises(ValueError):
            store.backend.search(name, BAD_QUERIES[what], 3)

    @pytest.mark.parametrize("shape", [(1, 7), (1, 9), (8,), (1, 1, 8), (0, 7)])
    def test_queries_of_the_wrong_shape_are_refused(self, store: Store, shape: tuple[int, ...]) -> None:
        name = store.collection()
        store.backend.upsert(name, some(3))
        with pytest.raises(DimensionMismatch, match="8"):
            store.backend.search(name, np.ones(shape, np.float32), 3)

    def test_the_zero_query_has_no_cosine(self, store: Store) -> None:
        for metric in sorted(store.capabilities.metrics):
            twin = store.twin(metric=metric)
            twin.upsert(some(5))
            if metric == "cosine":
                with pytest.raises(ValueError, match="zero vector"):
                    store.backend.search(twin.name, np.zeros((1, 8)), 3)
            else:
                twin.same_hits(np.zeros((1, 8)), 3)

    def test_hits_carry_the_record(self, store: Store) -> None:
        twin = store.twin()
        full = Record("full", vectors(1, 8)[0], "text", "its text", "file:///x y.jpg", {"a": 1, "b": [], "c": 1.0})
        bare = Record("bare", vectors(1, 8, seed=1)[0])
        twin.upsert([full, bare])
        (hits,) = twin.same_hits(vectors(1, 8), 2)
        assert {hit.id: (hit.text, hit.uri, dict(hit.metadata)) for hit in hits} == {
            "full": ("its text", "file:///x y.jpg", {"a": 1, "b": [], "c": 1.0}),
            "bare": (None, None, {}),
        }

    def test_effort_is_checked(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, some(3))
        for effort in (0.0, -0.5, 1.001, 2, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="effort"):
                store.backend.search(name, vectors(1, 8), 2, effort=effort)
