"""Aliases over an engine: every call goes where the name points, and nothing else of the engine changes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Self

import numpy as np
import pytest

import backends
from backends.base import BackendError, CollectionExists, CollectionNotFound, CollectionSpec, Record
from backends.conformance.collections import CollectionChecks
from backends.conformance.keyword import KeywordChecks
from backends.conformance.records import RecordChecks
from backends.conformance.scanning import ScanChecks
from backends.conformance.searching import SearchChecks
from backends.conformance.store import Suite
from backends.wrappers import aliases
from backends.wrappers.aliases import HOLDER, Aliased, with_aliases


class AliasedExact(Aliased):
    """The oracle, with a name that stands for another collection in it."""

    capabilities = backends.load("exact").capabilities

    @classmethod
    def connect(cls, url: str) -> Self:
        return cls(backends.connect(url))

    def create(self, spec: CollectionSpec) -> None:
        """Make it under another name, for which the wanted one stands."""
        if spec.name in self.collections():
            raise CollectionExists(spec.name)
        other = f"{spec.name[:40]}-real"
        super().create(CollectionSpec(other, spec.dim, spec.metric, spec.encoder, spec.index))
        self.point({spec.name: other})


class TestAliased(CollectionChecks, RecordChecks, SearchChecks, ScanChecks, KeywordChecks, Suite):
    """What holds of a collection holds of one that is reached by an alias."""

    engine = AliasedExact
    url = "exact://"


@pytest.fixture
def backend() -> Aliased:
    """Collections a and b, with one and two records."""
    store = with_aliases(backends.connect("exact://"))
    for name, count in (("a", 1), ("b", 2)):
        store.create(CollectionSpec(name, 2, encoder=f"of {name}"))
        store.upsert(name, [Record(f"{name}{i}", np.ones(2, np.float32)) for i in range(count)])
    return store


def test_an_alias_goes_before_a_collection_of_its_name(backend: Aliased) -> None:
    backend.point({"a": "b", "a-before": "a"})
    assert backend.collections() == ["a", "a-before"]
    assert (backend.count("a"), backend.count("a-before")) == (2, 1)
    assert backend.describe("a").encoder == "of b"
    assert (backend.resolved("a"), backend.resolved("a-before"), backend.resolved("else")) == ("b", "a", "else")


def test_a_resolved_name_stays_what_it_was_for(backend: Aliased) -> None:
    own = backend.resolved("a")
    backend.point({"a": "b", "a-before": "a"})
    assert (backend.count(own), backend.count(backend.resolved("a"))) == (1, 2)
    assert sum(len(page.records) for page in backend.scan(own)) == 1
    backend.drop("a-before")
    with pytest.raises(CollectionNotFound):
        backend.count(own)


def test_dropping_an_alias_drops_what_it_stands_for_and_nothing_else(backend: Aliased) -> None:
    backend.point({"a": "b", "a-before": "a"})
    backend.drop("a-before")
    assert backend.collections() == ["a"]
    assert backend.count("a") == 2
    assert sorted(backend.inner.collections()) == ["b", HOLDER]
    backend.drop("a")
    assert backend.collections() == []


def test_what_another_alias_stands_for_is_not_dropped(backend: Aliased) -> None:
    backend.point({"x": "a"})
    with pytest.raises(BackendError, match="'a' cannot be dropped, as 'x' stands for it: drop that"):
        backend.drop("a")
    assert backend.count("x") == 1


def test_a_name_is_not_dropped_so_that_earlier_vectors_have_it_again(backend: Aliased) -> None:
    backend.point({"a": "b", "a-before": "a"})
    with pytest.raises(BackendError, match="'a' cannot be dropped, as 'a-before' stands for it: drop that"):
        backend.drop("a")
    assert (backend.count("a"), backend.count("a-before")) == (2, 1)
    backend.drop("a-before")
    backend.drop("a")
    with pytest.raises(CollectionNotFound):
        backend.describe("a")
    backend.create(CollectionSpec("a", 2))
    assert backend.collections() == ["a"]


def test_what_a_drop_broken_off_has_left_does_not_take_a_new_collection_over(backend: Aliased) -> None:
    backend.point({"a": "b", "a-before": "a"})
    for real in ("a", "b"):
        # Killed after this, and before the alias was removed.
        backend.inner.drop(real)
    backend.create(CollectionSpec("a", 2, encoder="new"))
    assert backend.collections() == ["a"]
    assert backend.aliases() == {}
    backend.drop("a-before")
    assert backend.describe("a").encoder == "new"


def test_nobody_sees_or_drops_what_holds_them(backend: Aliased) -> None:
    backend.point({"x": "a"})
    with pytest.raises(CollectionNotFound):
        backend.count(HOLDER)
    with pytest.raises(CollectionNotFound):
        next(backend.scan(HOLDER))
    backend.drop(HOLDER)
    assert backend.aliases() == {"x": "a"}


def test_taken_names_are_refused(backend: Aliased) -> None:
    backend.point({"x": "a"})
    for name in ("x", HOLDER):
        with pytest.raises(CollectionExists):
            backend.create(CollectionSpec(name, 2))


def test_names_are_pointed_as_one(backend: Aliased, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[list[str]] = []
    upsert = backend.inner.upsert

    def noting(name: str, records: Iterable[Record]) -> None:
        given = list(records)
        stored.append([record.id for record in given])
        upsert(name, given)

    monkeypatch.setattr(backend.inner, "upsert", noting)
    backend.point({"a": "b", "a-before": "a"})
    assert stored == [["a-before", "a"]], "nobody sees one of them alone where the engine stores all or none"


def test_pointing_at_nothing_changes_nothing(backend: Aliased) -> None:
    with pytest.raises(CollectionNotFound):
        backend.point({"x": "a", "y": "missing"})
    with pytest.raises(ValueError, match="collection name"):
        backend.point({"no name": "a"})
    assert backend.aliases() == {}
    assert HOLDER not in backend.inner.collections()


def test_another_handle_notices_after_two_seconds_and_at_once_where_it_must(
    backend: Aliased, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(aliases.time, "monotonic", lambda: now[0])
    backend.point({"x": "a"})
    other = with_aliases(backend.inner)
    assert other.count("x") == 1
    backend.point({"x": "b"})
    assert other.count("x") == 1, "what was read of the aliases holds for two seconds"
    now[0] += aliases.SEEN_S + 0.1
    assert other.count("x") == 2
    backend.point({"x": "a"})
    backend.drop("b")
    assert other.count("x") == 1, "what it knew is gone, so it looked again"


def test_an_alias_whose_collection_others_dropped_is_not_there(backend: Aliased) -> None:
    backend.point({"x": "a"})
    backend.inner.drop("a")
    assert backend.collections() == ["b"]
    with pytest.raises(CollectionNotFound):
        backend.count("x")


def test_records_are_given_once_even_where_the_name_has_moved(backend: Aliased) -> None:
    backend.point({"x": "a"})
    other = with_aliases(backend.inner)
    other.count("x")
    backend.point({"x": "b"})
    backend.drop("a")
    other.upsert("x", (Record(f"n{i}", np.ones(2, np.float32)) for i in range(3)))
    assert backend.count("b") == 5


def test_a_scan_finds_what_the_name_has_come_to_stand_for(backend: Aliased) -> None:
    backend.point({"x": "a"})
    other = with_aliases(backend.inner)
    other.count("x")
    backend.point({"x": "b"})
    backend.drop("a")
    assert [record.id for page in other.scan("x", batch=1) for record in page.records] == ["b0", "b1"]


def test_it_is_wrapped_once(backend: Aliased) -> None:
    assert with_aliases(backend) is backend
