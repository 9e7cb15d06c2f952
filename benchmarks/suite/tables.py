"""The tables of a report, as plain data: a title, a header, rows of strings. Markdown and HTML are made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.suite.metrics import Interval
from benchmarks.suite.ranking import Need, rank, setting
from benchmarks.suite.summaries import Facts, Results, Row


@dataclass(frozen=True)
class Table:
    """One table of a report; `note` says how to read it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(header), "|" + "---|" * len(header), *map(line, rows)]


def tables(results: Results, manifest: Mapping[str, Any], need: Need) -> list[Table]:
    """Everything that was measured, data set by data set."""
    parts = []
    for dataset in manifest["datasets"]:
        parts += [
            _ranking(results, dataset, need),
            _frontier(results, dataset),
            _filtered(results, dataset),
            _loads(results, dataset),
            _opened(results, dataset),
            _concurrency(results, dataset),
            _open_loop(results, dataset),
            _changing(results, dataset),
            _words(results, dataset),
            _end_to_end(results, dataset),
            _quality(results, dataset),
            _baseline(results, dataset),
            _plain_loop(results, dataset),
        ]
    return [table for table in parts if table.rows]


def _ranking(results: Results, dataset: str, need: Need) -> Table:
    rows = [
        (
            str(place),
            one.engine,
            "yes" if one.meets else "no",
            span(one.row.summary.recall, 3),
            f"{one.value:,.2f}",
            setting(one.row),
        )
        for place, one in enumerate(rank(results.rows, need, dataset), start=1)
    ]
    unit = "queries/s" if need.goal == "throughput" else f"{need.goal} ms"
    return Table(f"{dataset}: {need}", ("rank", "engine", "meets it", "recall", unit, "setting"), rows)


_LATENCIES = ("p50", "p90", "p95", "p99", "p99.9")


def _latencies(row: Row) -> tuple[str, ...]:
    return tuple(f"{row.summary.percentiles_ms[name]:.2f}" for name in _LATENCIES)


def _faults(row: Row) -> str:
    """What went wrong, empty where nothing did."""
    s = row.summary
    named = {
        "errors": s.errors,
        "duplicate ids": s.duplicates,
        "unknown ids": s.unknown,
        "outside the filter": s.violations,
        "too few hits": s.short,
        "wrong scores": s.wrong_scores,
        "noisy": s.flagged,
    }
    return ", ".join(f"{count} {name}" for name, count in named.items() if count)


def _frontier(results: Results, dataset: str) -> Table:
    rows = sorted(
        results.of("frontier", dataset),
        key=lambda row: (row.engine, str(row.params["build"]), row.summary.recall.value),
    )
    cells = [
        (
            row.engine,
            str(row.params["build"]),
            _number(row.params.get("effort"), "default"),
            span(row.summary.recall, 3),
            span(row.summary.per_second, 0),
            *_latencies(row),
            str(row.summary.queries),
            _faults(row),
        )
        for row in rows
    ]
    return Table(
        f"{dataset}: recall against throughput, one query at a time",
        ("engine", "build", "effort", "recall@10", "queries/s", *_LATENCIES, "queries", "faults"),
        cells,
        "Medians over repetitions with 95% bootstrap intervals; percentiles in ms, of all raw latencies together.",
    )


def _filtered(results: Results, dataset: str) -> Table:
    rows = sorted(
        results.of("filtered", dataset),
        key=lambda r: (str(r.params["column"]), -float(r.params["selectivity"] or 0), r.engine),
    )
    cells = [
        (
            str(row.params["column"]),
            f"{100 * float(row.params['selectivity'] or 0):g}%",
            row.engine,
            span(row.summary.recall, 3),
            *_latencies(row),
            f"{100 * row.summary.exact_share:.0f}%",
            str(row.summary.queries),
            _faults(row),
        )
        for row in rows
    ]
    return Table(
        f"{dataset}: filtered search",
        ("column", "selectivity", "engine", "recall@10", *_LATENCIES, "exact", "queries", "faults"),
        cells,
        "“random” is independent of the vectors, “near” is correlated with them; “exact” is how many answers the "
        "engine says were found by a full scan.",
    )


