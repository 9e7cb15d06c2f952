"""Checks of races for a name: many who create it at once, and many who create, drop and use it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from backends.base import Backend, CollectionExists, CollectionNotFound, CollectionSpec, Compare
from backends.conformance.oracle import payload
from backends.conformance.samples import some, vectors
from backends.conformance.store import Store

THREADS = 8
ROUNDS = 5
CHURN_S = 3.0
#: So much longer it goes on where a slow server has let nobody make the collection.
PATIENCE_S = 20.0
DIM = 4
RECORDS = some(6, DIM)


def at_once(tasks: list[Callable[[], None]], hangs_s: float) -> list[Exception | None]:
    """Start every task at the same moment, each in a thread of its own; what each raised.

    A task that takes `hangs_s` fails the check, and keeps nobody from ending: its thread is a daemon.
    """
    ready = threading.Barrier(len(tasks))
    raised: list[Exception | None] = [None] * len(tasks)

    def run(i: int) -> None:
        ready.wait()
        try:
            tasks[i]()
        except Exception as error:
            raised[i] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + hangs_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hanging = sum(thread.is_alive() for thread in threads)
    assert not hanging, f"{hanging} of {len(threads)} threads hang after {hangs_s:.0f} s"
    return raised


class Churn:
    """One name that threads create, drop and use without a pause, and what they are told that they should not be."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        self.backend, self.spec, self.name = backend, spec, spec.name
        self.until = time.monotonic() + CHURN_S
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.query = vectors(1, DIM)

    def tasks(self) -> list[Callable[[], None]]:
        """What the eight threads do."""
        calls = [self.remake, self.remake, self.upsert, self.upsert, self.upsert, self.search, self.search, self.count]
        return [partial(self.repeat, call) for call in calls]

    def repeat(self, call: Callable[[], None]) -> None:
        while time.monotonic() < self.until or self._is_waited_for():
            try:
                call()
                self.done[call.__name__] += 1
            except (CollectionExists, CollectionNotFound):
                continue
            except Exception as error:
                self.wrong[f"{call.__name__}: {type(error).__name__}: {error}"] += 1

    def _is_waited_for(self) -> bool:
        return not self.done["remake"] and time.monotonic() < self.until + PATIENCE_S

    def remake(self) -> None:
        self.backend.drop(self.name)
        self.backend.create(self.spec)

    def upsert(self) -> None:
        self.backend.upsert(self.name, RECORDS)

    def search(self) -> None:
        for where in (None, Compare("n", "gte", 0)):
            (hits,) = self.backend.search(self.name, self.query, 3, where=where)
            assert {hit.id for hit in hits} <= {record.id for record in RECORDS}

    def count(self) -> None:
        assert self.backend.count(self.name) <= len(RECORDS)
        self.backend.collections()


def holds(backend: Backend, name: str) -> set[str] | None:
    """The records of a collection, which list, describe, count and scan must agree on; `None` where there is none."""
    if name not in backend.collections():
        try:
            backend.describe(name)
        except CollectionNotFound:
            return None
        raise AssertionError(f"{name} is not listed and can be described")
    assert backend.describe(name).name == name
    found = {r.id: r for page in backend.scan(name) for r in page.records}
    assert backend.count(name) == len(found)
    wanted = {r.id: payload(r) for r in RECORDS}
    assert {i: payload(r) for i, r in found.items()} == {i: wanted[i] for i in found}
    return set(found)


def works(backend: Backend, spec: CollectionSpec) -> None:
    """The name can be dropped, made, filled, searched and counted as if nothing had been."""
    backend.drop(spec.name)
    assert holds(backend, spec.name) is None
    backend.create(spec)
    assert holds(backend, spec.name) == set()
    backend.upsert(spec.name, RECORDS)
    assert holds(backend, spec.name) == {r.id for r in RECORDS}
    (hits,) = backend.search(spec.name, np.ones((1, DIM), np.float32), 10)
    assert {hit.id for hit in hits} == {r.id for r in RECORDS}


class RaceChecks:
    """Whoever comes second or late is told so, and nothing worse happens to anyone."""

    def test_of_many_who_create_one_name_one_succeeds(self, store: Store) -> None:
        for _ in range(ROUNDS):
            spec = store.spec(DIM)
            raised = at_once([partial(store.backend.create, spec)] * THREADS, store.sizes.hangs_s)
            told = Counter("made" if error is None else type(error).__name__ for error in raised)
            assert told == {"made": 1, CollectionExists.__name__: THREADS - 1}, [e for e in raised if e]
            store.backend.upsert(spec.name, RECORDS)
            assert holds(store.backend, spec.name) == {r.id for r in RECORDS}

    def test_many_names_at_once_all_come_to_be(self, store: Store) -> None:
        specs = [store.spec(DIM) for _ in range(THREADS)]

        def make(spec: CollectionSpec) -> None:
            store.backend.create(spec)
            store.backend.upsert(spec.name, RECORDS)

        raised = at_once([partial(make, spec) for spec in specs], store.sizes.hangs_s)
        assert [error for error in raised if error] == []
        listed = store.backend.collections()
        for spec in specs:
            assert spec.name in listed
            assert holds(store.backend, spec.name) == {r.id for r in RECORDS}

    def test_a_name_that_many_create_drop_and_use(self, store: Store) -> None:
        # A store of its own: one that hangs cannot be closed either.
        url = store.fresh_place()
        backend = store.connect(url)
        spec, bystander = store.spec(DIM), store.spec(DIM)
        backend.create(bystander)
        backend.upsert(bystander.name, RECORDS)
        churn = Churn(backend, spec)
        assert [error for error in at_once(churn.tasks(), store.sizes.hangs_s) if error] == []
        assert dict(churn.wrong.most_common(5)) == {}, "only CollectionExists and CollectionNotFound may be raised"
        assert churn.done["remake"], "nobody got to make the collection"
        left = holds(backend, spec.name)
        assert holds(backend, bystander.name) == {r.id for r in RECORDS}
        if store.capabilities.persistent:
            backend.close()
            backend = store.connect(url)
            assert holds(backend, spec.name) == left, "after reopening"
            assert holds(backend, bystander.name) == {r.id for r in RECORDS}
        works(backend, spec)
        if store.capabilities.persistent:
            backend.close()
            backend = store.connect(url)
            assert holds(backend, spec.name) == {r.id for r in RECORDS}
        backend.drop(spec.name)
        backend.drop(bystander.name)
        backend.close()
