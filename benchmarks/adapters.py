"""What an adapter costs over its engine's own client doing the same work: ``python -m benchmarks.adapters ENGINE``.

ENGINE is a URL, or a name as ``--engines`` takes it; one without a server then works in a temporary folder.

Both sides hold the same records under the same index and search with the same parameters, in one
process and in turns, so that a slow moment of the machine meets both. Three things are timed: one
query, a batch of 100 queries, and an upsert of 10,000 new records. The cost is ours / theirs; 1.00
means that the adapter adds nothing. Where the engine's own client is written with filters, one query
is timed under filters of 10, 1 and 0.1%, too.

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
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.base import Backend, BackendError, CollectionSpec, Compare, Hit, IndexKind, IndexSpec
from benchmarks.side_by_side import Cost, cost_of, in_turns, seconds_of
from benchmarks.suite.datasets import DataSet, open_dataset, row_of
from benchmarks.suite.engines import EngineError, Session, capabilities, choose
from benchmarks.suite.native import Filtering, Floats, Native, native_of
from benchmarks.suite.selectivity import BUCKETS, Filter, mask_of
from benchmarks.suite.tables import markdown_table
from benchmarks.suite.truth import Truth, brute_force

NAME = "bench_adapter"
UPSERTED = NAME + "_upsert"
BATCH = 100
BATCHES = 5
FILTERS = {"10%": 0.1, "1%": 0.01, "0.1%": 0.001}
UNSEEN = 20
# Graphs built twice find a little else; more is other work.
SAME_RECALL = 0.1


@dataclass(frozen=True)
class SearchCost:
    """One query at a time under a filter: what it costs, and both sides' recall; `exact` is what our hits say."""

    where: str
    cost: Cost
    sightline_recall: float
    raw_recall: float
    exact: bool


@dataclass(frozen=True)
class Report:
    """Everything that was measured; `unseen_filter_s` is the median of a query whose 10% filter is a new one."""

    searches: Sequence[SearchCost]
    costs: Sequence[Cost]
    unseen_filter_s: float


def measure_adapter(engine: str, *, records: int, dim: int, k: int, queries: int, rounds: int, upserted: int) -> Report:
    """Fill both sides and time them. The collections ``bench_adapter`` and ``bench_adapter_upsert`` are made anew.

    Raises EngineError for an engine that is not known or has no native client.
    """
    (chosen,) = choose([engine])
    open_native = native_of(chosen)
    # An engine without a graph compares all vectors on both sides.
    kind: IndexKind = "hnsw" if "hnsw" in capabilities(chosen).index_kinds else "auto"
    spec = CollectionSpec(NAME, dim, index=IndexSpec(kind))
    second = replace(spec, name=UPSERTED)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as held:
        session = Session(chosen, spec, Path(folder))
        held.callback(session.close)
        data = open_dataset(f"blobs:{records}x{dim}", queries=queries, cache=Path(folder))
        fresh = open_dataset(f"blobs:{upserted}x{dim}@2", queries=1, cache=Path(folder))
        backend = session.backend
        for one in (spec, second):
            backend.drop(one.name)
            backend.create(one)
            held.callback(backend.drop, one.name)
        raw = open_native(backend, spec)
        held.callback(raw.close)
        stored = list(data.records())
        backend.upsert(NAME, stored)
        backend.flush(NAME)
        raw.load(stored)
        searches = _searches(backend, raw, data, k, rounds)
        batches = _batches(backend, raw, data.queries, k, rounds)
        upserts = _upserts(backend, raw, second, fresh, rounds)
        return Report(searches, [searches[0].cost, batches, upserts], _unseen_filter_s(backend, data.queries[:1], k))


def _searches(backend: Backend, raw: Native, data: DataSet, k: int, rounds: int) -> list[SearchCost]:
    """One query at a time, plain, and under filters where the native client has them."""
    plain = _search(backend, raw.search, data, k, rounds)
    if abs(plain.sightline_recall - plain.raw_recall) > SAME_RECALL:
        raise AssertionError(
            f"the two sides do not do the same work: recall {plain.sightline_recall:.2f} and {plain.raw_recall:.2f}"
        )
    filtered = []
    if isinstance(raw, Filtering):
        for told, selectivity in FILTERS.items():
            chosen = Filter("random", selectivity)
            among = raw.among(mask_of({"random": data.random}, chosen))
            filtered.append(_search(backend, among, data, k, rounds, told, chosen))
    return [plain, *filtered]


