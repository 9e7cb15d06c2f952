"""How far a run is, how fast it goes, and how long it will still take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a run. `total` is None while the source is still being listed.

    `rate_per_s` is items a second over the last half minute, `remaining_s` what that leaves to wait, None
    when not yet known; `path` the item finished last; `stage` encoding texts anew, listing,
    indexing, pruning or done.
    """

    stage: str
    done: int
    total: int | None
    rate_per_s: float
    remaining_s: float | None
    quarantined: int
    path: str


class Meter:
    """Turns counts into rates over a sliding window of half a minute.

    A window follows a run that first skips thousands of unchanged items and then embeds: a mean since
    the start would promise an end that never comes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])

    def read(self, stage: str, done: int, total: int | None, quarantined: int, path: str) -> Progress:
        """The moment described by these counts, with rate and remaining time."""
        now = self._clock()
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW_S:
            self._marks.popleft()
        start_s, start_done = self._marks[0]
        elapsed_s = now - start_s
        rate = (done - start_done) / elapsed_s if elapsed_s > 0 else 0.0
        remaining = None
        if total is not None and (done >= total or rate > 0):
            remaining = 0.0 if done >= total else (total - done) / rate
        return Progress(
            stage=stage,
            done=done,
            total=total,
            rate_per_s=rate,
            remaining_s=remaining,
            quarantined=quarantined,
            path=path,
        )
