"""Bulk load and index build; and what a new process sees of it: opening, first searches, memory, disk."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite.context import Context
from benchmarks.suite.engines import memory_bytes, server_pids, server_version
from benchmarks.suite.host_noise import watched
from benchmarks.suite.runs import Block, Point

BATCH = 2_000
OPENED_QUERIES = 50
OPEN_S = 300
ROOT = Path(__file__).parents[3]


def load(context: Context, point: Point) -> Block:
    """Create the collection, upsert everything in batches, then flush, which builds what the engine builds late."""
    session, clock = context.session, context.clock
    backend = session.backend
    backend.drop(context.name)
    session.note_disk()
    facts: dict[str, Any] = {"batch": BATCH, "records": len(context.data.vectors)}
    backend.create(session.spec)
    times: list[tuple[int, int, int]] = []
    records = context.data.records()
    with watched(facts):
        origin_ns = clock.now_ns()
        # Records are made outside the clock.
        while batch := list(itertools.islice(records, BATCH)):
            start_ns = clock.now_ns()
            backend.upsert(context.name, batch)
            times.append((start_ns - origin_ns, clock.now_ns() - origin_ns, len(batch)))
        start_ns = clock.now_ns()
        backend.flush(context.name)
        facts["flush_s"] = (clock.now_ns() - start_ns) / 1e9
    columns = np.array(times, np.int64)
    facts["upsert_s"] = float((columns[:, 1] - columns[:, 0]).sum() / 1e9)
    facts["stored"] = backend.count(context.name)
    facts["server_version"] = server_version(session)
    facts["disk_bytes"] = session.disk_bytes()
    facts["server_bytes"] = memory_bytes(server_pids(session.url, session.folder))
    return Block({"batch_start_ns": columns[:, 0], "batch_end_ns": columns[:, 1], "batch_rows": columns[:, 2]}, facts)


def opened(context: Context, point: Point) -> Block:
    """Open the store in a new process, search, and look at its memory; `cold` empties the page cache of it first."""
    session, data = context.session, context.data
    temperature = str(point.params["start"])
    # A store of which there is one opener is let go of, and opened again by whoever needs it next.
    queries = context.work / "queries.npy"
    queries.parent.mkdir(parents=True, exist_ok=True)
    np.save(queries, data.queries[context.order(OPENED_QUERIES, point.repetition)])
    if session.folder is not None:
        raw = context.scratch.pop(f"raw {context.name} {session.engine.name}", None)
        if raw is not None:
            raw.close()
        session.close()
        evicted = forget_pages(session.folder) if temperature == "cold" else 0
    else:
        evicted = 0
    facts: dict[str, Any] = {"evicted_bytes": evicted}
    # The address goes by the environment, since a command line can be read by everyone here.
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths, "SIGHTLINE_BENCH_URL": session.url}
    command = [
        sys.executable,
        "-m",
        "benchmarks.suite.cold_start",
        context.name,
        str(queries),
        str(context.settings.k),
        str(session.folder or ""),
    ]
    with watched(facts):
        done = subprocess.run(command, capture_output=True, text=True, timeout=OPEN_S, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"a new process could not search: {done.stderr.strip()[-300:]}")
    told = json.loads(done.stdout)
    latencies = np.array(told.pop("latency_ns"), np.int64)
    return Block({"latency_ns": latencies}, {**facts, **told})


def forget_pages(folder: Path) -> int:
    """Have the system drop the pages of a folder's files from memory; how many bytes they have. 0 where it cannot."""
    if not hasattr(os, "posix_fadvise"):
        return 0
    total = 0
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                # Only clean pages can go.
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                total += os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
    return total
