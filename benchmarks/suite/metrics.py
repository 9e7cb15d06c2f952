"""What is computed from raw results: recall, percentiles, throughput, and how sure each is.

Nothing here measures anything; a summary is a function of the stored blocks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.suite.runs import Array, Block
from benchmarks.suite.truth import TIE

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
RESAMPLES = 200
CONFIDENCE = 0.95
# A repetition whose calibration took this much longer than the run's median, or which lost this share of the
# processors to other machines, is flagged.
SLOW, STOLEN = 1.25, 0.02
# How far an engine's score may be from the true one: the conformance suite allows exact scores 1e-4.
SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Interval:
    """A figure over repetitions: the median of theirs, and the bootstrap's 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """All repetitions of one point. Times in ms; `percentiles_ms` are of the merged raw latencies."""

    queries: int
    repetitions: int
    errors: int
    recall: Interval
    latency_ms: dict[str, Interval]
    percentiles_ms: dict[str, float]
    per_second: Interval
    duplicates: int
    unknown: int
    violations: int
    short: int
    wrong_scores: int
    exact_share: float
    flagged: int
    messages: list[str] = field(default_factory=list)


def latencies_ns(block: Block) -> NDArray[np.int64]:
    """From the intended start to the end, failed queries included: (q,)."""
    found: NDArray[np.int64] = block.arrays["end_ns"] - block.arrays["intended_ns"]
    return found


def first_of_each(rows: Array) -> NDArray[np.bool_]:
    """Where an id stands for the first time in its list: (q, k); empty places (-1) are False."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    new = np.ones_like(rows, np.bool_)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    result = np.empty_like(new)
    np.put_along_axis(result, order, new, axis=1)
    # Ids that do not exist all look alike here; each is counted by `unknown` instead.
    first: NDArray[np.bool_] = (result & (rows != -1)) | (rows == -2)
    return first


def recalls(arrays: dict[str, Array]) -> NDArray[np.float64]:
    """Each query's recall, by distance: (q,).

    The share of the `expected` hits that were found, where every returned id counts once, must match the filter,
    and must be as near as the k-th best truly is, so that ties are fair (Aumüller, Bernhardsson and Faithfull,
    ANN-Benchmarks, 2020). The nearness is the true one, not what the engine says. A failed query has recall 0.
    """
    tolerance = TIE * np.maximum(1.0, np.abs(arrays["kth"][:, None]))
    with np.errstate(invalid="ignore"):
        near = arrays["true"] >= arrays["kth"][:, None] - tolerance
    good = near & arrays["allowed"] & first_of_each(arrays["rows"]) & (arrays["rows"] >= 0)
    expected = arrays["expected"]
    share = np.minimum(good.sum(axis=1), expected) / np.maximum(expected, 1)
    # Where nothing matches, nothing is the whole answer.
    share = np.where(expected == 0, 1.0, share)
    result: NDArray[np.float64] = np.where(arrays["error"] >= 0, 0.0, share)
    return result


def wrong_scores(arrays: dict[str, Array]) -> int:
    """How many hits were told with another score than their vectors have; hits told without one do not count."""
    off = np.abs(arrays["scores"] - arrays["true"]) > SCORE_TOLERANCE * np.maximum(1.0, np.abs(arrays["true"]))
    return int(off.sum())


def throughput(block: Block) -> float:
    """Answered queries a second, from the first start to the last end; failed ones do not count."""
    arrays = block.arrays
    if not len(arrays["end_ns"]):
        return 0.0
    span_ns = int(arrays["end_ns"].max() - arrays["start_ns"].min())
    return float((arrays["error"] < 0).sum() / (span_ns / 1e9)) if span_ns else 0.0


def bootstrap(samples: Sequence[Array], statistic: Callable[[Array], Array], seed: int = 0) -> Interval:
    """The median over repetitions of a statistic, and its interval: repetitions are drawn again, then samples in each.

    Both levels, because queries of one repetition share its luck (Kalibera and Jones, ISMM 2013). `statistic` takes
    (resamples, samples, …) to (resamples,).
    """
    kept = [sample for sample in samples if len(sample)]
    if not kept:
        return Interval(float("nan"), float("nan"), float("nan"))
    value = float(np.median([statistic(sample[None])[0] for sample in kept]))
    rng = np.random.default_rng(seed)
    again = np.stack([statistic(s[rng.integers(0, len(s), (RESAMPLES, len(s)))]) for s in kept])
    which = rng.integers(0, len(kept), (RESAMPLES, len(kept)))
    drawn = np.median(again[which, rng.integers(0, RESAMPLES, which.shape)], axis=1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(value, min(float(low), value), max(float(high), value))


def percentile_name(percentile: float) -> str:
    """``p50``, ``p99.9``."""
    return f"p{percentile:g}"


def is_noisy(facts: dict[str, Any], usual_ns: float) -> bool:
    """Whether a repetition ran while the machine was slower than usual, or lost time to others."""
    noise = facts.get("noise") or {}
    calibration_ns, steal_share = float(noise.get("calibration_ns", 0)), float(noise.get("steal_share", 0))
    return calibration_ns > SLOW * usual_ns > 0 or steal_share > STOLEN


def summary(blocks: Sequence[Block], usual_ns: float = 0.0) -> Summary:
    """All repetitions of one point; usual_ns: the run's median calibration."""
    times = [latencies_ns(block) / 1e6 for block in blocks]
    merged = np.concatenate(times)
    arrays = [block.arrays for block in blocks]
    rows = np.concatenate([a["rows"] for a in arrays])
    allowed = np.concatenate([a["allowed"] for a in arrays])
    expected, failed = (np.concatenate([a[name] for a in arrays]) for name in ("expected", "error"))
    returned = (rows != -1).sum(axis=1)
    levels = {percentile_name(p): p for p in PERCENTILES}
    rates = [throughput(block) for block in blocks]
    return Summary(
        queries=len(merged),
        repetitions=len(blocks),
        errors=int((failed >= 0).sum()),
        recall=bootstrap([recalls(a) for a in arrays], lambda drawn: drawn.mean(axis=1)),
        latency_ms={
            name: bootstrap(times, lambda drawn, p=p: np.percentile(drawn, p, axis=1))  # type: ignore[misc]
            for name, p in levels.items()
            if name in ("p50", "p99")
        },
        percentiles_ms={
            name: float(np.percentile(merged, p)) if len(merged) else float("nan") for name, p in levels.items()
        },
        per_second=_rate_interval(rates),
        duplicates=int(((rows != -1) & ~first_of_each(rows)).sum()),
        unknown=int((rows == -2).sum()),
        violations=int(((rows >= 0) & ~allowed).sum()),
        short=int(((returned < expected) & (failed < 0)).sum()),
        wrong_scores=sum(wrong_scores(a) for a in arrays),
        exact_share=float(np.concatenate([a["exact"] for a in arrays]).mean()) if len(merged) else 0.0,
        flagged=sum(is_noisy(block.facts, usual_ns) for block in blocks),
        messages=sorted({message for block in blocks for message in block.facts.get("errors", [])}),
    )


def _rate_interval(rates: Sequence[float]) -> Interval:
    value = float(np.median(rates))
    drawn = np.random.default_rng(0).choice(np.asarray(rates), (RESAMPLES, len(rates)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Interval(value, float(low), float(high))


def usual_calibration_ns(blocks: Sequence[Block]) -> float:
    """The median calibration of a run, in ns; 0 where none was stored."""
    found = [block.facts["noise"]["calibration_ns"] for block in blocks if block.facts.get("noise")]
    return float(np.median(found)) if found else 0.0
