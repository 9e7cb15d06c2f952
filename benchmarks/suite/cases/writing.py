"""Searching a collection that changes: rows that stream in, updates and deletes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from backends.base import Record
from benchmarks.suite.context import Context, judge
from benchmarks.suite.datasets import row_id
from benchmarks.suite.host_noise import watched
from benchmarks.suite.loops import Recorder, closed_loop
from benchmarks.suite.runs import Array, Block, Point
from benchmarks.suite.truth import scores_of

STREAM_BATCH = 50
WRITTEN = 10
# Of ten operations of the mix: searches, updates, deletes.
SHARES = (0.8, 0.1, 0.1)
OPERATIONS = ("search", "update", "delete")


@contextmanager
def filled(context: Context, rows: int) -> Iterator[str]:
    """A collection with the first rows of the data set, indexed; dropped at the end."""
    backend, name = context.session.backend, "bench_changing"
    backend.drop(name)
    backend.create(replace(context.session.spec, name=name))
    try:
        backend.upsert(name, context.data.records(0, rows))
        backend.flush(name)
        yield name
    finally:
        backend.drop(name)


def stream(context: Context, point: Point) -> Block:
    """One searcher while a writer upserts batches at a rate.

    A query is owed the rows that were acknowledged before it began, and may find those whose upsert had begun
    before it ended. Newer rows only push older ones out by being nearer, so recall by distance stays fair.
    """
    data, settings, clock = context.data, context.settings, context.clock
    backend = context.session.backend
    rate = float(point.params["rows_per_s"] or 1)
    base = min(len(data.vectors) // 2, settings.stream_rows)
    batches: list[tuple[int, int, int, int]] = []
    state = {"begun": base, "acknowledged": base}
    seen: dict[int, tuple[int, int]] = {}
    facts: dict[str, Any] = {"base": base, "rows_per_s": rate, "limit_s": settings.stream_s, "write_errors": []}
    stop = threading.Event()
    with filled(context, base) as name:

        def write(origin_ns: int) -> None:
            for number, start in enumerate(range(base, len(data.vectors), STREAM_BATCH)):
                due_ns = origin_ns + round(number * STREAM_BATCH / rate * 1e9)
                if stop.wait(max(0.0, (due_ns - clock.now_ns()) / 1e9)):
                    return
                records = list(data.records(start, start + STREAM_BATCH))
                begun_ns = clock.now_ns()
                state["begun"] = start + len(records)
                try:
                    backend.upsert(name, records)
                except Exception as error:
                    # What was not acknowledged is owed to no one; the row numbers after it stay as they are.
                    facts["write_errors"].append(f"{type(error).__name__}: {error}"[:300])
                    return
                state["acknowledged"] = start + len(records)
                batches.append((due_ns - origin_ns, begun_ns - origin_ns, clock.now_ns() - origin_ns, len(records)))

        turns = iter(range(1 << 30))

        def ask(query: int) -> Any:
            turn, owed = next(turns), state["acknowledged"]
            try:
                return backend.search(name, data.queries[query : query + 1], settings.k)[0]
            finally:
                seen[turn] = (owed, state["begun"])

        order = context.order(settings.queries, point.repetition)
        context.warm_up(lambda query: backend.search(name, data.queries[query : query + 1], settings.k), facts)
        with watched(facts):
            writer = threading.Thread(target=write, args=(clock.now_ns(),), daemon=True)
            writer.start()
            recorder = closed_loop(ask, order * 1_000, settings.k, clock, limit_s=settings.stream_s)
            stop.set()
            writer.join()
        start_ns = clock.now_ns()
        backend.flush(name)
        facts["flush_s"] = (clock.now_ns() - start_ns) / 1e9
        facts["stored"] = backend.count(name)
    arrays = recorder.arrays()
    owed, begun = (np.array([seen[turn][i] for turn in range(len(seen))], np.int64) for i in (0, 1))
    _judge_stream(arrays, context, owed, begun)
    columns = np.array(batches, np.int64).reshape(-1, 4)
    for i, label in enumerate(("due_ns", "begin_ns", "end_ns", "rows")):
        arrays[f"batch_{label}"] = columns[:, i]
    return Block(arrays, {**facts, "errors": list(recorder.errors), "k": settings.k})


def _judge_stream(arrays: dict[str, Array], context: Context, owed: Array, begun: Array) -> None:
    data, k = context.data, context.settings.k
    queries = data.queries[arrays["query"]]
    unique, back = np.unique(arrays["query"], return_inverse=True)
    scores = scores_of(data.queries[unique], data.vectors[: int(begun.max(initial=1))], data.metric)
    kth = np.array(
        [-np.partition(-scores[q, :n], min(k, n) - 1)[min(k, n) - 1] for q, n in zip(back, owed, strict=True)],
        np.float32,
    )
    judge(arrays, data.vectors, queries, np.ones(len(data.vectors), np.bool_), kth, data.metric)
    arrays["allowed"] &= arrays["rows"] < begun[:, None]
    arrays["expected"] = np.minimum(k, owed).astype(np.int32)
    arrays["owed"] = owed


def mix(context: Context, point: Point) -> Block:
    """Searches, updates and deletes one after another, so that what is right is known at every search.

    An update gives ten rows other vectors; a delete removes ten. A row that comes back after its delete is counted
    as one that was not allowed, an old vector's score as a wrong score.
    """
    data, settings, clock = context.data, context.settings, context.clock
    backend = context.session.backend
    rows = min(len(data.vectors), settings.stream_rows)
    rng = np.random.default_rng([settings.seed, point.repetition])
    vectors, alive = data.vectors[:rows].copy(), np.ones(rows, np.bool_)
    facts: dict[str, Any] = {"rows": rows, "written_at_once": WRITTEN, "write_errors": []}
    parts: list[dict[str, Array]] = []
    writes: list[tuple[int, int, int, int]] = []
    with filled(context, rows) as name, watched(facts):
        origin_ns = clock.now_ns()
        recorder = Recorder(settings.k, origin_ns)
        asked = 0
        for operation in rng.choice(3, settings.mixed, p=SHARES):
            living = np.flatnonzero(alive)
            if operation == 0 or len(living) <= 2 * WRITTEN:
                query = asked % len(data.queries)
                asked += 1
                parts.append(_search(context, name, query, recorder, vectors, alive))
                continue
            chosen = np.sort(rng.choice(living, WRITTEN, replace=False))
            fresh = data.vectors[rng.integers(0, len(data.vectors), WRITTEN)]
            records = [replace(record, vector=fresh[i]) for i, record in enumerate(_records(context, chosen))]
            start_ns = clock.now_ns()
            try:
                if operation == 1:
                    backend.upsert(name, records)
                    vectors[chosen] = fresh
                else:
                    backend.delete(name, ids=[row_id(int(row)) for row in chosen])
                    alive[chosen] = False
            except Exception as error:
                # Which of them were written is not known: the rest of the block could not be judged.
                facts["write_errors"].append(f"{type(error).__name__}: {error}"[:300])
                break
            writes.append((int(operation), start_ns - origin_ns, clock.now_ns() - origin_ns, WRITTEN))
        facts["stored"], facts["alive"] = backend.count(name), int(alive.sum())
    arrays = recorder.arrays()
    for key in ("true", "allowed", "kth", "expected"):
        arrays[key] = np.concatenate([part[key] for part in parts])
    columns = np.array(writes, np.int64).reshape(-1, 4)
    for i, label in enumerate(("kind", "start_ns", "end_ns", "rows")):
        arrays[f"write_{label}"] = columns[:, i]
    return Block(arrays, {**facts, "errors": list(recorder.errors), "k": settings.k, "operations": list(OPERATIONS)})


def _records(context: Context, rows: Array) -> Iterator[Record]:
    for row in rows.tolist():
        yield from context.data.records(row, row + 1)


def _search(
    context: Context, name: str, query: int, recorder: Recorder, vectors: Array, alive: Array
) -> dict[str, Array]:
    """Time one search, then judge it against the rows as they are at this moment."""
    data, k, clock = context.data, context.settings.k, context.clock
    asked = data.queries[query : query + 1]
    start_ns = clock.now_ns()
    try:
        found: Any = context.session.backend.search(name, asked, k)[0]
    # A failed query is a result, too.
    except Exception as error:
        found = error
    recorder.add(query, start_ns, start_ns, clock.now_ns(), found)
    scores = np.where(alive, scores_of(asked, vectors, data.metric)[0], -np.inf)
    least = min(k, int(alive.sum()))
    kth = -np.partition(-scores, least - 1)[least - 1]
    one: dict[str, Array] = {"rows": recorder.found[-1][0][None]}
    judge(one, vectors, asked, alive, np.array([kth], np.float32), data.metric)
    one["expected"] = np.array([least], np.int32)
    return one
