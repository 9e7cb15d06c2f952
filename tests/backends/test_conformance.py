"""The conformance suite over every engine."""

from __future__ import annotations

from typing import Self

import pytest

import backends
from backends.conformance import BackendSuite, Sizes
from backends.wrappers.base import Wrapper


class TestExact(BackendSuite):
    url = "exact://"
    # Nothing is easy or hard for it.
    sizes = Sizes(hard=2_000)


class TestFaiss(BackendSuite):
    url = "faiss:///{dir}"


class WrappedExact(Wrapper):
    """A wrapper that does nothing of its own."""

    @classmethod
    def connect(cls, url: str) -> Self:
        return cls(backends.connect(url))


@pytest.mark.slow
class TestWrapper(BackendSuite):
    """What holds of an engine holds of it in a wrapper."""

    engine = WrappedExact
    url = "exact://"
    sizes = Sizes(hard=2_000)
