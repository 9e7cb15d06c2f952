"""Checks of life and death: closing, reopening, other processes, and ``kill -9`` in the middle of a write."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest

from backends.base import Backend, BackendError, CollectionSpec, Compare, Record, Unavailable
from backends.conformance.collections import ON_A_COLLECTION
from backends.conformance.oracle import RECALL, Twin, payload
from backends.conformance.samples import POUR_BATCH, POUR_DIM, poured, some, vectors
from backends.conformance.store import CHILD_TIMEOUT_S, Store
from backends.errors import Locked

# How wide a search is that must find a record which a search for one hit has missed.
WIDE = 1_000


@dataclass(slots=True)
class Acknowledged:
    """The batches whose upsert has returned, and those of them that were written about a kill."""

    batches: set[int] = field(default_factory=set)
    in_danger: set[int] = field(default_factory=set)


def reap(process: subprocess.Popen[str]) -> None:
    """End the process if it still runs, and close its pipes."""
    process.kill()
    process.wait(timeout=CHILD_TIMEOUT_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def pour_and_kill(store: Store, url: str, name: str, start: int, rng: np.random.Generator, told: Acknowledged) -> None:
    """Let a child upsert batches from `start` until a random moment; add those that it acknowledged."""
    process = store.child("write_until_killed", url, name, str(start))
    assert process.stdout is not None
    watchdog = threading.Timer(CHILD_TIMEOUT_S, process.kill)
    watchdog.start()
    acknowledged = set()
    try:
        for _ in range(int(rng.integers(2, 7))):
            line = process.stdout.readline()
            answer = json.loads(line) if line else {"error": "the writing process ended by itself"}
            assert "acknowledged" in answer, answer
            acknowledged.add(int(answer["acknowledged"]))
        last = max(acknowledged)
        time.sleep(float(rng.uniform(0, 0.02)))
        store.suite.crash(process)
        for line in process.stdout:
            with suppress(ValueError, KeyError):
                acknowledged.add(int(json.loads(line)["acknowledged"]))
    finally:
        watchdog.cancel()
        reap(process)
    told.batches |= acknowledged
    told.in_danger |= acknowledged & {last, last + 1, last + 2, max(acknowledged)}


def check_poured(backend: Backend, name: str, told: Acknowledged) -> int:
    """Every acknowledged batch is whole; of one in flight there may be any part, but no broken record."""
    acknowledged = told.batches
    found = {r.id: r for page in backend.scan(name) for r in page.records}
    newest = max(int(r.metadata["batch"]) for r in found.values())  # type: ignore[arg-type]
    assert newest in (max(acknowledged), max(acknowledged) + 1)
    for batch in range(newest + 1):
        for record in poured(batch)[:-1]:
            if record.id in found:
                assert payload(found[record.id]) == payload(record)
                assert found[record.id].has_vector == record.has_vector
            else:
                assert batch not in acknowledged, f"{record.id} of an acknowledged batch is lost"
    assert int(found["shared"].metadata["batch"]) >= max(acknowledged)  # type: ignore[arg-type]
    assert backend.count(name) == len(found)
    assert backend.count(name, Compare("batch", "eq", max(acknowledged))) >= POUR_BATCH - 1
    assert len(backend.get(name, sorted(found))) == len(found)
    probes = {f"b{batch:05}-{i:02}" for batch in sorted(acknowledged)[::3] for i in (0, 20)}
    probes |= {record.id for batch in told.in_danger for record in poured(batch)[:-1]}
    having = {record.id for record in found.values() if record.has_vector}
    check_indexed(backend, name, [found[probe] for probe in sorted(probes & having)])
    k = min(len(found) + 5, backend.capabilities.max_k or len(found) + 5)
    (everything,) = backend.search(name, poured(0)[0].vector[None, :], k)  # type: ignore[index]
    assert {hit.id for hit in everything} <= having
    assert len(everything) == min(len(having), backend.capabilities.max_k or len(having))
    return newest


def check_indexed(backend: Backend, name: str, stored: Sequence[Record]) -> None:
    """Every record is in the index of vectors: a search by its own vector finds it.

    A search that compared everything finds it first. An approximate one may miss a few, as many as the promised
    recall allows, and only where it looks for one hit: what a wide search does not find either has been lost.
    The effort is the usual one, as some engines pass over their index at the highest.
    """
    rows = np.stack([np.asarray(record.vector) for record in stored])
    missed = []
    for i, hits in enumerate(backend.search(name, rows, 1)):
        assert len(hits) == 1, f"{len(hits)} hits by the vector of {stored[i].id}"
        if hits[0].id != stored[i].id:
            assert not hits[0].exact, f"{stored[i].id} is stored, but hits called exact miss it"
            missed.append(i)
    assert len(missed) <= (1 - RECALL) * len(stored), f"{len(missed)} of {len(stored)} records missed by their vectors"
    if not missed:
        return
    k = min(WIDE, backend.capabilities.max_k or WIDE)
    answers = backend.search(name, rows[missed], k)
    lost = [stored[i].id for i, hits in zip(missed, answers, strict=True) if stored[i].id not in {h.id for h in hits}]
    assert not lost, f"stored, but lost from the index of vectors: {lost[:5]}"


class LifetimeChecks:
    """What outlives a handle and a process."""

    def test_a_closed_backend_says_so(self, store: Store) -> None:
        backend = store.connect(store.fresh_place())
        spec = store.spec()
        backend.create(spec)
        backend.upsert(spec.name, some(3))
        backend.close()
        backend.close()
        for call in ON_A_COLLECTION.values():
            with pytest.raises(BackendError, match="closed"):
                call(backend, spec.name)
        with pytest.raises(BackendError, match="closed"):
            backend.create(spec)
        with pytest.raises(BackendError, match="closed"):
            backend.drop(spec.name)
        with pytest.raises(BackendError, match="closed"):
            backend.collections()
        if store.capabilities.server:
            store.backend.drop(spec.name)

    def test_with_closes(self, store: Store) -> None:
        with store.connect(store.fresh_place()) as backend:
            assert isinstance(backend, Backend)
        with pytest.raises(BackendError, match="closed"):
            backend.collections()

    def test_reopening_gives_everything_back(self, store: Store) -> None:
        url = store.fresh_place()
        backend = store.connect(url)
        left, right = Twin(backend, store.spec()), Twin(backend, CollectionSpec(store.name(), 4, store.metric, "é 'x'"))
        left.upsert(some(60))
        left.delete(ids=["r00003", "r00004"])
        left.upsert(some(5, seed=8))
        right.upsert(some(9, 4))
        left.backend.flush(left.name)
        left.upsert(some(3, prefix="unflushed"))
        backend.close()
        again = store.connect(url)
        try:
            if not store.capabilities.persistent:
                assert again.collections() == [], "declared as not persistent, but it kept something"
                return
            assert {left.name, right.name} <= set(again.collections())
            for twin in (left, right):
                assert again.describe(twin.name) == twin.spec
                twin.backend = again
                twin.same_records()
                twin.same_count(Compare("lang", "eq", "en"))
                twin.same_hits(vectors(3, twin.spec.dim), 20)
                twin.upsert(some(4, twin.spec.dim, seed=5))
                twin.delete(where=Compare("n", "gt", 30))
                twin.same_records()
                twin.same_hits(vectors(3, twin.spec.dim), 20, Compare("n", "gte", 2))
            if store.capabilities.keyword:
                assert len(again.search_text(left.name, "unflushed", 9)) == 2
        finally:
            for twin in (left, right):
                again.drop(twin.name)
            again.close()

    def test_a_second_process_reads(self, store: Store) -> None:
        url = store.fresh_place()
        name = store.name()
        records = some(30)
        with store.connect(url) as backend:
            backend.create(CollectionSpec(name, 8, store.metric))
            backend.upsert(name, records)
            found = backend.get(name, [r.id for r in records], with_vectors=True)
            stored = {r.id: float(np.sum(np.asarray(r.vector))) for r in found}
            hits = [hit.id for hit in backend.search(name, np.ones((1, 8)), len(records))[0]]
        answer = store.ask("read", url, name)
        if not store.capabilities.persistent:
            assert answer.get("error") == "CollectionNotFound", "declared as not persistent, but it kept something"
            return
        assert "error" not in answer, answer
        assert [tuple(r) for r in answer["records"]] == sorted(payload(r) for r in records)
        assert answer["sums"] == pytest.approx(stored, abs=1e-3)
        assert answer["hits"] == hits

    def test_a_second_writer_works_or_is_told_why_not(self, store: Store) -> None:
        if not store.capabilities.persistent:
            pytest.skip("nothing is shared between processes: the engine declares persistent=False")
        url = store.fresh_place()
        name = store.name()
        with store.connect(url) as backend:
            backend.create(CollectionSpec(name, 8, store.metric))
            backend.upsert(name, some(10))
            answer = store.ask("write", url, name, "20")
            if store.capabilities.concurrent_writers:
                assert answer == {"written": 20}
                assert backend.count(name) == 30
            else:
                refusals = (Unavailable.__name__, Locked.__name__)
                assert answer.get("error") in refusals, f"a second writer must be refused, got {answer}"
                assert len(answer["message"]) > 20
                assert backend.count(name) == 10
            backend.upsert(name, some(10, prefix="after"))
            assert backend.count(name) == (40 if store.capabilities.concurrent_writers else 20)
        assert store.ask("write", url, name, "20") == {"written": 20}
        with store.connect(url) as backend:
            assert backend.count(name) == 40
            backend.drop(name)

    def test_acknowledged_writes_survive_kill_9(self, store: Store) -> None:
        if not store.capabilities.persistent:
            pytest.skip("nothing outlives the process: the engine declares persistent=False")
        url = store.fresh_place()
        name = store.name()
        with store.connect(url) as backend:
            backend.create(CollectionSpec(name, POUR_DIM, store.metric))
        rng = np.random.default_rng(store.seed + 1)
        told = Acknowledged()
        start = 0
        for _ in range(store.sizes.kills):
            pour_and_kill(store, url, name, start, rng, told)
            with store.connect(url) as backend:
                start = 1 + check_poured(backend, name, told)
        with store.connect(url) as backend:
            backend.drop(name)
