"""Checks with threads: searching while one writes, two writers, and searches that must not wait on each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.base import CollectionNotFound, Compare, Metric, Record
from backends.conformance.samples import some, unit, vectors
from backends.conformance.store import Store
from backends.conformance.twin import in_order, payload
from backends.exact import similarity

DIM = 16
BATCH = 25
K = 20


def together(tasks: list[Callable[[], None]]) -> None:
    """Run every task in a thread of its own and raise the first error."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def record(rows: NDArray[np.float32], i: int) -> Record:
    """Record i of those written."""
    return Record(f"w{i:05}", rows[i], "image", f"word{i}", None, {"even": i % 2 == 0})


def truth(queries: NDArray[np.float32], rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """(q, n) true scores."""
    return similarity(unit(queries), unit(rows), metric) if metric == "cosine" else similarity(queries, rows, metric)


class ThreadChecks:
    """A backend is shared by threads."""

    def test_searching_while_one_writes(self, store: Store) -> None:
        batches = store.sizes.write_batches
        rows = vectors(batches * BATCH + 100, DIM, 51)
        name = store.collection(DIM)
        store.backend.upsert(name, [record(rows, i) for i in range(100)])
        written, deleted, finished = set(range(100)), set[int](), threading.Event()
        rounds = []

        def write() -> None:
            try:
                for b in range(batches):
                    block = range(100 + b * BATCH, 100 + (b + 1) * BATCH)
                    written.update(block)
                    store.backend.upsert(name, [record(rows, i) for i in block])
                    if b % 2:
                        doomed = list(block)[:5]
                        assert store.backend.delete(name, ids=[f"w{i:05}" for i in doomed]) == 5
                        deleted.update(doomed)
            finally:
                finished.set()

        def search(seed: int) -> None:
            queries = vectors(2, DIM, seed)
            scores = truth(queries, rows, store.metric)
            done = 0
            while not finished.is_set() or not done:
                gone = set(deleted)
                where = Compare("even", "eq", True) if seed % 2 else None
                for hits, known in zip(store.backend.search(name, queries, K, where=where), scores, strict=True):
                    found = [int(hit.id[1:]) for hit in hits]
                    assert in_order(hits)
                    assert len(hits) == K, "there are always more matching records than k"
                    assert not gone & set(found), "a record deleted before the search began was found"
                    assert set(found) <= written, "a record that nobody wrote was found"
                    assert where is None or all(i % 2 == 0 for i in found)
                    np.testing.assert_allclose([hit.score for hit in hits], known[found], atol=1e-3, rtol=1e-3)
                done += 1
            rounds.append(done)

        together([write, *(partial(search, s) for s in range(store.sizes.searchers))])
        assert len(rounds) == store.sizes.searchers
        left = sorted(written - deleted)
        assert store.backend.count(name) == len(left)
        found = {r.id: payload(r) for p in store.backend.scan(name) for r in p.records}
        assert found == {f"w{i:05}": payload(record(rows, i)) for i in left}

    def test_threads_write_one_collection(self, store: Store) -> None:
        name = store.collection()

        def write(thread: int) -> None:
            for b in range(6):
                store.backend.upsert(name, some(10, seed=thread, prefix=f"t{thread}b{b}-"))

        together([partial(write, t) for t in range(4)])
        assert store.backend.count(name) == 240
        wanted = {payload(r) for t in range(4) for b in range(6) for r in some(10, seed=t, prefix=f"t{t}b{b}-")}
        assert {payload(r) for p in store.backend.scan(name) for r in p.records} == wanted

    def test_threads_upsert_the_same_ids(self, store: Store) -> None:
        name = store.collection()

        def write(thread: int) -> None:
            for b in range(5):
                store.backend.upsert(
                    name, [Record(f"s{i}", vectors(1, 8, b)[0], text=f"{thread}-{b}") for i in range(10)]
                )

        together([partial(write, t) for t in range(4)])
        assert store.backend.count(name) == 10
        assert len(store.backend.search(name, vectors(1, 8), 30)[0]) == 10
        assert {r.text for r in store.backend.get(name, [f"s{i}" for i in range(10)])} <= {f"{t}-4" for t in range(4)}

    def test_threads_make_and_drop_collections(self, store: Store) -> None:
        def cycle(thread: int) -> None:
            for _ in range(3):
                twin = store.twin()
                twin.upsert(some(5 + thread))
                twin.same_records()
                store.backend.drop(twin.name)

        together([partial(cycle, t) for t in range(4)])

    def test_a_dropped_collection_ends_searches_clearly(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, some(20))
        store.backend.search(name, vectors(1, 8), 3)
        store.backend.drop(name)
        with pytest.raises(CollectionNotFound, match=name):
            store.backend.search(name, vectors(1, 8), 3)
