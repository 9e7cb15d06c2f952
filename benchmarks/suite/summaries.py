"""Raw blocks into rows: one per point of the grid, all its repetitions together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.suite.metrics import Interval, Summary, bootstrap, latencies_ns, summary, usual_calibration_ns
from benchmarks.suite.runs import Block, Point, Run, Value

CUTOFFS = (1, 5, 10)
# Latencies are told to a hundredth of a millisecond.
RESOLUTION_MS = 0.005


@dataclass(frozen=True)
class Row:
    """All repetitions of one point: its summary, and figures that only its case has."""

    case: str
    dataset: str
    engine: str
    params: Mapping[str, Value]
    summary: Summary
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """The repetitions of a point that is not made of judged searches: loading, and opening anew."""

    case: str
    dataset: str
    engine: str
    params: Mapping[str, Value]
    figures: Mapping[str, Interval | None]


@dataclass(frozen=True)
class Results:
    """Everything that a report shows."""

    rows: list[Row]
    facts: list[Facts]
    usual_ns: float

    def of(self, case: str, dataset: str | None = None) -> list[Row]:
        """The rows of a case."""
        return [row for row in self.rows if row.case == case and dataset in (None, row.dataset)]

    def facts_of(self, case: str, dataset: str | None = None) -> list[Facts]:
        """The facts of a case."""
        return [one for one in self.facts if one.case == case and dataset in (None, one.dataset)]


def results(run: Run) -> Results:
    """All rows of a run, from its raw files alone."""
    groups: dict[tuple[str, str, str], list[tuple[Point, Block]]] = defaultdict(list)
    for point, block in run.blocks():
        groups[point.dataset, point.case, point.group].append((point, block))
    usual_ns = usual_calibration_ns([block for group in groups.values() for _, block in group])
    rows, facts = [], []
    for group in groups.values():
        point, blocks = group[0][0], [block for _, block in group]
        if point.case in ("load", "opened"):
            facts.append(Facts(point.case, point.dataset, point.engine, point.params, _figures(point.case, blocks)))
        elif point.case == "baseline":
            rows += _sides(point, blocks, usual_ns)
        else:
            rows.append(
                Row(
                    point.case,
                    point.dataset,
                    point.engine,
                    point.params,
                    summary(blocks, usual_ns),
                    _extra(point, blocks),
                )
            )
    return Results(rows, facts, usual_ns)


def _sides(point: Point, blocks: Sequence[Block], usual_ns: float) -> list[Row]:
    rows = []
    for side, name in enumerate(blocks[0].facts["sides"]):
        own = [part(block, block.arrays["side"] == side) for block in blocks]
        rows.append(
            Row(
                point.case,
                point.dataset,
                point.engine,
                {**point.params, "side": name},
                summary(own, usual_ns),
                _ratio(blocks) if name == "sightline" else {},
            )
        )
    return rows


def part(block: Block, chosen: Any) -> Block:
    """The rows of a block that a mask chooses."""
    return Block({name: array[chosen] for name, array in block.arrays.items()}, block.facts)


def _ratio(blocks: Sequence[Block]) -> dict[str, Any]:
    """Our median latency over the raw client's, with its interval over repetitions."""
    pairs = []
    for block in blocks:
        took = block.arrays["end_ns"] - block.arrays["start_ns"]
        side = block.arrays["side"]
        # Both sides answered every query of the block, so they pair up by query.
        ours, theirs = (took[side == s][np.argsort(block.arrays["query"][side == s], kind="stable")] for s in (0, 1))
        least = min(len(ours), len(theirs))
        pairs.append(np.column_stack([ours[:least], theirs[:least]]).astype(np.float64))
    return {"ratio": bootstrap(pairs, lambda both: np.median(both[..., 0], axis=1) / np.median(both[..., 1], axis=1))}


