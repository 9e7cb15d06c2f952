"""The bounds of the service, and how many requests each caller may make."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Self

from limits import parse

from retrieval.images.budget import BUDGET_BYTES

MIB = 1024 * 1024
#: Callers that are counted at a time; beyond it those are forgotten who have not come for the longest time.
MAX_CALLERS = 20_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service takes; sizes in bytes, durations in seconds.

    rate: requests of one key, or of one address where there is no key, e.g. ``6000/minute``; None for no limit.
    max_in_flight: requests worked on or waiting at a time; the next one is throttled: 503 with Retry-After.
    max_large_bodies, large_body_bytes: bodies over so many bytes, or of unknown length, that are taken at a time.
    max_chats: questions that are answered at a time.
    max_decoding, decoding_wait_s: requests that hold decoded images at a time, and how long others wait for that;
    max_preview_decodes: pictures of a chat beside them, which are only decoded and made small.
    picture_bytes, picture_s: memory, and seconds of a processor, that decoding one picture may take.
    max_fetches, fetch_s: images fetched from allowed hosts at a time, each of `max_body_bytes` at most, and how
    long one may take.
    body_idle_s, body_s, body_bytes_per_s: a body's next part must come within the first, all of it within
    the second and the time that it takes at the given rate.
    """

    rate: str | None = "6000/minute"
    max_in_flight: int = 128
    max_streams: int = 64
    max_body_bytes: int = 32 * MIB
    max_upload_bytes: int = 256 * MIB
    max_small_body_bytes: int = 64 * 1024
    max_large_bodies: int = 8
    large_body_bytes: int = MIB
    max_decoding: int = 4
    max_preview_decodes: int = 2
    max_chats: int = 8
    decoding_wait_s: float = 10.0
    max_fetches: int = 8
    fetch_s: float = 10.0
    max_header_bytes: int = 16 * 1024
    max_pixels: int = 50_000_000
    picture_bytes: int = BUDGET_BYTES
    picture_s: float = 10.0
    max_files: int = 200
    max_waiting_texts: int = 1024
    thumbnails_bytes: int = 256 * MIB
    body_idle_s: float = 10.0
    body_s: float = 30.0
    body_bytes_per_s: float = 64 * 1024.0


class Place:
    """One of some `Places`, until it is left; to leave it twice is to leave it once."""

    def __init__(self, free: list[None]) -> None:
        self._free: list[None] | None = free

    def leave(self) -> None:
        """Give it back."""
        free, self._free = self._free, None
        if free is not None:
            free.append(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def __del__(self) -> None:
        # A request that was broken off between its admission and its work must not keep a place for ever.
        self.leave()


class Places:
    """Lets so many in and no more, whoever asks at once: it is counted when one is let in, in the same step."""

    def __init__(self, size: int) -> None:
        self._size = size
        # To pop and to append are one step each, for threads as for a place that is thrown away in the middle of one.
        self._free = [None] * size

    @property
    def taken(self) -> int:
        """How many are in."""
        return self._size - len(self._free)

    def take(self) -> Place | None:
        """A place, None where all are taken."""
        try:
            self._free.pop()
        except IndexError:
            return None
        return Place(self._free)


class FairSemaphore:
    """Lets so many in at a time, in the order in which they came.

    A semaphore lets who comes just then pass by those that wait, who under load may wait for ever.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._queue: deque[threading.Event] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait to be let in."""
        return len(self._queue)

    def enter(self, within_s: float) -> bool:
        """Wait to be let in, for so long; whether that was, and `leave` has to follow."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Event()
            self._queue.append(turn)
        if turn.wait(within_s):
            return True
        with self._lock:
            if turn.is_set():
                return True
            self._queue.remove(turn)
            return False

    def leave(self) -> None:
        """Make room for the next."""
        with self._lock:
            if self._queue:
                # It takes the place over: there is no moment in which another could.
                self._queue.popleft().set()
            else:
                self._free += 1


class RateLimit:
    """Counts the requests of each caller over a sliding window, in memory. Raises ValueError for an unreadable rate.

    The window's count is that of the present period and the share of the one before that it still covers. Thread-safe;
    at most `max_callers` are remembered, so that addresses without end cost no memory without end.
    """

    def __init__(self, rate: str, max_callers: int = MAX_CALLERS) -> None:
        try:
            item = parse(rate)
        except ValueError:
            raise ValueError(f"{rate!r} is no rate: write it as 100/second, 6000/minute or 50000/hour") from None
        self._amount, self._period_s = item.amount, item.get_expiry()
        self._max_callers = max_callers
        self._lock = threading.Lock()
        #: Number of the period, requests in it, and in the one before, by caller; the last one to come is last.
        self._counts: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def wait_s(self, caller: str) -> int:
        """Count a request: 0 when it may pass, else after how many whole seconds to try again."""
        periods = time.monotonic() / self._period_s
        number, gone = int(periods), periods % 1
        with self._lock:
            last, now, before = self._counts.pop(caller, (number, 0, 0))
            if last != number:
                now, before = 0, now if last == number - 1 else 0
            allowed = now + before * (1 - gone) < self._amount
            self._counts[caller] = (number, now + allowed, before)
            if len(self._counts) > self._max_callers:
                self._counts.popitem(last=False)
        if allowed:
            return 0
        until = 1.0 if now >= self._amount else 1 - (self._amount - now) / before
        return max(1, math.ceil((until - gone) * self._period_s))


def caller_of(address: str | None) -> str:
    """What stands for an address in the count: IPv6 hands out whole /64 networks to one caller."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return f"address {address}"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return f"address {ipaddress.ip_network((parsed.packed, 64), strict=False)}"
        parsed = parsed.ipv4_mapped
    return f"address {parsed}"
