"""Wrappers: backends around a backend."""

from __future__ import annotations

import inspect

from backends import connect
from backends.base import Backend
from backends.wrappers.base import Wrapper


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
