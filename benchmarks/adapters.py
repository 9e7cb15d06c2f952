"""What an adapter costs over its engine's own client doing the same work: ``python -m benchmarks.adapters URL``.

Both sides hold the same records under the same index and search with the same parameters, in one
process and in turns, so that a slow moment of the machine meets both. Three things are timed: one
query, a batch of 100 queries, and an upsert of 10,000 new records. The cost is ours / theirs; 1.00
means that the adapter adds nothing.

An engine's own side is a `Native`, which its descriptor names (`EngineInfo.native`). It keeps what an upsert
promises, durable and visible when it returns, by the client's own means, and stores the metadata in the
engine's own types.

What an adapter does besides, and the raw side does not, is what is left of its cost:

- A search checks that its queries are finite and have unit length, and makes `Hit`s: 45 us a query in a loop,
  two to four times as much between two waits for a server. Of a query of a millisecond that is 5 to 12%.
- An upsert checks all vectors before it stores any.
- Qdrant and Milvus compare numbers as doubles, know no order of strings, or mix types, so records carry keys for
  filters of exact meaning. For `qdrant_edge` those are two short strings a field and two integers a number, each
  of which its bindings take 5 to 9 us for.
- Milvus loses the difference between 1 and 1.0, so the metadata is stored once more as text; in Lite the folded
  words of the text are too. pymilvus checks strings character by character.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backends import connect, engines
from backends.base import Backend, CollectionSpec, IndexSpec, Record
from backends.registry import named

NAME = "bench_adapter"
BATCH = 100
WORDS = ("dog", "cat", "beach", "street", "night", "snow", "boat", "mountain", "child", "bicycle", "market", "bridge")

Floats = NDArray[np.float32]


class Native(Protocol):
    """An engine's own client, as someone who knows it would use it."""

    def load(self, records: Sequence[Record]) -> None:
        """Store the records and build the index, unless the adapter's own can be searched."""

    def search(self, query: Floats, k: int) -> list[str]:
        """Ids of the k nearest, their payloads and scores fetched too; query: (d,)."""

    def search_batch(self, queries: Floats, k: int) -> list[list[str]]:
        """The same for (q, d) queries, the fastest way the client offers."""

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records in an empty second collection, replacing those that are there.

        They are durable when it returns, and visible to searches, since the adapter promises both.
        """

    def clear(self) -> None:
        """Empty the second collection."""

    def close(self) -> None:
        """Drop what was made, disconnect."""


@dataclass
class Cost:
    """One kind of work: both sides' seconds a call, and ours / theirs with its range over rounds."""

    work: str
    sightline_s: float
    raw_s: float
    ratio: float
    ratio_min: float
    ratio_max: float


