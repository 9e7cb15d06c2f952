"""The fake OpenAI server of `benchmarks.fake_openai`, for tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.fake_openai import Behaviour, Failure, FakeOpenAI, Received

__all__ = ["Behaviour", "Failure", "FakeOpenAI", "Received", "server"]


@pytest.fixture(scope="module")
def _running() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as running:
        yield running


@pytest.fixture
def server(_running: FakeOpenAI) -> FakeOpenAI:
    """The server, honest and fast again, having received nothing."""
    _running.behaviour = Behaviour()
    _running.received.clear()
    _running.abandoned = _running.finished = 0
    return _running
