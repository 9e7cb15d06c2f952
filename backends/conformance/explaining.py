"""Checks of what a search tells of itself: one plan for each query, true, and none where nobody asked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backends.base import Backend, Compare, Hit, Where, explain
from backends.conformance.samples import some, vectors
from backends.conformance.store import Store


def explained(
    backend: Backend, name: str, queries: NDArray[np.float32], k: int, where: Where | None = None
) -> list[list[Hit]]:
    """What a search finds; asserts that its plans say what the hits and the counts do."""
    with explain() as plans:
        answers = backend.search(name, queries, k, where=where)
    assert len(plans) == len(queries), "a plan for each query"
    matching, total = backend.count(name, where), backend.count(name)
    for plan, hits in zip(plans, answers, strict=True):
        assert (plan.k, plan.where) == (k, where)
        assert plan.kind == ("scan" if all(hit.exact for hit in hits) else "index") or not hits, plan.line
        assert plan.width is None or (plan.kind == "index" and plan.width >= 1), plan.line
        assert plan.candidates is None or len(hits) <= plan.candidates, plan.line
        # An estimate is for choosing a plan: it need not be close, but must not be about something else.
        assert plan.share is not None
        assert 0 <= plan.share <= 1
        assert abs(plan.share - matching / max(total, 1)) <= 0.25, plan.line
        assert plan.kind in plan.line
    return answers


class ExplainChecks:
    """What `backends.plans.explain` tells."""

    def test_a_search_says_how_it_was_answered(self, store: Store) -> None:
        name = store.collection(16)
        store.backend.upsert(name, some(60, 16))
        queries = vectors(3, 16, seed=3)
        for where in (None, Compare("n", "lt", 15), Compare("n", "lt", 0)):
            told = explained(store.backend, name, queries, 5, where)
            assert told == store.backend.search(name, queries, 5, where=where), "asking for the plan changes the hits"
        with explain() as plans:
            pass
        store.backend.search(name, queries, 5)
        assert plans == []

    def test_of_no_query_there_is_no_plan(self, store: Store) -> None:
        name = store.collection(16)
        store.backend.upsert(name, some(3, 16))
        with explain() as plans:
            assert store.backend.search(name, np.empty((0, 16), np.float32), 5) == []
        assert plans == []
