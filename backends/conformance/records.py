"""Checks of records: upsert, get, delete and count, and that a refused call stores nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.base import And, Compare, DimensionMismatch, Or, Record
from backends.conformance.oracle import payload
from backends.conformance.samples import some, vectors
from backends.conformance.store import Store

BAD_VECTORS: dict[str, Any] = {
    "NaN": np.array([np.nan] + [1.0] * 7, np.float32),
    "inf": np.array([1.0] * 7 + [np.inf], np.float32),
    "-inf": np.array([-np.inf] + [1.0] * 7, np.float32),
    "beyond float32": np.array([1e300] + [1.0] * 7, np.float64),
    "none": None,
}


class RecordChecks:
    """Writing and reading records."""

    def test_what_is_stored_comes_back(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(40))
        twin.same_records()
        assert twin.same_count() == 40

    def test_get_without_vectors(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(5))
        found = store.backend.get(twin.name, ["r00002"])
        assert [r.vector for r in found] == [None]
        assert [payload(r) for r in found] == [payload(r) for r in twin.oracle.get(twin.name, ["r00002"])]

    def test_get_keeps_the_order_asked_for(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(20))
        twin.same_get(["r00013", "nowhere", "r00002", "r00019", "r00000"])
        twin.same_get(["r00003", "r00001", "r00003"])
        twin.same_get([])
        twin.same_get(["nowhere"])

    def test_vectors_are_stored_for_every_metric(self, store: Store) -> None:
        for metric in sorted(store.capabilities.metrics):
            twin = store.twin(metric=metric)
            twin.upsert(some(10))
            found = twin.same_records()
            if metric == "cosine":
                stored = np.stack([record.vector for record in found if record.vector is not None])
                np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1.0, atol=1e-3)

    def test_upsert_is_idempotent(self, store: Store) -> None:
        twin = store.twin()
        for _ in range(3):
            twin.upsert(some(10))
        assert twin.same_count() == 10
        twin.same_records()

    def test_upsert_of_nothing(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, [])
        store.backend.upsert(name, iter(()))
        assert store.backend.count(name) == 0

    def test_upsert_replaces_all_of_a_record(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(30))
        axis = np.eye(8, dtype=np.float32)
        before = Record(
            "r00007", axis[0], "image", "old words", "file:///old", {"n": 1, "only_old": "x", "tags": ["o"]}
        )
        after = Record("r00007", -axis[0], "text", "new words", metadata={"n": 2, "tags": ["p", "q"]})
        twin.upsert([before])
        assert store.backend.search(twin.name, axis[:1], 30)[0][0].id == "r00007"
        twin.upsert([after])
        assert twin.same_count() == 30
        twin.same_get(["r00007"])
        assert store.backend.search(twin.name, -axis[:1], 30)[0][0].id == "r00007"
        for where in (Compare("only_old", "eq", "x"), Compare("tags", "eq", "o"), Compare("tags", "eq", "q")):
            twin.same_count(where)
            twin.same_hits(axis[:2], 30, where)
        twin.same_hits(axis[:2], 40)

    def test_the_last_of_an_id_wins(self, store: Store) -> None:
        twin = store.twin()
        first, second = some(6), some(6, seed=1)
        twin.upsert([*first, *second, replace(first[0], text="third")])
        assert twin.same_count() == 6
        assert twin.same_get(["r00000"])[0].text == "third"
        twin.same_records()
        twin.same_hits(vectors(3, 8, seed=5), 10)

    def test_upsert_takes_any_iterable_and_number_type(self, store: Store) -> None:
        twin = store.twin()
        wide = [replace(r, vector=np.asarray(r.vector, np.float64)) for r in some(4)]
        integers = Record("integers", np.arange(8))  # type: ignore[arg-type]
        store.backend.upsert(twin.name, (r for r in [*wide, integers]))
        twin.oracle.upsert(twin.name, [*wide, integers])
        twin.same_records()

    def test_what_the_caller_holds_is_not_what_is_stored(self, store: Store) -> None:
        twin = store.twin()
        records = some(5)
        twin.upsert(records)
        expected = [payload(r) for r in twin.same_records()]
        for record in records:
            record.vector[:] = 9.0  # type: ignore[index]
            record.metadata["n"] = -1  # type: ignore[index]
        for record in store.backend.get(twin.name, [r.id for r in records], with_vectors=True):
            record.metadata["n"] = -2  # type: ignore[index]
            record.metadata["tags"].append("added")  # type: ignore[union-attr]
        for hit in store.backend.search(twin.name, np.ones((1, 8)), 5)[0]:
            hit.metadata["n"] = -3  # type: ignore[index]
        assert [payload(r) for r in twin.same_records()] == expected

    @pytest.mark.parametrize("what", BAD_VECTORS)
    def test_bad_vectors_are_refused_and_nothing_is_stored(self, store: Store, what: str) -> None:
        twin = store.twin()
        twin.upsert(some(3))
        changed = [replace(r, text="changed") for r in some(3)]
        bad = Record("bad", BAD_VECTORS[what])
        for batch in ([*changed, bad], [bad, *changed], [*some(1500, prefix="n"), bad]):
            with pytest.raises(ValueError, match="bad"):
                store.backend.upsert(twin.name, batch)
            twin.same_records()

    @pytest.mark.parametrize("shape", [(7,), (9,), (1, 8), (1, 0), ()])
    def test_wrong_dimensions_are_refused_and_nothing_is_stored(self, store: Store, shape: tuple[int, ...]) -> None:
        twin = store.twin()
        twin.upsert(some(3))
        with pytest.raises(DimensionMismatch, match="wrong"):
            store.backend.upsert(twin.name, [*some(5, prefix="n"), Record("wrong", np.ones(shape, np.float32))])
        twin.same_records()

    def test_the_zero_vector_has_no_cosine_but_a_distance(self, store: Store) -> None:
        zero = Record("zero", np.zeros(8, np.float32))
        for metric in sorted(store.capabilities.metrics):
            twin = store.twin(metric=metric)
            twin.upsert(some(3))
            if metric == "cosine":
                with pytest.raises(ValueError, match="zero"):
                    store.backend.upsert(twin.name, [*some(5, prefix="n"), zero])
            else:
                twin.upsert([zero])
                twin.same_hits(vectors(2, 8), 5)
            twin.same_records()

    def test_an_iterable_that_fails_stores_nothing(self, store: Store) -> None:
        def broken() -> Any:
            yield from some(1200)
            raise RuntimeError("the source broke")

        name = store.collection()
        with pytest.raises(RuntimeError, match="the source broke"):
            store.backend.upsert(name, broken())
        assert store.backend.count(name) == 0
        store.backend.upsert(name, some(2))
        assert store.backend.count(name) == 2

    def test_delete_by_ids(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(20))
        assert twin.delete(ids=[]) == 0
        assert twin.delete(ids=["nowhere"]) == 0
        assert twin.delete(ids=["r00003", "nowhere", "r00005", "r00003"]) == 2
        assert twin.delete(ids=["r00003"]) == 0
        twin.same_records()
        twin.same_get(["r00003", "r00004"])
        twin.same_hits(vectors(3, 8), 20)
        twin.upsert(some(20))
        twin.same_records()

    def test_delete_by_filter(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(40))
        assert twin.delete(where=Compare("lang", "eq", "nowhere")) == 0
        assert twin.delete(where=Compare("lang", "eq", "en")) == 10
        assert twin.delete(where=Compare("lang", "eq", "en")) == 0
        assert twin.delete(where=Compare("modality", "eq", "text")) > 0
        twin.same_records()
        twin.same_hits(vectors(3, 8), 40)
        left = twin.same_count()
        assert twin.delete(where=Compare("n", "gte", 0)) == left
        assert store.backend.search(twin.name, vectors(2, 8), 5) == [[], []]

    def test_delete_takes_exactly_one_selection(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(4))
        some_filter = Compare("n", "eq", 1)
        with pytest.raises(ValueError, match="exactly one"):
            store.backend.delete(twin.name)
        with pytest.raises(ValueError, match="exactly one"):
            store.backend.delete(twin.name, ids=["r00001"], where=some_filter)
        with pytest.raises(ValueError, match="exactly one"):
            store.backend.delete(twin.name, ids=[], where=some_filter)
        for nothing_said in (And(()), And((And(()), And(())))):
            with pytest.raises(ValueError, match="drop"):
                store.backend.delete(twin.name, where=nothing_said)
        with pytest.raises(ValueError, match="r00001"):
            store.backend.delete(twin.name, ids="r00001")
        with pytest.raises(ValueError, match="r00001"):
            store.backend.get(twin.name, "r00001")
        twin.same_records()

    def test_count_under_filters(self, store: Store) -> None:
        twin = store.twin()
        assert twin.same_count() == 0
        twin.upsert(some(25))
        assert twin.same_count(Compare("lang", "in", ("en", "fr"))) > 0
        assert twin.same_count(And(())) == 25
        assert twin.same_count(Or(())) == 0

    def test_flush_changes_nothing_that_is_seen(self, store: Store) -> None:
        twin = store.twin()
        store.backend.flush(twin.name)
        twin.upsert(some(30))
        twin.delete(ids=["r00001", "r00002"])
        store.backend.flush(twin.name)
        twin.same_records()
        twin.same_hits(vectors(3, 8), 40)
        twin.upsert(some(3, seed=9))
        twin.same_hits(vectors(3, 8), 40)
