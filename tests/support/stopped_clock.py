"""A clock that goes on only while somebody sleeps, to put in the place of the module `time`."""

from __future__ import annotations


class StoppedClock:
    """`now` is the seconds slept."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """The seconds slept so far."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let them pass at once."""
        self.now += seconds
