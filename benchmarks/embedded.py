"""What ``faiss://`` costs over FAISS itself: ``python -m benchmarks.embedded --records 100000 --dim 512``.

Both sides search the same graph with the same efSearch, one query at a time, in the same process and
in turns; the raw side adds one SQLite lookup of the hits' columns, which is the least a store could do.
The vectors are clustered and noisy (seeded), the queries are new draws, so recall stays below 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from backends import connect
from backends.base import Backend, CollectionSpec, Compare, IndexSpec, Record, Where
from backends.faiss.native import NativeFaiss
from backends.filters import MetadataValue

NAME = "bench"
BATCH = 5_000
BUCKETS = 1_000
FILTERS = {"none": None, "10%": 100, "1%": 10, "0.1%": 1}
WORDS = (
    "dog",
    "cat",
    "beach",
    "street",
    "night",
    "snow",
    "boat",
    "mountain",
    "child",
    "bicycle",
    "market",
    "bridge",
    "forest",
    "table",
    "window",
)

Floats = NDArray[np.float32]


@dataclass
class Timing:
    """Latencies of one kind of search: median and spread over repeats of each repeat's p50 and p99, in s."""

    side: str
    where: str
    p50_s: float
    p50_spread_s: float
    p99_s: float
    recall: float
    exact: bool


@dataclass
class Report:
    """Everything one run measured."""

    records: int
    dim: int
    k: int
    queries: int
    repeats: int
    machine: str
    upsert_s: float = 0.0
    flush_s: float = 0.0
    disk_bytes: dict[str, int] = field(default_factory=dict)
    opened: dict[str, float] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    overhead: float = 0.0
    overhead_spread: float = 0.0
    unseen_filter_p50_s: float = 0.0


