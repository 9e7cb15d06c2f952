"""Checks with threads: searching while one writes, two writers, and searches that must not wait on each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.base import CollectionNotFound, Compare, Metric, Record
from backends.conformance.oracle import RECALL, in_order, payload
from backends.conformance.samples import some, unit, vectors
from backends.conformance.store import Store
from backends.kit.scores import similarity

DIM = 16
FIRST = 100
BATCH = 25
K = 20
WAIT_S = 10.0


def together(tasks: list[Callable[[], None]]) -> None:
    """Run every task in a thread of its own and raise the first error."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def record(rows: NDArray[np.float32], i: int) -> Record:
    """Record i of those written."""
    return Record(f"w{i:05}", rows[i], "image", f"word{i}", metadata={"even": i % 2 == 0})


def truth(queries: NDArray[np.float32], rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """(q, n) true scores."""
    return similarity(unit(queries), unit(rows), metric) if metric == "cosine" else similarity(queries, rows, metric)


class Ingest:
    """A collection that one thread writes while others search it, and what each search must have seen."""

    def __init__(self, store: Store) -> None:
        self.store, self.name, self.backend = store, store.collection(DIM), store.backend
        self.rows = vectors(FIRST + store.sizes.write_batches * BATCH, DIM, seed=51)
        self.begun, self.stored = set(range(FIRST)), set(range(FIRST))
        self.doomed, self.deleted = set[int](), set[int]()
        self.finished = threading.Event()
        self.rounds: list[int] = []
        self.missed: list[float] = []
        self.backend.upsert(self.name, [record(self.rows, i) for i in range(FIRST)])

    def write(self) -> None:
        """Upsert batch after batch, delete a few of every second, and let the others search in between."""
        try:
            for start in range(FIRST, len(self.rows), BATCH):
                if self.finished.is_set():
                    return
                block = range(start, start + BATCH)
                self.begun.update(block)
                self.backend.upsert(self.name, [record(self.rows, i) for i in block])
                self.stored.update(block)
                if start // BATCH % 2:
                    few = block[:5]
                    self.doomed.update(few)
                    assert self.backend.delete(self.name, ids=[f"w{i:05}" for i in few]) == len(few)
                    self.deleted.update(few)
                self.let_search(len(self.rounds) + self.store.sizes.searchers)
        finally:
            self.finished.set()

    def let_search(self, rounds: int) -> None:
        """Wait until the threads have searched that often; not for long, and not once one has failed."""
        deadline = time.monotonic() + WAIT_S
        while len(self.rounds) < rounds and not self.finished.is_set() and time.monotonic() < deadline:
            time.sleep(0.001)

    def search(self, seed: int) -> None:
        """`search_on`; the first error ends the writing too."""
        try:
            self.search_on(seed)
        except BaseException:
            self.finished.set()
            raise

    def search_on(self, seed: int) -> None:
        """Search until the writing has ended; odd threads under a filter."""
        queries = vectors(2, DIM, seed)
        scores = truth(queries, self.rows, self.store.metric)
        where = Compare("even", "eq", True) if seed % 2 else None
        while not self.finished.is_set():
            there, gone = set(self.stored), set(self.deleted)
            answers = self.backend.search(self.name, queries, K, where=where)
            there -= self.doomed
            for hits, known in zip(answers, scores, strict=True):
                found = [int(hit.id[1:]) for hit in hits]
                assert in_order(hits)
                assert len(hits) == K, "there are always more matching records than k"
                assert not gone & set(found), "a record deleted before the search began was found"
                assert set(found) <= self.begun, "a record that nobody wrote was found"
                assert where is None or all(i % 2 == 0 for i in found)
                np.testing.assert_allclose([hit.score for hit in hits], known[found], atol=1e-3, rtol=1e-3)
                candidates = {i for i in there if where is None or i % 2 == 0} - set(found)
                better = [i for i in candidates if known[i] > hits[-1].score + 1e-3]
                assert not (better and hits[0].exact), f"stored before the search began, but not found: {better[:5]}"
                self.missed.append(len(better) / K)
            self.rounds.append(seed)


class ThreadChecks:
    """A backend is shared by threads."""

    def test_searching_while_one_writes(self, store: Store) -> None:
        ingest = Ingest(store)
        together([ingest.write, *(partial(ingest.search, seed) for seed in range(store.sizes.searchers))])
        assert set(ingest.rounds) == set(range(store.sizes.searchers)), "every thread has searched"
        assert float(np.mean(ingest.missed)) <= 1 - RECALL, "recall while writing"
        left = sorted(ingest.stored - ingest.deleted)
        assert store.backend.count(ingest.name) == len(left)
        found = {r.id: payload(r) for p in store.backend.scan(ingest.name) for r in p.records}
        assert found == {f"w{i:05}": payload(record(ingest.rows, i)) for i in left}

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
                    name, [Record(f"s{i}", vectors(1, 8, seed=b)[0], text=f"{thread}-{b}") for i in range(10)]
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
