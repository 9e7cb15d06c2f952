"""What a case is given, and what cases share: asking, warming up, and judging what came back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit, Where
from backends.kit.clock import Clock, RealClock
from benchmarks.suite.datasets import DataSet
from benchmarks.suite.engines import Session
from benchmarks.suite.loops import Recorder
from benchmarks.suite.runs import Array, Block
from benchmarks.suite.selectivity import Filter, mask_of
from benchmarks.suite.truth import Truth, true_scores, truth_of


@dataclass(frozen=True)
class Settings:
    """How much is measured: queries and repetitions of a point, limits, and what is swept.

    After the loads it waits until the processors are idle, for `settle_s` at most.
    """

    k: int = 10
    queries: int = 200
    repetitions: int = 3
    block_s: float = 4.0
    warmup: int = 20
    settle_s: float = 20.0
    builds: int = 2
    efforts: int = 5
    workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rates: tuple[int, ...] = (20, 100, 400)
    selectivities: tuple[float, ...] = (0.5, 0.1, 0.01, 0.001)
    columns: tuple[str, ...] = ("random", "near")
    stream_rows: int = 5_000
    stream_s: float = 8.0
    mixed: int = 400
    seed: int = 1


@dataclass
class Context:
    """One data set on one engine: everything that a case needs to measure a block."""

    data: DataSet
    session: Session
    settings: Settings
    cache: Path
    work: Path
    clock: Clock = field(default_factory=RealClock)
    scratch: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The collection."""
        return self.session.spec.name

    def truth(self, chosen: Filter | None = None) -> Truth:
        """The exact neighbours under a filter; from memory, or the cache."""
        key = f"truth {self.data.name} {chosen.name if chosen else 'all'}"
        if key not in self.scratch:
            self.scratch[key] = truth_of(self.data, chosen, self.cache)
        found: Truth = self.scratch[key]
        return found

    def order(self, count: int, repetition: int) -> list[int]:
        """Which queries, in which order: the same ones in every repetition, shuffled anew."""
        total = len(self.data.queries)
        chosen = np.random.default_rng(self.settings.seed).permutation(total)[:count]
        shuffled: list[int] = np.random.default_rng([self.settings.seed, repetition]).permutation(chosen).tolist()
        return shuffled

    def ask(self, *, where: Where | None = None, effort: float | None = None) -> Callable[[int], Sequence[Hit]]:
        """A function that sends query i and gives its hits."""
        backend, queries, k, name = self.session.backend, self.data.queries, self.settings.k, self.name
        return lambda query: backend.search(name, queries[query : query + 1], k, where=where, effort=effort)[0]

    def warm_up(self, ask: Callable[[int], object], facts: dict[str, Any]) -> None:
        """Send some queries that are not measured, for a quarter of a block's time at most; how many is stated.

        Their errors will come again, and count then.
        """
        until_ns = self.clock.now_ns() + round(self.settings.block_s / 4 * 1e9)
        asked = 0
        for query in self.order(self.settings.warmup, 99):
            asked += 1
            with contextlib.suppress(Exception):
                ask(query)
            if self.clock.now_ns() > until_ns:
                break
        facts["warmup_queries"] = asked


def judged(recorder: Recorder, context: Context, chosen: Filter | None = None) -> Block:
    """A block with what is true of every hit beside it: its score, whether it matches, and what was to be found."""
    arrays = recorder.arrays()
    data, truth, k = context.data, context.truth(chosen), context.settings.k
    queries = arrays["query"]
    mask = mask_of({"random": data.random, "near": data.near}, chosen)
    judge(arrays, data.vectors, data.queries[queries], mask, truth.kth(k)[queries], data.metric)
    arrays["expected"] = np.full(len(queries), min(k, truth.matching), np.int32)
    return Block(arrays, {"errors": list(recorder.errors), "k": k})


def judge(
    arrays: dict[str, Array],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    mask: NDArray[np.bool_],
    kth: NDArray[np.float32],
    metric: Any,
) -> None:
    """Add ``true``, ``allowed`` and ``kth`` to a search's arrays; queries: (q, d), one a row of the arrays."""
    rows = arrays["rows"]
    # A row beyond the vectors was never stored.
    rows[rows >= len(vectors)] = -2
    arrays["true"] = true_scores(vectors, queries, rows, metric)
    arrays["allowed"] = np.where(rows >= 0, mask[np.where(rows >= 0, rows, 0)], False)
    arrays["kth"] = np.asarray(kth, np.float32)