def clustered(records: int, dim: int, seed: int, centres: Floats | None = None) -> tuple[Floats, Floats]:
    """Unit vectors about random centres, noise as strong as the centre, and the centres: (n, d), (c, d)."""
    rng = np.random.default_rng(seed)
    if centres is None:
        centres = rng.standard_normal((max(8, records // 2_000), dim), dtype=np.float32)
    vectors = centres[rng.integers(0, len(centres), records)]
    vectors += rng.standard_normal((records, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, centres


def records_of(vectors: Floats, buckets: NDArray[np.int64]) -> Iterator[Record]:
    """Records as an image index has them: caption, location and five metadata fields."""
    for i, vector in enumerate(vectors):
        text = f"a {WORDS[i % 15]} and a {WORDS[i // 15 % 15]} by the {WORDS[i // 225 % 15]}"
        metadata: dict[str, MetadataValue] = {
            "bucket": int(buckets[i]),
            "year": 1990 + i % 35,
            "camera": f"model {i % 40}",
            "favourite": i % 9 == 0,
            "tags": [WORDS[i % 15], WORDS[i // 7 % 15]],
        }
        yield Record(f"photo-{i:08}", vector, "image", text, f"file:///photos/{i // 1000}/{i}.jpg", metadata)


def truth_of(vectors: Floats, queries: Floats, k: int, allowed: NDArray[np.bool_]) -> list[set[int]]:
    """The exact k nearest rows of each query among the allowed ones."""
    rows = np.flatnonzero(allowed)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors[rows])
    return [set(rows[found[found >= 0]].tolist()) for found in index.search(queries, k)[1]]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds a call took, and what it returned."""
    start_s = time.perf_counter()
    result = call()
    return time.perf_counter() - start_s, result


def recall_of(found: list[list[int]], truth: list[set[int]]) -> float:
    """Mean share of the true neighbours that were found."""
    return statistics.fmean(len(set(one) & true) / max(1, len(true)) for one, true in zip(found, truth, strict=True))


def compare(
    backend: Backend,
    raw: NativeFaiss,
    queries: Floats,
    k: int,
    where: Where | None,
    mask: NDArray[np.bool_],
    repeats: int,
) -> dict[str, tuple[list[list[float]], list[list[int]], bool]]:
    """Both sides on every query in turns: latencies per repeat, labels found, whether the hits were exact."""
    bits = np.packbits(mask, bitorder="little")
    selector = None if where is None else faiss.IDSelectorBitmap(bits)
    times: dict[str, list[list[float]]] = {"raw": [], "sightline": []}
    for repeat in range(repeats + 1):
        spent: dict[str, list[float]] = {"raw": [], "sightline": []}
        answers: dict[str, list[list[int]]] = {"raw": [], "sightline": []}
        exact = True
        for i in range(len(queries)):
            query = queries[i : i + 1]
            for side in ("raw", "sightline") if (i + repeat) % 2 else ("sightline", "raw"):
                if side == "raw":
                    took_s, ids = timed(lambda q=query[0]: raw.search(q, k, selector))  # type: ignore[misc]
                else:
                    took_s, hits = timed(lambda q=query: backend.search(NAME, q, k, where=where)[0])  # type: ignore[misc]
                    ids = [hit.id for hit in hits]
                    exact = exact and all(hit.exact for hit in hits)
                found = [int(record_id[6:]) for record_id in ids]
                spent[side].append(took_s)
                answers[side].append(found)
        # The first round warms caches.
        if repeat:
            for side, values in spent.items():
                times[side].append(values)
    return {side: (times[side], answers[side], exact and side == "sightline") for side in times}


def measure_searches(report: Report, backend: Backend, vectors: Floats, queries: Floats) -> None:
    """Fill in latencies, recall and overhead."""
    buckets = np.random.default_rng(3).permutation(report.records) % BUCKETS
    raw = NativeFaiss(backend, backend.describe(NAME))
    raw.load(list(records_of(vectors, buckets)))
    for label, limit in FILTERS.items():
        where = None if limit is None else Compare("bucket", "lt", limit)
        mask = np.ones(report.records, np.bool_) if limit is None else buckets < limit
        truth = truth_of(vectors, queries, report.k, mask)
        results = compare(backend, raw, queries, report.k, where, mask, report.repeats)
        for side, (times, answers, exact) in results.items():
            p50 = [float(np.percentile(one, 50)) for one in times]
            p99 = statistics.median(float(np.percentile(one, 99)) for one in times)
            report.timings.append(
                Timing(side, label, statistics.median(p50), max(p50) - min(p50), p99, recall_of(answers, truth), exact)
            )
        if where is None:
            pairs = zip(results["sightline"][0], results["raw"][0], strict=True)
            ratios = [float(np.percentile(ours, 50) / np.percentile(theirs, 50)) - 1 for ours, theirs in pairs]
            report.overhead, report.overhead_spread = statistics.median(ratios), max(ratios) - min(ratios)
    raw.close()
    unseen = [
        timed(lambda i=i: backend.search(NAME, queries[:1], report.k, where=Compare("bucket", "gte", 900 + i)))[0]  # type: ignore[misc]
        for i in range(20)
    ]
    report.unseen_filter_p50_s = statistics.median(unseen)


OPEN = """
import json, sys, time
import numpy as np
from backends import connect
start = time.perf_counter()
backend = connect(sys.argv[1])
queries = np.load(sys.argv[2])
opened = time.perf_counter()
backend.search("bench", queries[:1], 10)
first = time.perf_counter()
for query in queries:
    backend.search("bench", query[None], 10)
memory = {}
try:
    for line in open("/proc/self/status"):
        name, _, value = line.partition(":")
        if name in ("VmRSS", "RssAnon", "RssFile"):
            memory[name + "_bytes"] = int(value.split()[0]) * 1024
except FileNotFoundError:
    import resource
    memory["MaxRSS_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"connect_s": opened - start, "first_search_s": first - opened, **memory}))
"""


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """Fill a store, index it, open it in a fresh process, search it."""
    report = Report(
        args.records, args.dim, args.k, args.queries, args.repeats, platform.processor() or platform.machine()
    )
    vectors, centres = clustered(args.records, args.dim, 1)
    queries, _ = clustered(args.queries, args.dim, 2, centres)
    buckets = np.random.default_rng(3).permutation(args.records) % BUCKETS
    url = f"faiss://{folder.as_posix()}"
    with connect(url) as backend:
        backend.create(CollectionSpec(NAME, args.dim, "cosine", "synthetic", IndexSpec("hnsw")))
        records = records_of(vectors, buckets)
        while batch := list(itertools.islice(records, BATCH)):
            report.upsert_s += timed(lambda: backend.upsert(NAME, batch))[0]
        report.flush_s = timed(lambda: backend.flush(NAME))[0]
        report.disk_bytes = {path.name: path.stat().st_size for path in sorted((folder / NAME).iterdir())}
        queries_file = folder / "queries.npy"
        np.save(queries_file, queries)
        command = [sys.executable, "-c", OPEN, url, str(queries_file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        report.opened = json.loads(done.stdout)
        measure_searches(report, backend, vectors, queries)
    return report


def markdown(report: Report) -> str:
    """The report as Markdown."""
    megabytes = {name: size / 1e6 for name, size in report.disk_bytes.items()}
    memory = [f"{name[:-6]} {size / 1e6:.0f} MB" for name, size in report.opened.items() if name.endswith("bytes")]
    files = [f"{name} {size:.1f}" for name, size in megabytes.items() if size >= 0.05]
    lines = [
        f"{report.records:,} records x {report.dim}, top {report.k}, {report.queries} queries one at a time, "
        f"{report.repeats} repeats in turns, {report.machine}.",
        "",
        "| search | filter | p50 ms (spread) | p99 ms | recall@k | exact |",
        "|---|---|---|---|---|---|",
    ]
    names = {"raw": "FAISS + one SQLite lookup", "sightline": "faiss://"}
    lines += [
        f"| {names[t.side]} | {t.where} | {t.p50_s * 1e3:.3f} ({t.p50_spread_s * 1e3:.3f}) | {t.p99_s * 1e3:.3f} "
        f"| {t.recall:.3f} | {'yes' if t.exact else 'no'} |"
        for t in report.timings
    ]
    lines += [
        "",
        "| what | measured |",
        "|---|---|",
        f"| adapter overhead at p50, no filter | {report.overhead:+.1%} (spread {report.overhead_spread:.1%}) |",
        f"| a 10% filter not seen before, p50 | {report.unseen_filter_p50_s * 1e3:.1f} ms |",
        f"| bulk upsert | {report.records / report.upsert_s:,.0f} records/s |",
        f"| flush (build and write HNSW) | {report.flush_s:.1f} s |",
        f"| open in a new process: connect, first search | {report.opened['connect_s'] * 1e3:.1f} ms, "
        f"{report.opened['first_search_s'] * 1e3:.0f} ms |",
        f"| disk | {sum(megabytes.values()):.0f} MB: {', '.join(files)} |",
        f"| memory of that process | {', '.join(memory)} |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Measure faiss:// beside FAISS itself.")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    parser.add_argument("--dir", type=Path, help="an empty folder to work in; a temporary one otherwise")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report = measure(args, args.dir or Path(temporary))
    sys.stdout.write(markdown(report))
    if args.json is not None:
        args.json.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
