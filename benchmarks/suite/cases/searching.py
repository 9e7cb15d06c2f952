"""Searching a loaded collection: the frontier, beside the raw client, under load, filtered."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.side_by_side import alternately
from benchmarks.suite.context import Context, judged
from benchmarks.suite.host_noise import watched
from benchmarks.suite.loops import Recorder, arrivals_ns, closed_loop, open_loop
from benchmarks.suite.native import Native, native_of
from benchmarks.suite.runs import Block, Point
from benchmarks.suite.selectivity import Filter

OPEN_WORKERS = 16
# How much longer than its arrivals an open loop may take to answer them.
DRAIN = 2.0


def frontier(context: Context, point: Point) -> Block:
    """One query at a time at one effort: recall against throughput."""
    return _closed(context, point, effort=point.params.get("effort"))


def concurrency(context: Context, point: Point) -> Block:
    """A closed loop of several workers at the default effort."""
    return _closed(context, point, workers=int(point.params["workers"] or 1))


def filtered(context: Context, point: Point) -> Block:
    """One query at a time under a filter of known selectivity, at the default effort."""
    chosen = Filter(str(point.params["column"]), float(point.params["selectivity"] or 0))
    return _closed(context, point, chosen=chosen)


def _closed(
    context: Context, point: Point, *, effort: Any = None, workers: int = 1, chosen: Filter | None = None
) -> Block:
    settings = context.settings
    ask = context.ask(where=chosen.where if chosen else None, effort=effort)
    facts: dict[str, Any] = {"limit_s": settings.block_s, "workers": workers}
    context.warm_up(ask, facts)
    # Enough for every worker to have its share of a percentile.
    order = context.order(settings.queries, point.repetition) * (1 if workers == 1 else 2)
    with watched(facts):
        recorder = closed_loop(ask, order, settings.k, context.clock, workers=workers, limit_s=settings.block_s)
    block = judged(recorder, context, chosen)
    return Block(block.arrays, {**facts, **block.facts, "planned": len(order)})


def open_rate(context: Context, point: Point) -> Block:
    """Poisson arrivals at a rate, at the default effort; latency from the intended arrival."""
    settings = context.settings
    ask = context.ask()
    facts: dict[str, Any] = {"workers": OPEN_WORKERS, "duration_s": settings.block_s}
    context.warm_up(ask, facts)
    rate = float(point.params["rate_per_s"] or 1)
    moments = arrivals_ns(rate, settings.block_s, settings.seed + point.repetition)
    order = context.order(settings.queries, point.repetition)
    with watched(facts):
        recorder = open_loop(
            ask, order, moments, settings.k, context.clock, workers=OPEN_WORKERS, limit_s=DRAIN * settings.block_s
        )
    block = judged(recorder, context)
    return Block(block.arrays, {**facts, **block.facts, "planned": len(moments)})


SIDES = ("sightline", "raw")
# Queries that the suite and the plain loop ask in turn.
AT_ONCE = 20


def baseline(context: Context, point: Point) -> Block:
    """The engine's own client and the adapter on the same queries in turns; ``side`` says whose a row is."""
    settings, data, clock = context.settings, context.data, context.clock
    raw = _raw(context)
    asks = (context.ask(), lambda query: raw.search(data.queries[query], settings.k))
    facts: dict[str, Any] = {"sides": list(SIDES), "limit_s": 2 * settings.block_s}
    for ask in asks:
        context.warm_up(ask, facts)
    recorder = Recorder(settings.k, clock.now_ns())
    sides: list[int] = []
    with watched(facts):
        for side, query in alternately(context.order(settings.queries, point.repetition), point.repetition):
            closed_loop(asks[side], [query], settings.k, clock, recorder=recorder)
            sides.append(side)
            # Not between the two sides of one query.
            if len(sides) % 2 == 0 and clock.now_ns() - recorder.origin_ns > facts["limit_s"] * 1e9:
                break
    block = judged(recorder, context)
    block.arrays["side"] = np.array(sides, np.int8)
    return Block(block.arrays, {**facts, **block.facts})


def plain_loop(context: Context, point: Point) -> Block:
    """The engine's own client timed by this suite and by a loop that shares no code with it, some queries each in turn.

    Both ask the same queries in the same minute, each of them first as often as second; ``plain_ns`` has the loop's
    latencies. What the report says of the first is right if it holds of the second.
    """
    settings, queries, k = context.settings, context.data.queries, context.settings.k
    raw = _raw(context)
    facts: dict[str, Any] = {"limit_s": 2 * settings.block_s}

    def ask(query: int) -> Any:
        return raw.search(queries[query], k)

    context.warm_up(ask, facts)
    order = context.order(settings.queries, point.repetition)
    recorder = Recorder(k, context.clock.now_ns())
    plain: list[int] = []
    with watched(facts):
        begun_s = time.monotonic()
        blocks = [order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE)]
        for turn, (side, own) in enumerate(alternately(blocks, point.repetition), start=1):
            if side:
                closed_loop(ask, own, k, context.clock, recorder=recorder)
            else:
                plain += _plainly(raw, queries[own], k)
            if turn % 2 == 0 and time.monotonic() - begun_s > facts["limit_s"]:
                break
    block = judged(recorder, context)
    block.arrays["plain_ns"] = np.array(plain, np.int64)
    return Block(block.arrays, {**facts, **block.facts})


def _plainly(raw: Native, queries: NDArray[np.float32], k: int) -> list[int]:
    took = []
    for query in queries:
        start_ns = time.perf_counter_ns()
        raw.search(query, k)
        took.append(time.perf_counter_ns() - start_ns)
    return took


def _raw(context: Context) -> Native:
    """The engine's own client on the collection, opened (and some engines' copy loaded) when first asked for."""
    key = f"raw {context.name} {context.session.engine.name}"
    if key not in context.scratch:
        session = context.session
        native = native_of(session.engine)(session.backend, session.spec)
        native.load(list(context.data.records()))
        context.scratch[key] = native
    found: Native = context.scratch[key]
    return found
