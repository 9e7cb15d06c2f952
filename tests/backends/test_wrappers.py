"""Wrappers: backends around a backend."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from backends import connect
from backends.base import Backend, CollectionNotFound, CollectionSpec
from backends.wrappers.base import Wrapper
from backends.wrappers.timing import TimedBackend


def test_a_wrapper_passes_the_whole_protocol_on() -> None:
    # What is not passed on would raise NotImplementedError; `connect` opens, and nothing is open yet.
    protocol = {name for name, _ in inspect.getmembers(Backend, inspect.isfunction) if not name.startswith("_")}
    assert protocol - vars(Wrapper).keys() == set()
    for name in protocol:
        assert inspect.signature(getattr(Wrapper, name)) == inspect.signature(getattr(Backend, name)), name


def test_a_wrapper_says_of_itself_what_the_store_says() -> None:
    inner = connect("exact://")
    wrapped = Wrapper(Wrapper(inner))
    assert wrapped.capabilities == inner.capabilities
    assert wrapped.place == inner.place
    assert inner.place is not None


def test_calls_are_measured_as_the_stages_that_they_are_named() -> None:
    measured: list[str] = []

    @contextmanager
    def measure(stage: str) -> Iterator[None]:
        try:
            yield
        finally:
            measured.append(stage)

    inner = connect("exact://")
    inner.create(CollectionSpec("c", 2))
    timed = TimedBackend(inner, {"search": "look", "count": "number"}, measure)
    assert timed.search("c", [[1.0, 0.0]], 3) == [[]]
    assert timed.get("c", ["a"]) == []
    with pytest.raises(CollectionNotFound):
        timed.count("d")
    assert measured == ["look", "number"]
