"""Checks of records without a vector: everything finds them but a search by vector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backends.base import NO_VECTOR, And, Compare, IndexSpec, Not, Record
from backends.conformance.oracle import payload
from backends.conformance.samples import clustered, some, vectors
from backends.conformance.store import Store

FILTERS = (None, Compare("n", "gte", 10), Compare("lang", "eq", "en"), Not(Compare("flag", "eq", True)))
INDEXED_DIM = 16


def without(records: list[Record]) -> list[Record]:
    """The same records without their vectors."""
    return [replace(record, vector=NO_VECTOR) for record in records]


def mixed(n: int, dim: int = 8, *, seed: int = 0, prefix: str = "r") -> list[Record]:
    """Every second one of `some` without a vector."""
    return [
        replace(record, vector=NO_VECTOR) if i % 2 else record
        for i, record in enumerate(some(n, dim, seed=seed, prefix=prefix))
    ]


def lengths(records: list[Record]) -> dict[str, int]:
    """How long each record's vector is."""
    return {record.id: len(np.asarray(record.vector)) for record in records}


class VectorlessChecks:
    """Records whose vector is `NO_VECTOR`."""

    def test_records_without_vectors_are_stored_and_not_searched(self, store: Store) -> None:
        for metric in sorted(store.capabilities.metrics):
            twin = store.twin(metric=metric)
            twin.upsert(mixed(40))
            assert sorted(lengths(twin.same_records()).values()) == [0] * 20 + [8] * 20
            twin.same_get(["r00001", "r00002", "r00003"])
            for where in FILTERS:
                twin.same_count(where)
                for k in (1, 10, 20, 21, 100):
                    twin.same_hits(vectors(3, 8, seed=1), k, where)
            (hits,) = store.backend.search(twin.name, vectors(1, 8), 100)
            assert len(hits) == 20
            store.backend.flush(twin.name)
            twin.same_hits(vectors(3, 8, seed=1), 100)

    def test_records_without_vectors_are_read_without_them_too(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, mixed(6))
        found = store.backend.get(name, ["r00001", "r00002"])
        scanned = [r for page in store.backend.scan(name, with_vectors=False) for r in page.records]
        assert [r.vector for r in (*found, *scanned)] == [None] * 8
        (read,) = store.backend.get(name, ["r00001"], with_vectors=True)
        assert read.vector is not None
        assert read.vector.shape == (0,)
        assert read.vector.dtype == np.float32
        assert not read.has_vector

    def test_a_collection_may_have_no_vector_at_all(self, store: Store) -> None:
        for index in (IndexSpec(), *(IndexSpec(kind) for kind in sorted(store.capabilities.index_kinds - {"auto"}))):
            twin = store.twin(index=index)
            twin.upsert(without(some(12)))
            for _ in range(2):
                assert store.backend.search(twin.name, vectors(2, 8), 5) == [[], []]
                assert store.backend.search(twin.name, vectors(1, 8), 5, where=Compare("n", "gte", 3)) == [[]]
                twin.same_records()
                store.backend.flush(twin.name)
            twin.upsert(some(3))
            twin.same_hits(vectors(2, 8), 20)

    def test_replacing_takes_a_vector_away_and_gives_it_back(self, store: Store) -> None:
        twin = store.twin()
        records = some(30)
        twin.upsert(records)
        own = np.stack([np.asarray(record.vector) for record in records[:3]])
        for flushed in (False, True):
            twin.upsert(without(records[:3]))
            if flushed:
                store.backend.flush(twin.name)
            for hits in twin.same_hits(own, 30):
                assert len(hits) == 27
                assert not {hit.id for hit in hits} & {"r00000", "r00001", "r00002"}
            twin.same_hits(own, 30, Compare("n", "lt", 4))
            twin.same_get(["r00001"])
            twin.upsert(records[:3])
            assert [hits[0].id for hits in twin.same_hits(own, 30)] == ["r00000", "r00001", "r00002"]
            twin.same_records()

    def test_the_last_of_an_id_says_whether_it_has_a_vector(self, store: Store) -> None:
        twin = store.twin()
        first, second = some(2)
        twin.upsert([first, *without([first, second]), second])
        twin.same_records()
        assert [hit.id for hit in twin.same_hits(vectors(1, 8), 5)[0]] == [second.id]
        with pytest.raises(ValueError, match=first.id):
            store.backend.upsert(twin.name, [second, replace(first, vector=None)])
        twin.same_records()

    def test_records_without_vectors_are_deleted(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(mixed(40))
        assert twin.delete(ids=["r00001", "r00002", "nowhere"]) == 2
        twin.delete(where=And((Compare("n", "gte", 20), Compare("flag", "eq", False))))
        twin.same_records()
        twin.same_hits(vectors(3, 8), 40)
        twin.delete(where=Compare("n", "gte", 0))
        assert twin.same_count() == 0
        twin.upsert(without(some(3)))
        twin.same_records()

    def test_words_find_records_without_vectors(self, store: Store) -> None:
        if not store.capabilities.keyword:
            pytest.skip("the engine declares no keyword search")
        name = store.collection()
        store.backend.upsert(name, [*some(4), Record("mute", NO_VECTOR, "text", "a heron by the weir")])
        hits = store.backend.search_text(name, "heron", 5)
        assert [(hit.id, hit.text) for hit in hits] == [("mute", "a heron by the weir")]
        assert store.backend.search_text(name, "heron", 5, where=Compare("modality", "eq", "image")) == []
        store.backend.upsert(name, [Record("mute", vectors(1, 8)[0], "text", "a stork")])
        assert store.backend.search_text(name, "heron", 5) == []
        assert [hit.id for hit in store.backend.search_text(name, "stork", 5)] == ["mute"]

    def test_scan_pages_hold_both_kinds(self, store: Store) -> None:
        name = store.collection()
        records = mixed(23)
        store.backend.upsert(name, records)
        pages = list(store.backend.scan(name, batch=5))
        seen = [record for page in pages for record in page.records]
        assert sorted(payload(r) for r in seen) == sorted(payload(r) for r in records)
        assert lengths(seen) == lengths(records)

    def test_an_index_holds_no_place_for_them(self, store: Store) -> None:
        """Built with most records lacking a vector, an index still finds min(k, matching) of those that have one."""
        n = store.sizes.indexed
        rows = clustered(n, INDEXED_DIM, seed=5)
        twin = store.twin(INDEXED_DIM)
        twin.upsert(Record(f"r{i:05}", rows[i] if i % 4 == 0 else NO_VECTOR, metadata={"i": i}) for i in range(n))
        queries = rows[:: max(1, n // 8)] + 0.02
        rare = Compare("i", "lt", max(8, n // 50))
        for _ in range(2):
            for k, where in ((10, None), (10, rare), (n, rare), (n, None)):
                twin.same_hits(queries, min(k, store.capabilities.max_k or k), where)
            store.backend.flush(twin.name)
        twin.delete(where=Compare("i", "gte", n // 2))
        twin.upsert(Record(f"r{i:05}", rows[i] if i % 4 else NO_VECTOR, metadata={"i": i}) for i in range(n // 2))
        for _ in range(2):
            twin.same_hits(queries, 10)
            twin.same_hits(queries, 10, rare)
            store.backend.flush(twin.name)
        store.backend.drop(twin.name)

    def test_records_without_vectors_outlive_the_handle(self, store: Store) -> None:
        if not store.capabilities.persistent:
            pytest.skip("the engine declares persistent=False")
        url, name = store.fresh_place(), store.name()
        records = mixed(20)
        with store.connect(url) as backend:
            backend.create(replace(store.spec(), name=name))
            backend.upsert(name, records[:10])
            backend.flush(name)
            backend.upsert(name, records[10:])
        with store.connect(url) as backend:
            assert lengths([r for page in backend.scan(name) for r in page.records]) == lengths(records)
            assert len(backend.search(name, vectors(1, 8), 20)[0]) == 10
            backend.drop(name)
