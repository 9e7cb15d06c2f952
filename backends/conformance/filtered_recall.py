"""Checks of the promise that every engine makes: min(k, matching) hits at recall >= 0.95 under any filter.

One crowd of clustered vectors is stored by a single call and indexed once for the class. Filters keep
50%, 10%, 1% and 0.1% of it: at random, and by nearness to a pole, asked from the pole and from the far
side, which is where filtered graph search loses its way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.base import Backend, CollectionSpec, Compare, Hit, Record, Unsupported, Where
from backends.conformance.oracle import RECALL, SCORE_TOLERANCE, in_order, score_tolerance
from backends.conformance.samples import clustered, unit
from backends.conformance.store import Store
from backends.kit.scores import similarity

DIM = 64
K = 10
SHARES = (0.5, 0.1, 0.01, 0.001)
NOISE = 0.02


@dataclass(slots=True)
class Corpus:
    """What the large collection holds: row i is record ``p{i:05}`` when `alive`, vectors of unit length."""

    name: str
    spec: CollectionSpec
    rows: NDArray[np.float32]
    alive: NDArray[np.bool_]
    chance: NDArray[np.float64]
    near: NDArray[np.float64]

    def record(self, i: int) -> Record:
        """Record i."""
        fields = {"chance": float(self.chance[i]), "near": float(self.near[i]), "third": i % 10}
        return Record(f"p{i:05}", self.rows[i], metadata=fields)

    def records(self, which: NDArray[np.int64]) -> Iterator[Record]:
        """Several, one by one."""
        return (self.record(int(i)) for i in which)


def crowd_of(store: Store) -> Corpus:
    """The crowd of this class, stored and indexed by the first check that asks."""
    if "crowd" not in store.cache:
        n = store.sizes.crowd
        spec = store.spec(DIM)
        rng = np.random.default_rng(5)
        rows = clustered(n, DIM, seed=31)
        nearness = np.argsort(np.argsort(-(rows @ rows[0]))) / n
        crowd = Corpus(spec.name, spec, rows, np.ones(n, np.bool_), rng.permutation(n) / n, nearness)
        store.backend.create(spec)
        store.cache["crowd"] = crowd
        store.backend.upsert(spec.name, crowd.records(np.arange(n)))
        assert store.backend.count(spec.name) == n
        store.backend.flush(spec.name)
    found: Corpus = store.cache["crowd"]
    return found


def queries_of(crowd: Corpus) -> NDArray[np.float32]:
    """(15, DIM): five at records, five about the pole, five on its far side."""
    noise = clustered(15, DIM, seed=77) * 0.3
    about = np.concatenate(
        [crowd.rows[7:5007:1000][:5], np.repeat(crowd.rows[:1], 5, 0), -np.repeat(crowd.rows[:1], 5, 0)]
    )
    return unit(about + noise[: len(about)])


def check_hits(
    backend: Backend,
    crowd: Corpus,
    answers: list[list[Hit]],
    mask: NDArray[np.bool_],
    what: str,
    *,
    queries: NDArray[np.float32] | None = None,
) -> float:
    """Assert count, order, scores and that hits are alive and match; return the recall by distance.

    `queries` are what was asked for; the crowd's own where they are left out.
    """
    matching = np.flatnonzero(mask & crowd.alive)
    expected = min(K, len(matching))
    scores = similarity(queries_of(crowd) if queries is None else queries, crowd.rows, crowd.spec.metric)
    allowed = score_tolerance(backend, 1.0)
    reached = []
    for hits, truth in zip(answers, scores, strict=True):
        found = [int(hit.id[1:]) for hit in hits]
        assert set(found) <= set(matching.tolist()), f"{what}: hits that are deleted or that the filter excludes"
        assert len(hits) == expected, f"{what}: {len(hits)} hits instead of min(k, matching) = {expected}"
        assert in_order(hits), what
        for hit, i in zip(hits, found, strict=True):
            assert hit.score == pytest.approx(truth[i], abs=allowed), f"{what}: score of {hit.id}"
        kth = np.sort(truth[matching])[-expected]
        if hits[0].exact:
            assert min(truth[found]) >= kth - allowed, f"{what}: hits called exact miss a better record"
        reached.append(sum(truth[i] >= kth - SCORE_TOLERANCE for i in found) / expected)
    return float(np.mean(reached))


def check_promise(backend: Backend, crowd: Corpus) -> None:
    """Assert the promise at every share, for both kinds of filter and for none."""
    queries = queries_of(crowd)
    cases: list[tuple[str, Where | None, NDArray[np.bool_]]] = [("no filter", None, np.ones(len(crowd.rows), np.bool_))]
    for share in SHARES:
        for field, values in (("chance", crowd.chance), ("near", crowd.near)):
            cases.append((f"{field} {share:.1%}", Compare(field, "lt", share), values < share))
    for what, where, mask in cases:
        assert backend.count(crowd.name, where) == int((mask & crowd.alive).sum()), what
        recall = check_hits(backend, crowd, backend.search(crowd.name, queries, K, where=where), mask, what)
        assert recall >= RECALL, f"{what}: recall {recall:.3f}"
        for query in queries[::4]:
            (hits,) = backend.search(crowd.name, query[None, :], K, where=where)
            assert len(hits) == min(K, int((mask & crowd.alive).sum())), f"{what}: one query alone"


class PromiseChecks:
    """What an engine promises on a collection large enough to be indexed."""

    def test_one_call_stores_more_than_an_engine_s_batch(self, store: Store) -> None:
        crowd = crowd_of(store)
        ids = [f"p{i:05}" for i in np.flatnonzero(crowd.alive)[::997]]
        found = store.backend.get(crowd.name, ids, with_vectors=True)
        assert [record.id for record in found] == ids
        for record in found:
            assert record.vector is not None
            tolerance = max(1e-6, store.capabilities.vector_tolerance)
            np.testing.assert_allclose(record.vector, crowd.rows[int(record.id[1:])], atol=tolerance)

    def test_filtered_search_keeps_its_promise(self, store: Store) -> None:
        check_promise(store.backend, crowd_of(store))

    def test_the_promise_survives_deletes_and_upserts(self, store: Store) -> None:
        crowd = crowd_of(store)
        n = len(crowd.rows)
        thirds = np.arange(n) % 10
        gone = Compare("third", "in", (1, 4))
        doomed = crowd.alive & np.isin(thirds, (1, 4))
        assert store.backend.delete(crowd.name, where=gone) == int(doomed.sum())
        by_id = np.flatnonzero(crowd.alive & (thirds == 7))
        assert store.backend.delete(crowd.name, ids=[f"p{i:05}" for i in by_id]) == len(by_id)
        crowd.alive[np.isin(thirds, (1, 4, 7))] = False
        changed = np.flatnonzero(thirds == 3)
        crowd.rows[changed] = clustered(len(changed), DIM, seed=41)
        crowd.chance[changed] = np.random.default_rng(6).permutation(crowd.chance[changed])
        store.backend.upsert(crowd.name, crowd.records(changed))
        check_promise(store.backend, crowd)
        store.backend.flush(crowd.name)
        check_promise(store.backend, crowd)

    def test_effort_moves_recall_one_way(self, store: Store) -> None:
        crowd = crowd_of(store)
        queries = queries_of(crowd)
        mask = np.ones(len(crowd.rows), np.bool_)
        efforts = (0.01, 0.1, 0.3, 0.6, 1.0)
        if not store.capabilities.effort:
            try:
                answers = store.backend.search(crowd.name, queries, K, effort=efforts[0])
            except Unsupported:
                return
            assert all(hit.exact for hits in answers for hit in hits), "an engine that ignores effort must be exact"
            assert check_hits(store.backend, crowd, answers, mask, "ignored effort") == 1.0
            return
        recalls = [
            check_hits(
                store.backend, crowd, store.backend.search(crowd.name, queries, K, effort=e), mask, f"effort {e}"
            )
            for e in efforts
        ]
        for lower, higher in itertools.pairwise(recalls):
            assert higher >= lower - NOISE, f"recall falls with effort: {recalls}"
        assert recalls[-1] >= RECALL, f"recall {recalls[-1]:.3f} at full effort"
        for where, name in ((Compare("chance", "lt", 0.01), "chance"), (Compare("near", "lt", 0.01), "near")):
            values = crowd.chance if name == "chance" else crowd.near
            answers = store.backend.search(crowd.name, queries, K, where=where, effort=1.0)
            assert check_hits(store.backend, crowd, answers, values < 0.01, f"full effort, {name} 1%") >= RECALL
