"""A backend with known faults: what a benchmark says of it must be exactly what was injected.

Each fault comes at every N-th search, counted from 1:

    delay_ms             every search takes this much longer
    stall_every, stall_ms        a search stands still for this long
    duplicate_every      the best hit is there once more, in the place of the last
    unknown_every        the last hit has an id that was never stored
    unfilter_every       a filtered search forgets its filter
    error_every          a search fails
    wrong_every, wrong   as many of the hits, the last ones, are replaced by the farthest rows
    short_every          the last hit is missing
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import ArrayLike

from backends.base import Backend, BackendError, Hit, Where
from backends.kit.clock import Clock, RealClock
from backends.wrappers.base import Wrapper


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often; 0 means never."""

    delay_ms: float = 0.0
    stall_every: int = 0
    stall_ms: float = 0.0
    duplicate_every: int = 0
    unknown_every: int = 0
    unfilter_every: int = 0
    error_every: int = 0
    wrong_every: int = 0
    wrong: int = 1
    short_every: int = 0

    @classmethod
    def from_query(cls, query: str) -> Self:
        """Read faults as the query of a URL: ``delay_ms=5&error_every=10``. Raises ValueError for others."""
        known = {field.name: field.type for field in fields(cls)}
        given = parse_qsl(query, strict_parsing=True) if query else []
        unknown = [name for name, _ in given if name not in known]
        if unknown:
            raise ValueError(f"there is no fault {unknown[0]}; there are {', '.join(known)}")
        told: dict[str, Any] = {name: float(value) if known[name] == "float" else int(value) for name, value in given}
        return cls(**told)


class InjectedError(BackendError):
    """A search that was made to fail."""


class FaultyBackend(Wrapper):
    """A backend whose searches have faults; `clock` is what its delays pass on."""

    def __init__(self, inner: Backend, faults: Faults, clock: Clock | None = None) -> None:
        super().__init__(inner)
        self._faults, self._clock = faults, clock or RealClock()
        self._searches, self._counting = 0, threading.Lock()

    def search(
        self, name: str, vectors: ArrayLike, k: int, *, where: Where | None = None, effort: float | None = None
    ) -> list[list[Hit]]:
        """Search, then spoil what was found."""
        with self._counting:
            self._searches += 1
            turn = self._searches
        faults = self._faults

        def due(every: int) -> bool:
            return every > 0 and turn % every == 0

        begun_ns = self._clock.now_ns()
        if due(faults.error_every):
            self._pass(begun_ns, faults.delay_ms)
            raise InjectedError("injected: this search fails")
        forgotten = where is not None and due(faults.unfilter_every)
        found = self.inner.search(name, vectors, k, where=None if forgotten else where, effort=effort)
        if due(faults.wrong_every):
            found = [self._worsened(name, hits, query, k) for hits, query in zip(found, vectors, strict=True)]  # type: ignore[arg-type]
        if due(faults.duplicate_every):
            found = [[*hits[:-1], hits[0]] if len(hits) > 1 else hits for hits in found]
        if due(faults.unknown_every):
            found = [[*hits[:-1], replace(hits[-1], id="never-stored")] if hits else hits for hits in found]
        if due(faults.short_every):
            found = [hits[:-1] for hits in found]
        self._pass(begun_ns, faults.delay_ms + (faults.stall_ms if due(faults.stall_every) else 0.0))
        return found

    def _pass(self, begun_ns: int, least_ms: float) -> None:
        if least_ms:
            self._clock.wait_until(begun_ns + round(least_ms * 1e6))

    def _worsened(self, name: str, hits: Sequence[Hit], query: ArrayLike, k: int) -> list[Hit]:
        everything = self.inner.search(name, np.asarray(query)[None], self.inner.count(name))[0]
        kept = max(0, len(hits) - self._faults.wrong)
        # The farthest, but none that is a right answer as well.
        return [*hits[:kept], *everything[max(k, len(everything) - (len(hits) - kept)) :]]