def _figures(case: str, blocks: Sequence[Block]) -> dict[str, Interval | None]:
    """The facts of all repetitions as median and range."""
    names: tuple[str, ...]
    if case == "load":
        names = ("upsert_s", "flush_s", "records", "disk_bytes", "server_bytes")
    else:
        names = ("connect_s", "first_search_s", "client_bytes", "server_bytes")
    figures: dict[str, Interval | None] = {}
    for name in names:
        values = [float(block.facts[name]) for block in blocks if block.facts.get(name) is not None]
        figures[name] = Interval(float(np.median(values)), min(values), max(values)) if values else None
    if case == "opened":
        merged = np.concatenate([block.arrays["latency_ns"] for block in blocks]) / 1e6
        for percentile in (50, 99):
            value = float(np.percentile(merged, percentile)) if len(merged) else float("nan")
            figures[f"p{percentile}_ms"] = Interval(value, value, value)
    return figures


def _extra(point: Point, blocks: Sequence[Block]) -> dict[str, Any]:
    if point.case == "quality":
        return quality(blocks)
    if point.case == "plain_loop":
        return plain(blocks)
    if point.case == "end_to_end":
        stages = np.concatenate([block.arrays["stages_ns"] for block in blocks])
        # Means, because those add up to the whole.
        means = stages.mean(axis=0) / 1e6 if len(stages) else np.full(stages.shape[1], np.nan)
        return {f"{name}_ms": float(mean) for name, mean in zip(blocks[0].facts["stages"], means, strict=True)}
    if point.case == "stream":
        return {**_written(blocks, "batch", "begin_ns"), "curve": curve(blocks)}
    if point.case == "mix":
        return _written(blocks, "write", "start_ns")
    return {}


def plain(blocks: Sequence[Block]) -> dict[str, Any]:
    """The plain loop's percentiles, and whether its p50 lies in the interval that the suite states of its own.

    As there, the median over repetitions of their medians; `inside` allows the resolution of the printed figures.
    """
    own = [block.arrays["plain_ns"] / 1e6 for block in blocks if len(block.arrays["plain_ns"])]
    if not own:
        return {}
    stated = bootstrap([latencies_ns(block) / 1e6 for block in blocks], lambda drawn: np.median(drawn, axis=1))
    p50_ms = float(np.median([np.median(took) for took in own]))
    merged = np.concatenate(own)
    return {
        "plain_p50_ms": p50_ms,
        "plain_p99_ms": float(np.percentile(merged, 99)),
        "plain_queries": len(merged),
        "inside": stated.low - RESOLUTION_MS <= p50_ms <= stated.high + RESOLUTION_MS,
    }


def curve(blocks: Sequence[Block]) -> list[tuple[float, float]]:
    """The median latency in ms of the queries that began in each second, of all repetitions together."""
    starts = np.concatenate([block.arrays["start_ns"] for block in blocks]) // 1_000_000_000
    took = np.concatenate([latencies_ns(block) for block in blocks]) / 1e6
    return [(float(second), float(np.median(took[starts == second]))) for second in np.unique(starts)]


def _written(blocks: Sequence[Block], label: str, begin: str) -> dict[str, Any]:
    took = np.concatenate([b.arrays[f"{label}_end_ns"] - b.arrays[f"{label}_{begin}"] for b in blocks]) / 1e6
    rows = sum(int(b.arrays[f"{label}_rows"].sum()) for b in blocks)
    # From the first write's begin to the last one's end, waiting for the rate included.
    span_s = sum(
        float(b.arrays[f"{label}_end_ns"].max() - b.arrays[f"{label}_{begin}"].min()) / 1e9
        for b in blocks
        if len(b.arrays[f"{label}_end_ns"])
    )
    return {
        "written": rows,
        "written_per_s": rows / span_s if span_s else 0.0,
        "write_p50_ms": float(np.percentile(took, 50)) if len(took) else float("nan"),
        "write_p99_ms": float(np.percentile(took, 99)) if len(took) else float("nan"),
        "write_errors": sum(len(b.facts["write_errors"]) for b in blocks),
    }


def quality(blocks: Sequence[Block]) -> dict[str, float]:
    """R@1, R@5 and R@10, the share of captions whose picture is among so many, and the mean reciprocal rank (at 10)."""
    ranks = []
    for block in blocks:
        hit = block.arrays["rows"] == block.arrays["answer"][:, None]
        ranks.append(np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, np.inf))
    merged = np.concatenate(ranks)
    if not len(merged):
        return {}
    told = {f"R@{cutoff}": float((merged <= cutoff).mean()) for cutoff in CUTOFFS}
    return {**told, "MRR": float((1 / merged).mean())}
