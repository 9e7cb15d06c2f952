"""How far a run is, how fast, and how long it has still to go, on standard error."""

from __future__ import annotations

import sys
import time
from typing import TextIO

QUIET_S = 10.0


class Progress:
    """Counts work in expected seconds: what remains is scaled by how long the work done took against expectation."""

    def __init__(self, expected_s: float, points: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._remaining_s, self._points = expected_s, points
        self._done, self._done_s, self._took_s = 0, 0.0, 0.0
        self._told_s = -QUIET_S

    @property
    def remaining_s(self) -> float:
        """Expected time until the end."""
        return self._remaining_s * self._pace

    @property
    def _pace(self) -> float:
        # A few points say little about all: until 10 s were spent, the expectation counts as much.
        return (self._took_s + 10) / (self._done_s + 10)

    def drop(self, expected_s: float) -> None:
        """Work that is left out, or was done in an earlier run."""
        self._remaining_s = max(0.0, self._remaining_s - expected_s)
        self._points -= 1

    def done(self, what: str, expected_s: float, took_s: float, queries: int = 0) -> None:
        """A point was measured: `queries` in `took_s`, where `expected_s` were planned."""
        self._done += 1
        self._done_s += expected_s
        self._took_s += took_s
        self._remaining_s = max(0.0, self._remaining_s - expected_s)
        rate = f" · {queries / took_s:,.0f} queries/s" if queries and took_s else ""
        self._tell(f"[{self._done}/{self._points}] {what}{rate} · {clock_time(self.remaining_s)} left")

    def note(self, text: str) -> None:
        """A line of its own, which stays."""
        self._stream.write(("\r\x1b[K" if self._live else "") + text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _tell(self, text: str) -> None:
        now_s = time.monotonic()
        if self._live:
            self._stream.write(f"\r\x1b[K{text[:118]}")
        elif now_s - self._told_s >= QUIET_S or self._done == self._points:
            # Into a file or pipe, a line now and then is enough.
            self._stream.write(text + "\n")
            self._told_s = now_s
        self._stream.flush()


def clock_time(seconds: float) -> str:
    """Minutes and seconds, ``4:07``; hours, ``1:02:11``."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
