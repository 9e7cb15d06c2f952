"""Two sides that do the same work, timed in turns, so that a slow moment of the machine meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Call = Callable[[], object]
Round = tuple[Sequence[float], Sequence[float]]
T = TypeVar("T")


def alternately(items: Iterable[T], round_: int = 0) -> Iterator[tuple[int, T]]:
    """Each item for both sides, 0 and 1; which of them comes first changes with every item and every round."""
    for turn, item in enumerate(items):
        for side in (0, 1) if (turn + round_) % 2 else (1, 0):
            yield side, item


def seconds_of(call: Call) -> float:
    """Seconds that a call took."""
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def in_turns(pairs: Iterable[tuple[Call, Call]], rounds: int, after: Call = lambda: None) -> list[Round]:
    """Both sides' seconds for each pair of calls, round by round; one round before them warms up and is forgotten.

    after: called at the end of every round, outside the clock.
    """
    pairs = list(pairs)
    measured: list[Round] = []
    for round_ in range(rounds + 1):
        spent: tuple[list[float], list[float]] = ([], [])
        for side, pair in alternately(pairs, round_):
            spent[side].append(seconds_of(pair[side]))
        after()
        measured.append(spent)
    return measured[1:]


@dataclass(frozen=True)
class Cost:
    """One kind of work: both sides' seconds a call, at the median and at p99, and ours / theirs with its range."""

    work: str
    sightline_s: float
    raw_s: float
    sightline_p99_s: float
    raw_p99_s: float
    ratio: float
    ratio_min: float
    ratio_max: float


def cost_of(work: str, rounds: Sequence[Round]) -> Cost:
    """Both sides' seconds for each call, round by round, as one cost.

    For each call the best of the rounds counts, since other programs can only slow it down, then the
    median over calls. The p99 is the median over rounds, and the ratio's range is over rounds, of the medians
    within each.
    """
    ours, theirs = (
        statistics.median(min(times) for times in zip(*(both[side] for both in rounds), strict=True)) for side in (0, 1)
    )
    tails = [statistics.median(float(np.percentile(both[side], 99)) for both in rounds) for side in (0, 1)]
    ratios = [statistics.median(mine) / statistics.median(other) for mine, other in rounds]
    return Cost(
        work=work,
        sightline_s=ours,
        raw_s=theirs,
        sightline_p99_s=tails[0],
        raw_p99_s=tails[1],
        ratio=ours / theirs,
        ratio_min=min(ratios),
        ratio_max=max(ratios),
    )
