"""The bounds of the service, and how many requests each caller may make."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import deque
from dataclasses import dataclass

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from retrieval.decode_budget import BUDGET_BYTES

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service takes; sizes in bytes, durations in seconds.

    rate: requests of one key, or of one address where there is no key, e.g. ``6000/minute``; None for no limit.
    max_in_flight: requests worked on or waiting at a time; the next one is told to come again.
    max_large_bodies, large_body_bytes: bodies over so many bytes, or of unknown length, that are taken at a time.
    max_chats: questions that are answered at a time.
    max_decoding, decoding_wait_s: requests that hold decoded images at a time, and how long others wait for that;
    max_glances: pictures of a chat beside them, which are only decoded and made small.
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
    max_glances: int = 2
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


class Room:
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
    """Counts the requests of each caller over a sliding window, in memory. Raises ValueError for an unreadable rate."""

    def __init__(self, rate: str) -> None:
        try:
            self._item = parse(rate)
        except ValueError:
            raise ValueError(f"{rate!r} is no rate: write it as 100/second, 6000/minute or 50000/hour") from None
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def wait_s(self, caller: str) -> int:
        """Count a request: 0 when it may pass, else after how many whole seconds to come again."""
        if self._limiter.hit(self._item, caller):
            return 0
        reset_s = self._limiter.get_window_stats(self._item, caller).reset_time
        return max(1, math.ceil(reset_s - time.time()))


def caller_of(address: str | None) -> str:
    """What stands for an address in the count: IPv6 hands out whole /64 networks to one caller."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return f"address {address}"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return f"address {ipaddress.ip_network((parsed, 64), strict=False)}"
    return f"address {parsed}"
