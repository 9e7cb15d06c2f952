"""Which points a run has, what each is expected to take, and what is left out where time is short."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from backends.base import Capabilities
from benchmarks.suite.cases import CASES
from benchmarks.suite.cases.loading import OPENED_QUERIES
from benchmarks.suite.context import Settings
from benchmarks.suite.datasets import DataSet
from benchmarks.suite.engines import Build, Engine
from benchmarks.suite.runs import Point, Value

FULL = Settings()
QUICK = replace(
    FULL,
    queries=60,
    repetitions=2,
    block_s=0.8,
    warmup=10,
    settle_s=2.0,
    builds=1,
    efforts=3,
    workers=(1, 4),
    rates=(50,),
    selectivities=(0.1, 0.01),
    columns=("random",),
    stream_rows=1_000,
    stream_s=1.5,
    mixed=50,
)
# More than 10,000 kB, below which Qdrant would scan.
QUICK_DATA = ("clustered:6000x512",)
FULL_DATA = ("clustered:20000x512", "clustered:100000x512")
# What takes long and varies little is repeated less often than a run's repetitions.
REPEATED = {
    "load": 1,
    "quality": 1,
    "concurrency": 2,
    "opened": 2,
    "open_loop": 2,
    "end_to_end": 2,
    "stream": 2,
    "mix": 2,
    "keyword": 2,
    "hybrid": 2,
}
# Where two repetitions are all, one goes to what is compared most.
TWICE = ("frontier", "filtered", "baseline", "plain_loop")
# A native client that loads a copy of its own is held to data sets of this size.
NATIVE_CASES = ("baseline", "plain_loop")
BASELINE_ROWS = range(1_000, 20_001)
# Of fewer rows every engine compares all, so that only what they find is worth measuring.
SMALL_ROWS = 1_000
LARGE_ONLY = ("concurrency", "opened", "open_loop", "stream", "mix")
OTHER_BUILDS, OTHER_BUILD_REPETITIONS = 10, 2
# Cases that end after so many blocks' time however slow the engine is, warming up included.
# A filtered query may take longer than a block.
LIMITED = {"frontier": 1.3, "filtered": 4.0, "concurrency": 1.5, "keyword": 1.5, "hybrid": 1.5, "open_loop": 2.5}


# By how much a repetition matters less than the first: by whether its case is in `TWICE`, and its number.
AGAIN = {(True, 1): 0, (True, 2): 8, (False, 1): 5, (False, 2): 8}


# What every engine measures in one turn: data set, build, case, repetition, place among the case's parameters.
Slot: TypeAlias = tuple[int, int, str, int, int]


@dataclass(frozen=True)
class Planned:
    """A point, the build it runs on, what it is expected to take, and how much it matters (0 most).

    `place` is which of its case's parameters it has, in the engine's order; it takes no longer than `most_s`.
    """

    point: Point
    build: Build
    build_index: int
    dataset_index: int
    expected_s: float
    priority: int
    place: int = 0
    most_s: float = math.inf

    @property
    def slot(self) -> Slot:
        """Its turn. Of other builds all is one turn, since a load alone would be of no use."""
        if self.build_index:
            return self.dataset_index, self.build_index, "", 0, 0
        return self.dataset_index, 0, self.point.case, self.point.repetition, self.place


@dataclass(frozen=True)
class LeftOut:
    """Something that was not measured, and why."""

    dataset: str
    engine: str
    what: str
    why: str


def grid(
    index: int, data: DataSet, engine: Engine, can: Capabilities, settings: Settings, cases: Sequence[str]
) -> tuple[list[Planned], list[LeftOut]]:
    """Every point of one engine on one data set, and the cases that do not apply with their reasons."""
    planned: list[Planned] = []
    left_out = [
        LeftOut(data.name, engine.name, case, why)
        for case in cases
        if (why := _why_not(case, data, engine, can)) is not None
    ]
    without = {entry.what for entry in left_out}
    builds = engine.config.builds[: settings.builds if len(data.vectors) >= SMALL_ROWS else 1]
    for number, build in enumerate(builds):
        for case in cases:
            if case in without or (number and case not in ("load", "frontier")):
                continue
            for place, params in enumerate(_params(case, engine, can, settings)):
                for repetition in range(_repetitions(case, settings, number)):
                    point = Point(case, data.name, engine.name, {"build": build.name, **params}, repetition)
                    expected_s = _expected_s(case, data, engine, settings, params)
                    priority = OTHER_BUILDS if number else CASES[case].priority
                    most_s = LIMITED.get(case, math.inf) * settings.block_s + 0.5
                    planned.append(Planned(point, build, number, index, expected_s, priority, place, most_s))
    return planned, left_out


def _repetitions(case: str, settings: Settings, build: int) -> int:
    if settings.repetitions == 2 and case not in TWICE:
        return 1
    most = OTHER_BUILD_REPETITIONS if build else settings.repetitions
    return min(most, settings.repetitions, REPEATED.get(case, most))


def _why_not(case: str, data: DataSet, engine: Engine, can: Capabilities) -> str | None:
    n = len(data.vectors)
    if case in ("quality", "end_to_end") and not data.captions:
        return "the data set has no captions"
    if case in ("keyword", "hybrid") and not can.keyword:
        return "the engine has no keyword search"
    if case == "opened" and not can.persistent:
        return "the engine keeps nothing"
    if case in NATIVE_CASES and engine.config.native is None:
        return "there is no other client"
    if case in NATIVE_CASES and n not in BASELINE_ROWS:
        return f"it is measured from {BASELINE_ROWS.start:,} to {BASELINE_ROWS.stop - 1:,} rows"
    if case in LARGE_ONLY and n < SMALL_ROWS:
        return f"it says nothing of fewer than {SMALL_ROWS:,} rows"
    return None


def _params(case: str, engine: Engine, can: Capabilities, settings: Settings) -> list[dict[str, Value]]:
    if case == "frontier":
        efforts = engine.config.efforts[: settings.efforts] if can.effort else (None,)
        return [{"effort": effort} for effort in efforts]
    if case == "filtered":
        return [
            {"column": column, "selectivity": share} for column in settings.columns for share in settings.selectivities
        ]
    if case == "concurrency":
        return [{"workers": workers} for workers in settings.workers]
    if case == "open_loop":
        return [{"rate_per_s": rate} for rate in settings.rates]
    if case == "opened":
        return [{"start": start} for start in (("cold", "warm") if engine.embedded else ("warm",))]
    if case == "stream":
        return [{"rows_per_s": 500}]
    return [{}]


def _expected_s(case: str, data: DataSet, engine: Engine, settings: Settings, params: dict[str, Value]) -> float:
    """About what a point takes on two cores; the run corrects it by what it sees."""
    n, dim = data.vectors.shape
    loads_per_s = engine.config.loads_per_s * 512 / max(64, dim)
    # A graph is walked in about the logarithm's time; what a filter keeps, some engines compare all.
    query_s = 0.003 * max(1.0, n / 20_000) ** (1.0 if case == "filtered" else 0.3)
    block_s = min(settings.block_s, (settings.queries + settings.warmup) * query_s) + 0.2
    changing_s = 2 * min(n, settings.stream_rows) / loads_per_s
    expected: dict[str, Any] = {
        # Larger graphs leave the processor's caches.
        "load": n / loads_per_s * max(1.0, n / 20_000) ** 0.15 + 1,
        "concurrency": 2 * block_s,
        "open_loop": settings.block_s + 0.5,
        "opened": 3 + OPENED_QUERIES * query_s,
        "stream": settings.stream_s + changing_s,
        "mix": settings.mixed * 2 * query_s + changing_s,
        "quality": len(data.captions) * query_s,
        "end_to_end": min(settings.block_s, settings.queries * 0.15) + 1,
        # The native client of some engines loads a copy first, in the first repetition.
        "baseline": 2 * block_s + n / loads_per_s / settings.repetitions,
        "hybrid": 2 * block_s,
    }
    return float(expected.get(case, block_s))


def trimmed(
    planned: Sequence[Planned],
    available_s: float,
    cost_s: Callable[[Planned], float] | None = None,
    begun: Collection[Slot] = (),
) -> tuple[list[Planned], list[Planned]]:
    """The points that fit into the time, in their order, and those left out: the least important first.

    `cost_s` says what a point takes, `expected_s` unless it is given.
    Second repetitions of what is not in `TWICE` matter less than any case's first, third ones least. A slot goes for
    all engines alike, or they could not be compared; one that was `begun` stays.
    """
    slots: dict[Slot, list[Planned]] = defaultdict(list)
    for plan in planned:
        slots[plan.slot].append(plan)
    costs = {plan.point: cost_s(plan) if cost_s else plan.expected_s for plan in planned}
    total_s = sum(costs.values())
    gone = set()
    for slot in sorted(slots, key=lambda slot: _worth(slots[slot][0]), reverse=True):
        if total_s <= available_s:
            break
        if slots[slot][0].priority and slot not in begun:
            gone.add(slot)
            total_s -= sum(costs[plan.point] for plan in slots[slot])
    return [p for p in planned if p.slot not in gone], [p for p in planned if p.slot in gone]


def _worth(plan: Planned) -> tuple[int, int, int, int]:
    point = plan.point
    again = 0 if plan.build_index or not point.repetition else AGAIN[point.case in TWICE, min(point.repetition, 2)]
    later = 1 if plan.dataset_index and plan.priority > CASES["concurrency"].priority else 0
    return plan.priority + again + later, plan.dataset_index, point.repetition, plan.place
