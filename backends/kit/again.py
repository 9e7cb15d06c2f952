"""Asking again for what a server could not do at that moment, though nothing is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

WITHIN_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5


def until_it_passes(call: Callable[[], T], is_passing: Callable[[Exception], bool]) -> T:
    """What `call` returns, made again after growing pauses while it fails in passing.

    Args:
        call: may be made again, so it changes nothing, or the same as the first time.
        is_passing: whether an error is of the kind that goes away by itself.

    Raises what `call` raises, once it is of another kind or `WITHIN_S` have gone by.
    """
    deadline = time.monotonic() + WITHIN_S
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return call()
        except Exception as error:
            if not is_passing(error) or time.monotonic() + pause_s > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