def _loads(results: Results, dataset: str) -> Table:
    cells = []
    for one in results.facts_of("load", dataset):
        upsert, flush, records = (_value(one, name) for name in ("upsert_s", "flush_s", "records"))
        cells.append(
            (
                one.engine,
                str(one.params["build"]),
                f"{records / upsert:,.0f}" if upsert else "–",
                f"{upsert:.1f}",
                f"{flush:.1f}",
                f"{upsert + flush:.1f}",
                megabytes(one, "disk_bytes"),
            )
        )
    return Table(
        f"{dataset}: bulk load and index build",
        ("engine", "build", "records/s", "upsert s", "flush s", "together s", "disk MB"),
        cells,
        "Some engines build their index while rows come, some in the flush: together they can be compared.",
    )


def _opened(results: Results, dataset: str) -> Table:
    cells = [
        (
            one.engine,
            str(one.params["start"]),
            f"{1e3 * _value(one, 'connect_s'):.0f}",
            f"{1e3 * _value(one, 'first_search_s'):.1f}",
            f"{_value(one, 'p50_ms'):.2f}",
            f"{_value(one, 'p99_ms'):.2f}",
            megabytes(one, "client_bytes"),
            megabytes(one, "server_bytes"),
        )
        for one in results.facts_of("opened", dataset)
    ]
    return Table(
        f"{dataset}: a new process",
        ("engine", "start", "connect ms", "first search ms", "p50 ms", "p99 ms", "client MB", "server MB"),
        cells,
        "“cold”: the store's files were dropped from the page cache; a server that others run stays warm. The client's "
        "memory is the resident set of a process that only searches; a server's is proportional: shared pages count "
        "once.",
    )


def _concurrency(results: Results, dataset: str) -> Table:
    rows = sorted(results.of("concurrency", dataset), key=lambda r: (r.engine, int(r.params["workers"] or 0)))
    cells = [
        (
            row.engine,
            str(row.params["workers"]),
            span(row.summary.per_second, 0),
            span(row.summary.recall, 3),
            *_latencies(row),
            str(row.summary.queries),
            _faults(row),
        )
        for row in rows
    ]
    return Table(
        f"{dataset}: closed loop",
        ("engine", "workers", "queries/s", "recall@10", *_LATENCIES, "queries", "faults"),
        cells,
        "Threads of one Python process.",
    )


def _open_loop(results: Results, dataset: str) -> Table:
    rows = sorted(results.of("open_loop", dataset), key=lambda r: (r.engine, float(r.params["rate_per_s"] or 0)))
    cells = [
        (
            row.engine,
            str(row.params["rate_per_s"]),
            span(row.summary.per_second, 0),
            span(row.summary.recall, 3),
            *_latencies(row),
            _faults(row),
        )
        for row in rows
    ]
    return Table(
        f"{dataset}: open loop, Poisson arrivals",
        ("engine", "arrivals/s", "answered/s", "recall@10", *_LATENCIES, "faults"),
        cells,
        "Latency counts from the intended arrival, so a stall is felt by all who would have come meanwhile.",
    )


def _changing(results: Results, dataset: str) -> Table:
    cells = [
        (
            row.engine,
            row.case,
            span(row.summary.recall, 3),
            *_latencies(row),
            f"{row.extra['written_per_s']:,.0f}",
            f"{row.extra['write_p50_ms']:.1f}",
            f"{row.extra['write_p99_ms']:.1f}",
            str(row.extra["write_errors"]),
            _faults(row),
        )
        for case in ("stream", "mix")
        for row in sorted(results.of(case, dataset), key=lambda r: r.engine)
    ]
    return Table(
        f"{dataset}: searching while rows change",
        (
            "engine",
            "case",
            "recall@10",
            *_LATENCIES,
            "rows written/s",
            "write p50 ms",
            "write p99 ms",
            "write errors",
            "faults",
        ),
        cells,
        "“stream”: 500 rows a second in batches of 50 beside one searcher. “mix”: 80% searches, 10% updates and 10% "
        "deletes of ten rows each, one after another. A deleted row that is found counts as outside the filter.",
    )


