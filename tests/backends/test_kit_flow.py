"""What engines share: ties at the cut, collections that others replace."""

from __future__ import annotations

import pytest

from backends.errors import BackendError, CollectionNotFound
from backends.kit.current import ATTEMPTS, on_current
from backends.kit.ties import search_with_ties


class Ranked:
    """Lists of (score, id), best first, as an engine ranks them, and every limit that it was asked for."""

    def __init__(self, *lists):
        self.lists = lists
        self.asked = []

    def ask(self, rows, limit):
        self.asked.append((list(rows), limit))
        return [self.lists[row][:limit] for row in rows]

    def search(self, k, most=None):
        return search_with_ties(self.ask, len(self.lists), k, lambda one, other: one[0] == other[0], most=most)


def ranked(*scores):
    return [(score, f"{i:03}") for i, score in enumerate(scores)]


class TestTies:
    def test_one_more_than_k_is_enough_where_it_does_not_tie(self):
        engine = Ranked(ranked(9, 8, 7, 6))
        assert engine.search(2) == [ranked(9, 8, 7)]
        assert engine.asked == [([0], 3)]

    def test_all_that_tie_with_the_kth_are_seen(self):
        engine = Ranked(ranked(9, *[5] * 40, 1))
        (found,) = engine.search(3)
        assert {hit for hit in found if hit[0] == 5} == set(ranked(9, *[5] * 40)[1:])

    def test_only_queries_that_tie_are_asked_again(self):
        lists = ranked(9, 8, 7), ranked(*[4] * 6, 3), ranked(2, 1)
        engine = Ranked(*lists)
        assert engine.search(2) == [lists[0][:3], lists[1], lists[2]]
        assert [rows for rows, _ in engine.asked] == [[0, 1, 2], [1]]

    def test_an_answer_of_fewer_than_asked_for_is_whole(self):
        engine = Ranked(ranked(5, 5, 5))
        assert engine.search(3) == [ranked(5, 5, 5)]
        assert len(engine.asked) == 1

    def test_no_more_is_asked_for_than_the_engine_takes(self):
        engine = Ranked(ranked(*[5] * 100))
        assert engine.search(2, most=20) == [ranked(*[5] * 20)]
        assert [limit for _, limit in engine.asked] == [3, 12, 20]

    def test_k_may_be_all_that_the_engine_takes(self):
        engine = Ranked(ranked(*[5] * 100))
        assert engine.search(20, most=20) == [ranked(*[5] * 20)]
        assert engine.asked == [([0], 20)]

    def test_no_queries_no_question(self):
        engine = Ranked()
        assert engine.search(5) == []
        assert engine.asked == []


class Handles:
    """A name whose collection others make anew: what is remembered of it, and what is there."""

    def __init__(self, remembered, there):
        self.remembered, self.there = remembered, there

    def find(self):
        if self.there is None:
            raise CollectionNotFound("no collection 'c'")
        self.remembered = self.remembered or self.there
        return self.remembered

    def is_stale(self, handle, error):
        stale = isinstance(error, KeyError) and handle != self.there
        if stale:
            self.remembered = None
        return stale

    def use(self, task):
        return on_current("c", "here://", self.find, task, self.is_stale)


class TestCurrent:
    def test_what_is_remembered_is_used(self):
        assert Handles("old", "old").use(lambda handle: handle) == "old"

    def test_a_collection_made_anew_is_used_instead_of_the_one_remembered(self):
        handles, used = Handles("old", "new"), []

        def task(handle):
            used.append(handle)
            if handle == "old":
                raise KeyError(handle)
            return f"done on {handle}"

        assert handles.use(task) == "done on new"
        assert used == ["old", "new"]

    def test_a_refusal_of_the_one_that_is_there_is_not_repeated(self):
        used = []

        def task(handle):
            used.append(handle)
            raise KeyError("a wrong argument")

        with pytest.raises(KeyError, match="a wrong argument"):
            Handles(None, "there").use(task)
        assert used == ["there"]

    def test_other_errors_pass(self):
        def task(handle):
            raise BackendError("the disk is full")

        with pytest.raises(BackendError, match="the disk is full"):
            Handles("old", "new").use(task)

    def test_a_dropped_one_is_not_found(self):
        def task(handle):
            raise KeyError(handle)

        with pytest.raises(CollectionNotFound, match="no collection 'c'"):
            Handles("old", None).use(task)

    def test_one_that_is_replaced_faster_than_it_can_be_used_was_dropped_meanwhile(self):
        handles, used = Handles("0", "0"), []

        def task(handle):
            used.append(handle)
            handles.there = f"{len(used)}"
            raise KeyError(handle)

        with pytest.raises(CollectionNotFound, match="'c' in here:// was dropped meanwhile"):
            handles.use(task)
        assert used == [str(i) for i in range(ATTEMPTS)]
