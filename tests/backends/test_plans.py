"""What a search tells of itself, and to whom."""

from __future__ import annotations

import threading

import numpy as np

from backends import connect
from backends.base import Backend, Compare, Record, explain
from backends.base import CollectionSpec as Spec
from backends.exact.backend import ExactBackend
from backends.plans import Plan, note_plan
from backends.wrappers.base import Wrapper


def filled(backend: Backend) -> Backend:
    backend.create(Spec("c", 2))
    backend.upsert("c", [Record(f"r{i}", np.array([1.0, i], np.float32), metadata={"i": i}) for i in range(10)])
    return backend


def test_an_engine_that_says_nothing_is_told_by_its_hits() -> None:
    where = Compare("i", "lt", 4)
    with explain() as plans:
        filled(connect("exact://")).search("c", [[1.0, 0.0], [0.0, 1.0]], 3, where=where)
    assert plans == [Plan(kind="scan", candidates=4, share=0.4, k=3, where=where)] * 2
    assert plans[0].line == """scan, 4 candidates, 40% of the records match; 3 wanted for {"i": {"$lt": 4}}"""


class Starts(ExactBackend):
    """Says that an index is asked, finds that the collection has changed, and begins anew with a scan."""

    def search(self, name, vectors, k, *, where=None, effort=None):  # type: ignore[no-untyped-def]
        note_plan("index", width=7, queries=len(vectors))
        note_plan("scan", queries=len(vectors))
        return super().search(name, vectors, k, where=where, effort=effort)


def test_what_was_begun_anew_is_told_as_it_ended_and_wrappers_tell_nothing_twice() -> None:
    wrapped = Wrapper(Wrapper(filled(Starts())))
    with explain() as plans:
        wrapped.search("c", [[1.0, 0.0]], 3)
        wrapped.search("c", [[1.0, 0.0]], 4)
    assert [(plan.kind, plan.k, plan.share) for plan in plans] == [("scan", 3, 1.0), ("scan", 4, 1.0)]


def test_each_thread_is_told_of_its_own_searches() -> None:
    backend = filled(connect("exact://"))
    with explain() as plans:
        other = threading.Thread(target=backend.search, args=("c", [[1.0, 0.0]], 3))
        other.start()
        other.join()
    assert plans == []
