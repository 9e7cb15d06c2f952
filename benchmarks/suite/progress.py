"""How far a run is, how fast, and how long it has still to go, on standard error."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import TextIO

QUIET_S = 10.0
# Expected seconds that what is known of all engines counts among those of one, and of all its cases among one's.
WHOLE_S, PART_S = 10.0, 2.0


class Pace:
    """How long points take against expectation: of an engine at a place of a case, learnt from those before.

    Where little is known of a place, all that the engine did in the case counts; where little of that, all engines
    and cases together.
    """

    def __init__(self) -> None:
        self._took_s: dict[tuple[object, ...], float] = defaultdict(float)
        self._expected_s: dict[tuple[object, ...], float] = defaultdict(float)

    def learn(self, engine: str, case: str, place: int, expected_s: float, took_s: float) -> None:
        """A point took `took_s` where `expected_s` were planned."""
        for key in ((), (engine, case), (engine, case, place)):
            self._expected_s[key] += expected_s
            self._took_s[key] += took_s

    def of(self, engine: str, case: str, place: int) -> float:
        """By how much to multiply an expectation."""
        pace = 1.0
        for key, weight_s in (((), WHOLE_S), ((engine, case), PART_S), ((engine, case, place), PART_S)):
            pace = (self._took_s[key] + weight_s * pace) / (self._expected_s[key] + weight_s)
        return pace


class Progress:
    """Tells of points that were measured, and of the time that the others will take."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._done = 0
        self._told_s = -QUIET_S

    def done(self, what: str, took_s: float, queries: int, points_left: int, left_s: float) -> None:
        """A point was measured: `queries` in `took_s`; what is left after it."""
        self._done += 1
        rate = f" · {queries / took_s:,.0f} queries/s" if queries and took_s else ""
        total = self._done + points_left
        self._tell(f"[{self._done}/{total}] {what}{rate} · {clock_time(left_s)} left", last=not points_left)

    def note(self, text: str) -> None:
        """A line of its own, which stays."""
        self._stream.write(("\r\x1b[K" if self._live else "") + text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _tell(self, text: str, *, last: bool) -> None:
        now_s = time.monotonic()
        if self._live:
            self._stream.write(f"\r\x1b[K{text[:118]}")
        elif now_s - self._told_s >= QUIET_S or last:
            # Into a file or pipe, a line now and then is enough.
            self._stream.write(text + "\n")
            self._told_s = now_s
        self._stream.flush()


def clock_time(seconds: float) -> str:
    """Minutes and seconds, ``4:07``; hours, ``1:02:11``."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
