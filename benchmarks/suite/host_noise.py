"""Whether the machine was itself: a fixed piece of work before each block, and time stolen during it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil

_ROWS = np.random.default_rng(0).standard_normal((2_000, 256), dtype=np.float32)
_TIMES = 3
# Servers without anything to do take some.
BUSY_PERCENT = 20.0


def calibrate_ns() -> int:
    """How long a fixed piece of work takes now, the best of three: memory, arithmetic and the interpreter."""
    best = 0
    for _ in range(_TIMES):
        start_ns = time.perf_counter_ns()
        _ROWS @ _ROWS[:64].T
        sum(number * number for number in range(40_000))
        took_ns = time.perf_counter_ns() - start_ns
        best = min(best, took_ns) if best else took_ns
    return best


def settle(limit_s: float) -> None:
    """Wait until the processors have little to do, as engines have that go on with an index after the load."""
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s and psutil.cpu_percent(1.0) > BUSY_PERCENT:
        pass


@contextmanager
def watched(facts: dict[str, Any]) -> Iterator[None]:
    """Measure the machine before and during a block, into ``facts["noise"]``."""
    calibration_ns = calibrate_ns()
    before, mine = psutil.cpu_times(), psutil.Process().cpu_times()
    start_s = time.perf_counter()
    try:
        yield
    finally:
        after, now = psutil.cpu_times(), psutil.Process().cpu_times()
        wall_s = time.perf_counter() - start_s
        total_s = sum(after) - sum(before)
        stolen_s = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)
        facts["noise"] = {
            "calibration_ns": calibration_ns,
            "steal_share": stolen_s / total_s if total_s > 0 else 0.0,
            "client_cpu_s": now.user + now.system - mine.user - mine.system,
            "busy_s": (after.user + after.system) - (before.user + before.system),
            "wall_s": wall_s,
        }