def _search(
    backend: Backend,
    raw_search: Callable[[Floats, int], list[str]],
    data: DataSet,
    k: int,
    rounds: int,
    told: str = "none",
    chosen: Filter | None = None,
) -> SearchCost:
    where = chosen.where if chosen else None
    ours = [partial(backend.search, NAME, query[None], k, where=where) for query in data.queries]
    theirs = [partial(raw_search, query, k) for query in data.queries]
    hits: list[list[Hit]] = [call()[0] for call in ours]
    truth = brute_force(data, chosen, depth=k)
    return SearchCost(
        where=told,
        cost=cost_of("search, one query", in_turns(zip(ours, theirs, strict=True), rounds)),
        sightline_recall=_recall([[hit.id for hit in found] for found in hits], truth),
        raw_recall=_recall([call() for call in theirs], truth),
        exact=all(hit.exact for found in hits for hit in found),
    )


def _recall(found: Sequence[Sequence[str]], truth: Truth) -> float:
    """Mean share of the true neighbours that were found."""
    wanted = [set(rows[rows >= 0].tolist()) for rows in truth.rows]
    return statistics.fmean(
        len({row_of(record_id) for record_id in ids} & rows) / max(1, len(rows))
        for ids, rows in zip(found, wanted, strict=True)
    )


def _batches(backend: Backend, raw: Native, queries: NDArray[np.float32], k: int, rounds: int) -> Cost:
    batch = np.resize(queries, (BATCH, queries.shape[1]))
    pair = (partial(backend.search, NAME, batch, k), partial(raw.search_batch, batch, k))
    return cost_of(f"search, {BATCH} queries", in_turns([pair] * BATCHES, rounds))


def _upserts(backend: Backend, raw: Native, spec: CollectionSpec, fresh: DataSet, rounds: int) -> Cost:
    """Storing new records in an empty collection, emptied again between the rounds."""
    records = list(fresh.records())

    def empty() -> None:
        raw.clear()
        backend.drop(spec.name)
        backend.create(spec)

    pair = (partial(backend.upsert, spec.name, records), partial(raw.upsert, records))
    return cost_of(f"upsert, {len(records)} records", in_turns([pair], rounds, after=empty))


def _unseen_filter_s(backend: Backend, query: NDArray[np.float32], k: int) -> float:
    """An engine may keep what a filter selects; the first search under it has to find that out."""
    tenth = BUCKETS - BUCKETS // 10
    calls = [partial(backend.search, NAME, query, k, where=Compare("random", "gte", tenth + i)) for i in range(UNSEEN)]
    return statistics.median(seconds_of(call) for call in calls)


def markdown(report: Report) -> str:
    """The report as Markdown."""
    rows = [
        _cells(one.cost, one.where, f"{one.sightline_recall:.3f} / {one.raw_recall:.3f}", "yes" if one.exact else "no")
        for one in report.searches
    ]
    # The first of the costs is that of the plain search.
    rows += [_cells(cost, "none", "", "") for cost in report.costs[1:]]
    header = (
        "work",
        "filter",
        "Sightline ms (p99)",
        "own client ms (p99)",
        "ratio (of single rounds)",
        "recall of both",
        "exact",
    )
    last = f"A query under a 10% filter not seen before: {report.unseen_filter_s * 1e3:.2f} ms."
    return "\n".join([*markdown_table(header, rows), "", last, ""])


def _cells(cost: Cost, where: str, recall: str, exact: str) -> tuple[str, ...]:
    return (
        cost.work,
        where,
        f"{cost.sightline_s * 1e3:.3f} ({cost.sightline_p99_s * 1e3:.3f})",
        f"{cost.raw_s * 1e3:.3f} ({cost.raw_p99_s * 1e3:.3f})",
        f"{cost.ratio:.2f} ({cost.ratio_min:.2f} to {cost.ratio_max:.2f})",
        recall,
        exact,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one engine and print a table; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters", description=__doc__.partition("\n")[0])
    parser.add_argument("engine")
    for name, default in (
        ("records", 20_000),
        ("dim", 512),
        ("k", 10),
        ("queries", 200),
        ("rounds", 5),
        ("upserted", 10_000),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help="%(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to this file")
    options = vars(parser.parse_args(arguments))
    file: Path | None = options.pop("json")
    try:
        report = measure_adapter(**options)
    except (EngineError, BackendError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(markdown(report))
    if file is not None:
        # Without the engine: its URL may hold a password.
        del options["engine"]
        file.write_text(json.dumps({**options, **asdict(report)}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
