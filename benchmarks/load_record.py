"""What the clients of a load test record, and the figures that come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

#: ok: the documented success. throttled: 429 or 503 with Retry-After. error: all else.
Outcome: TypeAlias = Literal["ok", "throttled", "error"]
#: What is answered while the database is away, too: a job is only written down.
WITHOUT_DATABASE = frozenset({"healthz", "index"})

WARM_UP_S = 20.0
BLOCK_S = 10
RESAMPLED = 2000
#: Growth in a minute that counts as flat, as a share of the memory after the warm-up.
FLAT_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request: when it began, since the run's beginning, how long it took to its last byte, and what came of it.

    status: of the response, or what an error event within a stream says; 0 where there was no response.
    """

    endpoint: str
    client: int
    start_ns: int
    latency_ns: int
    status: int
    received_bytes: int
    outcome: Outcome
    error: str = ""

    @property
    def start_s(self) -> float:
        """When it began, in seconds since the run's beginning."""
        return self.start_ns / 1e9

    @property
    def end_s(self) -> float:
        """When the last byte came, in seconds since the run's beginning."""
        return (self.start_ns + self.latency_ns) / 1e9


@dataclass
class Record:
    """Everything that was seen: attempts, the service's memory by seconds, and what clients gave up on."""

    attempts: list[Attempt] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    given_up: Counter[str] = field(default_factory=Counter)

    def errors(self) -> list[Attempt]:
        """The attempts that ended in an error."""
        return [attempt for attempt in self.attempts if attempt.outcome == "error"]


def summarize(record: Record, seconds: float) -> list[dict[str, Any]]:
    """A row for each endpoint, then one for all: counts, rate, latencies of what succeeded in milliseconds."""
    names = sorted({attempt.endpoint for attempt in record.attempts})
    rows = [_row(name, [a for a in record.attempts if a.endpoint == name], record, seconds) for name in names]
    return [*rows, _row("all", record.attempts, record, seconds)]


def _row(name: str, attempts: Sequence[Attempt], record: Record, seconds: float) -> dict[str, Any]:
    latencies = [attempt.latency_ns / 1e6 for attempt in attempts if attempt.outcome == "ok"]
    p50, p99, most = np.percentile(latencies, [50, 99, 100]) if latencies else (None, None, None)
    warm = [a.latency_ns / 1e6 for a in attempts if a.outcome == "ok" and a.start_s >= WARM_UP_S]
    given_up = record.given_up.total() if name == "all" else record.given_up[name]
    return {
        "endpoint": name,
        "count": len(attempts),
        "per_s": len(attempts) / seconds,
        "ok": len(latencies),
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": most,
        "warm_p99_ms": np.percentile(warm, 99) if warm else None,
        "throttled": sum(attempt.outcome == "throttled" for attempt in attempts),
        "given_up": given_up,
        "errors": sum(attempt.outcome == "error" for attempt in attempts),
        "statuses": dict(sorted(Counter(str(attempt.status) for attempt in attempts).items())),
    }


def memory_of(samples: Sequence[tuple[float, int]], warm_up_s: float = WARM_UP_S) -> dict[str, Any] | None:
    """Memory at the start, after the warm-up and at the end in MB, and its slope after the warm-up in MB a minute.

    The slope is that of the least squares line; its 95% interval comes of a bootstrap of the line's residuals in
    blocks of 10 s, since neighbouring samples are alike (Künsch, 1989). `flat`: the interval's upper end
    is under 1% of the memory after the warm-up, a minute. None where there are too few samples.
    """
    later = [(at_s, rss / 1e6) for at_s, rss in samples if at_s >= warm_up_s]
    if len(later) < 2 * BLOCK_S:
        return None
    times, sizes = np.array(later).T
    slope, base = np.polyfit(times, sizes, 1)
    residuals = sizes - (slope * times + base)
    random = np.random.default_rng(1)
    slopes = []
    for _ in range(RESAMPLED):
        starts = random.integers(0, len(sizes) - BLOCK_S + 1, -(-len(sizes) // BLOCK_S))
        drawn = np.concatenate([residuals[start : start + BLOCK_S] for start in starts])[: len(sizes)]
        slopes.append(np.polyfit(times, slope * times + base + drawn, 1)[0])
    low, high = 60 * np.percentile(slopes, [2.5, 97.5])
    return {
        "start_mb": samples[0][1] / 1e6,
        "warm_mb": float(sizes[0]),
        "end_mb": float(sizes[-1]),
        "max_mb": float(max(rss for _, rss in samples)) / 1e6,
        "slope_mb_min": 60 * float(slope),
        "low_mb_min": float(low),
        "high_mb_min": float(high),
        "flat": bool(high < FLAT_SHARE * sizes[0]),
    }


def outage_of(record: Record, killed_s: float, back_s: float) -> dict[str, Any]:
    """What the clients saw of a database that was killed at `killed_s` and answered again at `back_s`.

    Recovery is told by endpoint that needs the database: when the first success came, after `back_s`, of a request
    that began after `killed_s`. `statuses` are those of what was asked in between. `unclean` counts what was answered
    neither with success nor with a 503 from the kill on.
    """
    after = [attempt for attempt in record.attempts if attempt.end_s >= killed_s]
    down = [attempt for attempt in after if killed_s <= attempt.start_s < back_s]
    first: dict[str, float] = {}
    for attempt in sorted(after, key=lambda each: each.end_s):
        if attempt.outcome == "ok" and attempt.start_s >= killed_s and attempt.end_s >= back_s:
            first.setdefault(attempt.endpoint, attempt.end_s - back_s)
    for name in WITHOUT_DATABASE:
        first.pop(name, None)
    used = {attempt.endpoint for attempt in record.attempts} - WITHOUT_DATABASE
    return {
        "killed_s": killed_s,
        "back_s": back_s,
        "outage_s": back_s - killed_s,
        "statuses": dict(sorted(Counter(str(attempt.status) for attempt in down).items())),
        "first_success_s": min(first.values(), default=None),
        "all_recovered_s": max(first.values(), default=None),
        "never_recovered": sorted(used - first.keys()),
        "unclean": _counted(a for a in after if a.outcome == "error"),
        "slowest_answer_s": max((a.latency_ns / 1e9 for a in down if a.outcome == "throttled"), default=None),
    }


def _counted(attempts: Iterable[Attempt]) -> dict[str, int]:
    return dict(Counter(f"{a.endpoint}: {a.status} {a.error}"[:200] for a in attempts).most_common(20))