def _words(results: Results, dataset: str) -> Table:
    cells = [
        (row.engine, row.case, span(row.summary.recall, 3), *_latencies(row), _faults(row))
        for case in ("keyword", "hybrid")
        for row in sorted(results.of(case, dataset), key=lambda r: r.engine)
    ]
    return Table(
        f"{dataset}: keyword and hybrid search",
        ("engine", "case", "agreement@10", *_LATENCIES, "faults"),
        cells,
        "Agreement with BM25 as Lucene defines it, and with its fusion (RRF) with the exact neighbours. Engines count "
        "words and lengths a little differently, so less than 1 is no fault.",
    )


def _end_to_end(results: Results, dataset: str) -> Table:
    cells = []
    for row in sorted(results.of("end_to_end", dataset), key=lambda r: r.engine):
        means = {name: float(row.extra[f"{name}_ms"]) for name in ("encode", "search", "fetch", "decode")}
        total = sum(means.values())
        shares = [f"{mean:.1f} ({100 * mean / total:.0f}%)" if total else "–" for mean in means.values()]
        cells.append((row.engine, f"{total:.1f}", *shares, *_latencies(row), _faults(row)))
    return Table(
        f"{dataset}: from the words to the decoded pictures",
        ("engine", "mean ms", "encode", "search", "fetch", "decode", *_LATENCIES, "faults"),
        cells,
        "One query at a time; ten pictures each.",
    )


def _quality(results: Results, dataset: str) -> Table:
    cells = [
        (
            row.engine,
            *(f"{100 * row.extra[name]:.1f}" for name in ("R@1", "R@5", "R@10")),
            f"{row.extra['MRR']:.3f}",
            str(row.summary.queries),
            _faults(row),
        )
        for row in sorted(results.of("quality", dataset), key=lambda r: r.engine)
        if row.extra
    ]
    return Table(
        f"{dataset}: captions to pictures", ("engine", "R@1 %", "R@5 %", "R@10 %", "MRR", "captions", "faults"), cells
    )


def _baseline(results: Results, dataset: str) -> Table:
    cells = []
    for row in sorted(results.of("baseline", dataset), key=lambda r: (r.engine, r.params["side"] != "sightline")):
        ratio = row.extra.get("ratio")
        cells.append(
            (
                row.engine,
                str(row.params["side"]),
                *_latencies(row),
                span(row.summary.recall, 3),
                span(ratio, 2) if ratio else "",
                _faults(row),
            )
        )
    return Table(
        f"{dataset}: the adapter beside the engine's own client",
        ("engine", "side", *_LATENCIES, "recall@10", "ours / theirs", "faults"),
        cells,
        "The same queries in turns, in the same minute; the ratio is of medians.",
    )


def _plain_loop(results: Results, dataset: str) -> Table:
    cells = [
        (
            row.engine,
            span(row.summary.latency_ms["p50"], 2),
            f"{row.extra['plain_p50_ms']:.2f}",
            "yes" if row.extra["inside"] else "no",
            span(row.summary.latency_ms["p99"], 2),
            f"{row.extra['plain_p99_ms']:.2f}",
            str(row.summary.queries),
            _faults(row),
        )
        for row in sorted(results.of("plain_loop", dataset), key=lambda r: r.engine)
        if row.extra
    ]
    return Table(
        f"{dataset}: this suite's times beside a plain loop's",
        ("engine", "p50 here", "p50 plain", "inside", "p99 here", "p99 plain", "queries", "faults"),
        cells,
        "The engine's own client on the same queries in the same minute, timed by this suite and by a loop of four "
        "lines that shares no code with it. “inside”: whether the loop's p50 lies in the interval stated here.",
    )


def span(interval: Interval, digits: int) -> str:
    """A figure with its interval: ``0.981 (0.975–0.987)``; without one that would look the same."""
    value, low, high = (f"{number:,.{digits}f}" for number in (interval.value, interval.low, interval.high))
    return value if low == high == value else f"{value} ({low}–{high})"


def megabytes(one: Facts, name: str) -> str:
    """A size in MB, or a dash where it is not known; a server of no process here has none."""
    found = one.figures.get(name)
    return f"{found.value / 1e6:,.0f}" if found is not None and found.value else "–"


def _value(one: Facts, name: str) -> float:
    found = one.figures.get(name)
    return math.nan if found is None else found.value


def _number(value: Any, missing: str) -> str:
    return missing if value is None else f"{value:g}"
