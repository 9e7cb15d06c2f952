"""The cases: each measures one block at one point of the grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.suite.cases import loading, searching, texts, writing
from benchmarks.suite.context import Context
from benchmarks.suite.runs import Block, Point


@dataclass(frozen=True)
class Case:
    """What is measured, by what, and how much it matters where time is short: 0 is never left out."""

    title: str
    measure: Callable[[Context, Point], Block]
    priority: int


CASES = {
    "load": Case("bulk load and index build", loading.load, 0),
    "frontier": Case("recall against throughput", searching.frontier, 1),
    "filtered": Case("filtered search over selectivities", searching.filtered, 2),
    "concurrency": Case("a closed loop of 1 to 32 workers", searching.concurrency, 3),
    "opened": Case("a new process: cold and warm start, memory", loading.opened, 3),
    "quality": Case("R@1, R@5, R@10 and MRR of captions", texts.quality, 3),
    "end_to_end": Case("from the words to the decoded pictures", texts.end_to_end, 3),
    "baseline": Case("the engine's own client beside the adapter", searching.baseline, 4),
    "plain_loop": Case("this suite's times beside those of a plain loop", searching.plain_loop, 4),
    "open_loop": Case("Poisson arrivals at a rate", searching.open_rate, 5),
    "stream": Case("searching while rows stream in", writing.stream, 6),
    "mix": Case("searches, updates and deletes in turn", writing.mix, 6),
    "keyword": Case("keyword search", texts.keyword, 7),
    "hybrid": Case("vectors and keywords, merged by rank", texts.hybrid, 7),
}