def made(n: int, dim: int, seed: int) -> list[Record]:
    """Records as an image index has them, about random centres; the same for the same seed."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((100, dim), dtype=np.float32)
    rows = centres[rng.integers(100, size=n)] + rng.standard_normal((n, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    count = len(WORDS)
    return [
        Record(
            f"photo-{seed}-{i:08}",
            row,
            "image",
            f"a {WORDS[i % count]} and a {WORDS[i // 7 % count]} by the {WORDS[i // 49 % count]}",
            f"file:///photos/{i // 1000}/{i}.jpg",
            {"year": 1990 + i % 35, "camera": f"model {i % 40}", "favourite": i % 9 == 0, "tags": [WORDS[i % count]]},
        )
        for i, row in enumerate(rows)
    ]


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call took."""
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def cost_of(work: str, rounds: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Cost:
    """Both sides' seconds for each call, round by round, as one cost.

    For each call the best of the rounds counts, since other programs can only slow it down, then the
    median over calls. The ratio's range is over rounds, of the medians within each.
    """
    ours, theirs = (
        statistics.median(min(times) for times in zip(*(both[side] for both in rounds), strict=True)) for side in (0, 1)
    )
    ratios = [statistics.median(mine) / statistics.median(other) for mine, other in rounds]
    return Cost(work, ours, theirs, ours / theirs, min(ratios), max(ratios))


def in_turns(
    work: str, ours: Sequence[Callable[[], object]], theirs: Sequence[Callable[[], object]], rounds: int
) -> Cost:
    """Time both sides' calls alternately; the first round warms up and is forgotten."""
    measured: list[tuple[list[float], list[float]]] = []
    for round_ in range(rounds + 1):
        spent: tuple[list[float], list[float]] = ([], [])
        for turn, pair in enumerate(zip(ours, theirs, strict=True)):
            for side in (0, 1) if (turn + round_) % 2 else (1, 0):
                spent[side].append(timed(pair[side]))
        measured.append(spent)
    return cost_of(work, measured[1:])


def native_of(url: str) -> Callable[[Backend, CollectionSpec], Native]:
    """What opens the engine's own client beside an open backend. Raises ValueError for an engine without one."""
    scheme = url.partition("://")[0]
    info = engines().get(scheme)
    if info is None or info.native is None:
        known = ", ".join(scheme for scheme, info in engines().items() if info.native)
        raise ValueError(f"no native client is written for {scheme!r}; there are {known}")
    opened: Callable[[Backend, CollectionSpec], Native] = named(info.native)
    return opened


def measure(url: str, records: int, dim: int, k: int, queries: int, rounds: int, upserted: int) -> list[Cost]:
    """Fill both sides and time them. The collection ``bench_adapter`` is made anew and dropped."""
    open_native = native_of(url)
    stored, asked, fresh = made(records, dim, 1), made(queries, dim, 1)[:queries], made(upserted, dim, 2)
    rows = np.stack([np.asarray(record.vector) for record in asked])
    rows = (rows + 0.02 * np.random.default_rng(4).standard_normal(rows.shape)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    batch = np.resize(rows, (BATCH, dim))
    spec = CollectionSpec(NAME, dim, index=IndexSpec("hnsw"))
    second = CollectionSpec(NAME + "_upsert", dim, index=IndexSpec("hnsw"))
    with connect(url) as backend:
        for one in (spec, second):
            backend.drop(one.name)
            backend.create(one)
        raw = open_native(backend, spec)
        try:
            backend.upsert(NAME, stored)
            backend.flush(NAME)
            raw.load(stored)
            found = [[hit.id for hit in hits] for hits in backend.search(NAME, rows, k)]
            same = statistics.fmean(
                len(set(ids) & set(raw.search(row, k))) / k for ids, row in zip(found, rows, strict=True)
            )
            if same < 0.9:
                raise AssertionError(f"the two sides do not do the same work: {same:.2f} of the hits agree")
            costs = [
                in_turns(
                    "search, one query",
                    [lambda row=row: backend.search(NAME, row[None], k) for row in rows],  # type: ignore[misc]
                    [lambda row=row: raw.search(row, k) for row in rows],  # type: ignore[misc]
                    rounds,
                ),
                in_turns(
                    f"search, {BATCH} queries",
                    [lambda: backend.search(NAME, batch, k)] * 5,
                    [lambda: raw.search_batch(batch, k)] * 5,
                    rounds,
                ),
            ]
            costs.append(upserts(backend, raw, second, fresh, rounds))
        finally:
            raw.close()
            for one in (spec, second):
                backend.drop(one.name)
    return costs


def upserts(backend: Backend, raw: Native, spec: CollectionSpec, records: Sequence[Record], rounds: int) -> Cost:
    """Time storing new records in an empty collection, emptied again between the rounds."""
    sides = (lambda: backend.upsert(spec.name, records), lambda: raw.upsert(records))
    measured: list[tuple[list[float], list[float]]] = []
    for round_ in range(rounds + 1):
        spent: tuple[list[float], list[float]] = ([], [])
        for side in (0, 1) if round_ % 2 else (1, 0):
            spent[side].append(timed(sides[side]))
        raw.clear()
        backend.drop(spec.name)
        backend.create(spec)
        measured.append(spent)
    return cost_of(f"upsert, {len(records)} records", measured[1:])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one URL and print a JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters", description=__doc__)
    parser.add_argument("url")
    for name, default in (
        ("records", 20_000),
        ("dim", 512),
        ("k", 10),
        ("queries", 200),
        ("rounds", 5),
        ("upserted", 10_000),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = vars(parser.parse_args(arguments))
    costs = measure(**options)
    json.dump({**options, "costs": [asdict(cost) for cost in costs]}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
