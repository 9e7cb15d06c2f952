"""One budget for the memory of all pictures that are decoded in a process."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

MIB = 1024 * 1024
#: What all decoding of this process may take together; a picture that needs more is decoded alone.
BUDGET_BYTES = 320 * MIB
#: Pictures that may pass by one that waits for more room than there is.
MAX_PASSED = 16


class DecodingBusy(Exception):
    """Others are being decoded, and it is not one's turn in time."""


class Budget:
    """Lets pictures be decoded while their bytes are within `total`, in the order in which they come. Thread-safe.

    One that needs more than is left waits; those behind it that are small enough pass by, but only MAX_PASSED of
    them, so that it is not kept waiting for ever. One that needs more than `total` is let in alone.
    """

    def __init__(self, total: int, places: int | None = None) -> None:
        self.total, self._places = total, places
        self._used = self._inside = 0
        self._queue: deque[_Waiting] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._queue)

    @property
    def used(self) -> int:
        """The bytes that are taken now."""
        return self._used

    @contextlib.contextmanager
    def lease(self, need: int, within_s: float | None = None) -> Iterator[None]:
        """Hold room for `need` bytes inside. Raises `DecodingBusy` if there is none in time."""
        one = _Waiting(min(max(need, 0), self.total))
        with self._lock:
            self._queue.append(one)
            self._admit()
        if not one.turn.wait(within_s):
            self._give_up(one)
        try:
            yield
        finally:
            with self._lock:
                self._used -= one.need
                self._inside -= 1
                self._admit()

    def _give_up(self, one: _Waiting) -> None:
        with self._lock:
            if one.turn.is_set():
                return
            self._queue.remove(one)
            self._admit()
        raise DecodingBusy("too many pictures are being decoded: try again in a moment")

    def _admit(self) -> None:
        """Let in who may now; the lock is held."""
        passed: list[_Waiting] = []
        for one in list(self._queue):
            if self._places is not None and self._inside >= self._places:
                return
            if self._inside == 0 or self._used + one.need <= self.total:
                self._queue.remove(one)
                self._used += one.need
                self._inside += 1
                for each in passed:
                    each.passed += 1
                one.turn.set()
            else:
                passed.append(one)
            if any(each.passed >= MAX_PASSED for each in passed):
                return


class _Waiting:
    def __init__(self, need: int) -> None:
        self.need, self.passed, self.turn = need, 0, threading.Event()


#: The budget of this process, for its own threads and for the processes that decode for it.
PROCESS_BUDGET = Budget(BUDGET_BYTES)
