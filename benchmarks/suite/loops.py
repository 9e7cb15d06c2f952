"""How queries are sent and timed: closed loops, and open loops with Poisson arrivals.

In a closed loop each worker sends its next query when the last was answered. In an open loop queries arrive at
times drawn beforehand, whether or not the last was answered, and latency counts from the intended arrival: a stall
is felt by everyone who would have come meanwhile (Schroeder, Wierman and Harchol-Balter, NSDI 2006).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit
from backends.kit.clock import Clock
from benchmarks.suite.datasets import row_of
from benchmarks.suite.runs import Array

# A raw client gives ids alone.
Ask = Callable[[int], Sequence[Hit] | Sequence[str]]


@dataclass
class Recorder:
    """Every query of a block as it was: times, ids, scores, errors. Appending is thread-safe."""

    k: int
    origin_ns: int
    queries: list[int] = field(default_factory=list)
    times: list[tuple[int, int, int]] = field(default_factory=list)
    found: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    exact: list[bool] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self,
        query: int,
        intended_ns: int,
        start_ns: int,
        end_ns: int,
        hits: Sequence[Hit] | Sequence[str] | Exception,
        worker: int = 0,
    ) -> None:
        """Keep one query: its hits, or why it failed."""
        rows, scores = np.full(self.k, -1, np.int64), np.full(self.k, np.nan, np.float32)
        failure = ""
        if isinstance(hits, Exception):
            failure = f"{type(hits).__name__}: {hits}"[:300]
        else:
            # A k too many is cut: only k were asked for.
            for place, hit in enumerate(hits[: self.k]):
                if isinstance(hit, Hit):
                    rows[place], scores[place] = row_of(hit.id), hit.score
                else:
                    rows[place] = row_of(str(hit))
        with self._lock:
            if failure and failure not in self.errors:
                self.errors.append(failure)
            self.queries.append(query)
            self.times.append((intended_ns, start_ns, end_ns))
            self.found.append((rows, scores))
            self.codes.append(self.errors.index(failure) if failure else -1)
            self.exact.append(
                not isinstance(hits, Exception) and bool(hits) and all(isinstance(h, Hit) and h.exact for h in hits)
            )
            self.workers.append(worker)

    def arrays(self) -> dict[str, Array]:
        """One row per query, in the order in which they ended; times from the block's start."""
        times = np.array(self.times, np.int64).reshape(-1, 3) - self.origin_ns
        return {
            "query": np.array(self.queries, np.int32),
            "intended_ns": times[:, 0],
            "start_ns": times[:, 1],
            "end_ns": times[:, 2],
            "rows": np.array([rows for rows, _ in self.found], np.int64).reshape(-1, self.k),
            "scores": np.array([scores for _, scores in self.found], np.float32).reshape(-1, self.k),
            "error": np.array(self.codes, np.int16),
            "exact": np.array(self.exact, np.bool_),
            "worker": np.array(self.workers, np.int16),
        }


def closed_loop(
    ask: Ask,
    queries: Iterable[int],
    k: int,
    clock: Clock,
    *,
    workers: int = 1,
    limit_s: float | None = None,
    recorder: Recorder | None = None,
) -> Recorder:
    """Send the queries from `workers` threads, each one its next when the last was answered.

    Ends when all are answered, or with those under way when `limit_s` has passed. `recorder` is one to go on with.
    """
    origin_ns = clock.now_ns()
    recorder = recorder or Recorder(k, origin_ns)
    until_ns = None if limit_s is None else origin_ns + round(limit_s * 1e9)
    turn, lock = iter(queries), threading.Lock()

    def work(worker: int) -> None:
        while True:
            with lock:
                query = next(turn, None)
            start_ns = clock.now_ns()
            if query is None or (until_ns is not None and start_ns >= until_ns):
                return
            hits = _ask(ask, query)
            recorder.add(query, start_ns, start_ns, clock.now_ns(), hits, worker)

    _in_threads(work, workers)
    return recorder


def arrivals_ns(rate_per_s: float, duration_s: float, seed: int) -> NDArray[np.int64]:
    """Poisson arrivals at a rate over a duration, in ns from its start; the same for the same seed."""
    rng = np.random.default_rng(seed)
    expected = rate_per_s * duration_s
    gaps = rng.exponential(1 / rate_per_s, int(expected + 6 * np.sqrt(expected) + 16))
    moments = np.cumsum(gaps)
    moments = moments[moments < duration_s]
    return (moments * 1e9).astype(np.int64)


class NotStarted(Exception):
    """A query that arrived, but was not sent before the block's end."""


def open_loop(
    ask: Ask,
    queries: Sequence[int],
    moments_ns: NDArray[np.int64],
    k: int,
    clock: Clock,
    *,
    workers: int,
    limit_s: float,
) -> Recorder:
    """Send query i at ``moments_ns[i]``, or as soon as one of the workers is free; latency counts from that moment.

    Queries are taken in turn again when there are more arrivals. What was not sent within `limit_s` is kept as an
    error whose latency is what had passed by then, which is less than it would have become.
    """
    origin_ns = clock.now_ns()
    recorder = Recorder(k, origin_ns)
    until_ns = origin_ns + round(limit_s * 1e9)
    turn, lock = iter(range(len(moments_ns))), threading.Lock()

    def work(worker: int) -> None:
        while True:
            with lock:
                arrival = next(turn, None)
            if arrival is None:
                return
            query, intended_ns = queries[arrival % len(queries)], origin_ns + int(moments_ns[arrival])
            if max(intended_ns, clock.now_ns()) >= until_ns:
                late = NotStarted(f"not sent within {limit_s:g} s: the engine is slower than the arrivals")
                recorder.add(query, intended_ns, until_ns, max(until_ns, intended_ns), late, worker)
                continue
            clock.wait_until(intended_ns)
            start_ns = clock.now_ns()
            hits = _ask(ask, query)
            recorder.add(query, intended_ns, start_ns, clock.now_ns(), hits, worker)

    _in_threads(work, workers)
    return recorder


def _ask(ask: Ask, query: int) -> Sequence[Hit] | Sequence[str] | Exception:
    try:
        return ask(query)
    # Whatever an engine raises is a failed query, which must be counted, not the end of the run.
    except Exception as error:
        return error


def _in_threads(work: Callable[[int], None], workers: int) -> None:
    if workers == 1:
        work(0)
        return
    failures: list[BaseException] = []

    def guarded(worker: int) -> None:
        try:
            work(worker)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(worker,), daemon=True) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
