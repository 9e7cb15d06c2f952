"""Checks of collections: create, describe, list, drop, and what every method says of a missing one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from backends.base import (
    METRICS,
    Backend,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    IndexKind,
    IndexSpec,
    Quantization,
    Unsupported,
)
from backends.conformance.samples import some
from backends.conformance.store import Store
from backends.filters import OPERATORS, ORDERINGS

CORE_OPERATORS = {"eq", "in", *ORDERINGS}
ON_A_COLLECTION: dict[str, Callable[[Backend, str], Any]] = {
    "describe": lambda backend, name: backend.describe(name),
    "set_encoder": lambda backend, name: backend.set_encoder(name, "another"),
    "upsert": lambda backend, name: backend.upsert(name, some(1)),
    "upsert nothing": lambda backend, name: backend.upsert(name, []),
    "get": lambda backend, name: backend.get(name, ["a"]),
    "get nothing": lambda backend, name: backend.get(name, []),
    "delete ids": lambda backend, name: backend.delete(name, ids=["a"]),
    "delete no ids": lambda backend, name: backend.delete(name, ids=[]),
    "delete where": lambda backend, name: backend.delete(name, where=Compare("n", "eq", 1)),
    "count": lambda backend, name: backend.count(name),
    "search": lambda backend, name: backend.search(name, np.ones((1, 8), np.float32), 1),
    "scan": lambda backend, name: list(backend.scan(name)),
    "flush": lambda backend, name: backend.flush(name),
}


class CollectionChecks:
    """Collections as such."""

    def test_signatures_are_those_of_the_protocol(self, store: Store) -> None:
        for name, method in inspect.getmembers(Backend, inspect.isfunction):
            if not name.startswith("_"):
                mine = inspect.signature(getattr(type(store.backend), name)).parameters
                theirs = inspect.signature(method).parameters
                shape = [(p.name, p.kind, p.default) for p in theirs.values()]
                assert [(p.name, p.kind, p.default) for p in mine.values()] == shape, name

    def test_capabilities_name_known_things(self, store: Store) -> None:
        declared = store.capabilities
        assert declared.metrics <= set(METRICS)
        assert declared.metrics
        assert CORE_OPERATORS <= declared.operators <= set(OPERATORS)
        assert "auto" in declared.index_kinds
        assert declared.index_kinds <= set(get_args(IndexKind))
        assert "none" in declared.quantizations
        assert declared.quantizations <= set(get_args(Quantization))
        assert declared.max_k is None or declared.max_k >= 100
        assert 0 <= declared.vector_tolerance < 0.1

    def test_describe_gives_back_the_spec(self, store: Store) -> None:
        for metric in sorted(store.capabilities.metrics):
            spec = CollectionSpec(store.name(), 24, metric, "fünf 'quotes' \"x\" \\ 😀\n{json: 1}", IndexSpec("auto"))
            store.backend.create(spec)
            assert store.backend.describe(spec.name) == spec

    def test_set_encoder_changes_the_fingerprint_and_nothing_else(self, store: Store) -> None:
        for metric in sorted(store.capabilities.metrics):
            twin = store.twin(metric=metric)
            twin.upsert(some(20))
            for fingerprint in ("", "fünf 'quotes' \"x\" \\ 😀\n{json: 1}", "a" * 3_000, "last"):
                store.backend.set_encoder(twin.name, fingerprint)
                assert store.backend.describe(twin.name) == replace(twin.spec, encoder=fingerprint)
            twin.same_records()
            twin.same_hits(np.ones((1, 8)), 30)
            twin.upsert(some(3, seed=4))
            twin.same_records()
            assert store.backend.describe(twin.name).encoder == "last"

    def test_set_encoder_refuses_what_no_spec_could_have(self, store: Store) -> None:
        spec = store.spec()
        store.backend.create(spec)
        for fingerprint in ("a\0b", "\ud800", "x" * 70_000):
            with pytest.raises(ValueError, match="fingerprint"):
                store.backend.set_encoder(spec.name, fingerprint)
        assert store.backend.describe(spec.name) == spec

    def test_set_encoder_is_seen_by_other_handles_and_later_ones(self, store: Store) -> None:
        if not store.capabilities.persistent:
            pytest.skip("nothing is shared between handles: the engine declares persistent=False")
        url = store.fresh_place()
        spec = replace(store.spec(), index=IndexSpec("flat" if "flat" in store.capabilities.index_kinds else "auto"))
        with store.connect(url) as backend:
            backend.create(spec)
            backend.upsert(spec.name, some(5))
            other = store.connect(url) if store.capabilities.concurrent_writers else None
            try:
                assert other is None or other.describe(spec.name) == spec
                backend.set_encoder(spec.name, "second")
                assert other is None or other.describe(spec.name) == replace(spec, encoder="second")
            finally:
                if other is not None:
                    other.close()
        answer = store.ask("describe", url, spec.name)
        assert answer == {"spec": replace(spec, encoder="second").to_json()}
        with store.connect(url) as backend:
            assert backend.describe(spec.name) == replace(spec, encoder="second")
            assert backend.count(spec.name) == 5
            backend.drop(spec.name)

    def test_undeclared_metrics_are_refused(self, store: Store) -> None:
        for metric in set(METRICS) - store.capabilities.metrics:
            spec = CollectionSpec(store.name(), 8, metric)
            with pytest.raises(Unsupported):
                store.backend.create(spec)
            assert spec.name not in store.backend.collections()

    def test_collections_are_listed_sorted(self, store: Store) -> None:
        names = [store.name(stem) for stem in ("b", "a", "C", "c-d", "Z")]
        for name in names:
            store.backend.create(CollectionSpec(name, 4, store.metric))
        listed = store.backend.collections()
        assert listed == sorted(listed)
        assert [name for name in listed if name in names] == sorted(names)

    def test_names_differ_by_case_and_reach_63_characters(self, store: Store) -> None:
        stem = store.name("n")
        names = [stem + "_Ab", stem + "_aB", stem + "-ab", stem + "_ab", stem.ljust(63, "x")]
        try:
            for number, name in enumerate(names):
                store.backend.create(CollectionSpec(name, 4, store.metric, encoder=str(number)))
                store.backend.upsert(name, some(number + 1, 4))
            for number, name in enumerate(names):
                assert store.backend.describe(name).encoder == str(number)
                assert store.backend.count(name) == number + 1
        finally:
            for name in names:
                store.backend.drop(name)

    def test_create_twice_is_refused_and_keeps_the_first(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, some(3))
        with pytest.raises(CollectionExists):
            store.backend.create(CollectionSpec(name, 16, store.metric))
        assert store.backend.describe(name).dim == 8
        assert store.backend.count(name) == 3

    @pytest.mark.parametrize("call", ON_A_COLLECTION)
    def test_a_missing_collection_is_named(self, store: Store, call: str) -> None:
        name = store.name("missing")
        with pytest.raises(CollectionNotFound, match=name):
            ON_A_COLLECTION[call](store.backend, name)
        assert name not in store.backend.collections()

    def test_drop_removes_everything_and_is_silent_when_missing(self, store: Store) -> None:
        spec = store.spec()
        store.backend.drop(spec.name)
        store.backend.create(spec)
        store.backend.upsert(spec.name, some(5))
        store.backend.drop(spec.name)
        store.backend.drop(spec.name)
        assert spec.name not in store.backend.collections()
        store.backend.create(CollectionSpec(spec.name, 4, spec.metric))
        assert store.backend.count(spec.name) == 0
        assert store.backend.describe(spec.name).dim == 4
        assert store.backend.search(spec.name, np.ones((1, 4)), 3) == [[]]

    def test_collections_do_not_mix(self, store: Store) -> None:
        left, right = store.twin(), store.twin(dim=4)
        left.upsert(some(6))
        right.upsert(some(4, 4))
        left.delete(ids=["r00001"])
        left.same_records()
        right.same_records()
        store.backend.drop(left.name)
        right.same_records()
        right.same_hits(np.ones((2, 4)), 10)

    @pytest.mark.parametrize("dim", [1, 2, 3, 768, 2048])
    def test_vectors_of_any_length(self, store: Store, dim: int) -> None:
        twin = store.twin(dim=dim)
        twin.upsert(some(10, dim))
        twin.same_records()
        twin.same_hits(np.ones((1, dim)), 5)
