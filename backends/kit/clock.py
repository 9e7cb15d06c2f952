"""The time, where a test must be able to stop it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def now_ns(self) -> int:
        """A time that never goes back, in ns."""

    def wait_until(self, moment_ns: int) -> None:
        """Return at that time, at once if it is past."""


class RealClock:
    """The machine's own clock."""

    def now_ns(self) -> int:
        """`time.perf_counter_ns`."""
        return time.perf_counter_ns()

    def wait_until(self, moment_ns: int) -> None:
        """Sleep for the most of it, then look at the clock, since a sleep ends late by up to a millisecond."""
        while (left_ns := moment_ns - time.perf_counter_ns()) > 0:
            time.sleep(left_ns / 1e9 if left_ns > 2_000_000 else 0)
