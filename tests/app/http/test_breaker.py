"""The circuit breaker: only a database that is away trips it, and only one that answers closes it."""

from __future__ import annotations

import pytest

from app.http import breaker
from app.http.breaker import Breaker
from backends.base import BackendError, DimensionMismatch, Unavailable, Unsupported


class Scripted:
    """A backend whose count does what the list says next."""

    def __init__(self) -> None:
        self.outcomes: list[Exception | int] = []
        self.calls = 0

    def count(self) -> int:
        self.calls += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def inner(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    monkeypatch.setattr(breaker, "RETRY_S", 3600.0)
    return Scripted()


REFUSALS = [ValueError("bad"), Unsupported("no"), DimensionMismatch("5"), BackendError("too many"), KeyError("x")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_what_is_refused_shuts_nobody_out(inner: Scripted, refusal: Exception) -> None:
    guarded = Breaker(inner)
    inner.outcomes = [refusal, refusal, 7]
    for _ in range(2):
        with pytest.raises(type(refusal)):
            guarded.count()
    assert guarded.count() == 7


def test_an_outage_is_answered_without_a_call(inner: Scripted) -> None:
    guarded = Breaker(inner)
    inner.outcomes = [Unavailable("away")]
    for _ in range(3):
        with pytest.raises(Unavailable):
            guarded.count()
    assert inner.calls == 1


@pytest.mark.parametrize("refusal", [ValueError("bad"), Unsupported("no"), DimensionMismatch("5"), KeyError("x")])
def test_a_refusal_says_nothing_of_a_database_that_is_away(
    inner: Scripted, refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = Breaker(inner)
    monkeypatch.setattr(breaker, "RETRY_S", 0.0)
    inner.outcomes = [Unavailable("away"), refusal, 7]
    with pytest.raises(Unavailable):
        guarded.count()
    monkeypatch.setattr(breaker, "RETRY_S", 3600.0)
    with pytest.raises(type(refusal)):
        guarded.count()
    # Neither closed by the refusal nor kept shut by it: the next call is the try.
    assert guarded._away
    assert guarded.count() == 7
    assert not guarded._away
