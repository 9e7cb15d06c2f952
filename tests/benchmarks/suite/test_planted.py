"""The benchmark tested by faults that were planted: it must report each exactly, no more and no less."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.suite import engines
from benchmarks.suite.context import Settings
from benchmarks.suite.datasets import open_dataset
from benchmarks.suite.engines import choose
from benchmarks.suite.fault_injection import Faults, PlantedBackend
from benchmarks.suite.loops import arrivals_ns, open_loop
from benchmarks.suite.metrics import latencies_ns
from benchmarks.suite.runner import Request, run
from benchmarks.suite.runs import Block
from benchmarks.suite.selectivity import Filter
from benchmarks.suite.summaries import Row, results
from benchmarks.suite.truth import truth_of

SET = "clustered:1000x16"
# Every fault comes at every fifth or tenth search, so any 20 in a row have the same number of it.
SETTINGS = replace(
    Settings(),
    settle_s=0.0,
    queries=20,
    repetitions=1,
    warmup=3,
    builds=1,
    efforts=1,
    workers=(8,),
    selectivities=(0.1,),
    columns=("random",),
    block_s=60.0,
    stream_rows=500,
    stream_s=0.3,
    mixed=40,
)

Measure = Callable[..., Row]


class StoppedClock:
    """A clock that only waiting moves, so that planted delays are all the time there is."""

    def __init__(self) -> None:
        self.time_ns = 1_000_000
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        return self.time_ns

    def wait_until(self, moment_ns: int) -> None:
        with self._lock:
            self.time_ns = max(self.time_ns, moment_ns)


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Runs one case over an engine with faults; gives the only row that the run's raw files come to."""

    def measured(case: str, faults: Faults, settings: Settings = SETTINGS) -> Row:
        clock = StoppedClock()
        monkeypatch.setattr(engines, "connect", lambda url: PlantedBackend(faults, clock))
        request = Request(
            tmp_path / "run", [SET], choose(["planted://"]), settings, tmp_path / "cache", ("load", case), clock=clock
        )
        finished = run(request)
        assert finished.manifest["left_out"] == []
        (row,) = results(finished).rows
        return row

    return measured


def faults_of(row: Row) -> dict[str, int]:
    s = row.summary
    counts = {
        "errors": s.errors,
        "duplicates": s.duplicates,
        "unknown": s.unknown,
        "violations": s.violations,
        "short": s.short,
        "wrong_scores": s.wrong_scores,
    }
    return {name: count for name, count in counts.items() if count}


def test_an_engine_without_faults_has_none(measure: Measure) -> None:
    row = measure("frontier", Faults())
    assert faults_of(row) == {}
    assert row.summary.recall.value == row.summary.recall.low == row.summary.recall.high == 1.0
    assert row.summary.queries == 20


def test_a_delay_is_every_percentile(measure: Measure) -> None:
    row = measure("frontier", Faults(delay_ms=5))
    assert row.summary.percentiles_ms == {"p50": 5.0, "p90": 5.0, "p95": 5.0, "p99": 5.0, "p99.9": 5.0}
    assert row.summary.per_second.value == pytest.approx(200.0)
    assert (row.summary.latency_ms["p99"].low, row.summary.latency_ms["p99"].high) == (5.0, 5.0)


def test_stalls_are_in_the_tail_as_often_as_they_were(measure: Measure) -> None:
    row = measure("frontier", Faults(delay_ms=1, stall_every=10, stall_ms=100))
    truly = np.array([1.0] * 18 + [101.0] * 2)
    for name, percentile in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p99.9", 99.9)):
        assert row.summary.percentiles_ms[name] == pytest.approx(np.percentile(truly, percentile)), name


def test_percentiles_are_of_all_repetitions_together(measure: Measure) -> None:
    row = measure("frontier", Faults(delay_ms=1, stall_every=20, stall_ms=100), replace(SETTINGS, repetitions=5))
    truly = np.array([1.0] * 95 + [101.0] * 5)
    assert row.summary.queries == 100
    assert row.summary.percentiles_ms["p95"] == pytest.approx(np.percentile(truly, 95))
    assert row.summary.percentiles_ms["p99"] == pytest.approx(101.0)


def test_failed_queries_count_as_errors_in_latency_and_in_recall(measure: Measure) -> None:
    row = measure("frontier", Faults(delay_ms=4, error_every=5))
    assert faults_of(row) == {"errors": 4}
    assert row.summary.messages == ["PlantedError: planted: this search fails"]
    assert row.summary.queries == 20
    assert row.summary.recall.value == pytest.approx(16 / 20)
    # Sixteen answers in the time that twenty queries took.
    assert row.summary.per_second.value == pytest.approx(16 / 0.08)


@pytest.mark.parametrize("case", ["frontier", "concurrency"])
def test_an_id_twice_counts_once_under_load_too(measure: Measure, case: str) -> None:
    row = measure(case, Faults(duplicate_every=5))
    assert faults_of(row)["duplicates"] == row.summary.queries / 5
    assert row.summary.recall.value == pytest.approx(1 - 0.1 / 5)
    assert row.summary.queries == (20 if case == "frontier" else 40)


def test_wrong_neighbours_are_not_recalled_whatever_the_engine_says_of_them(measure: Measure) -> None:
    row = measure("frontier", Faults(wrong_every=5, wrong=3))
    assert faults_of(row) == {}
    assert row.summary.recall.value == pytest.approx(1 - 0.3 / 5)


def test_missing_hits_and_ids_of_nothing_are_told_apart(measure: Measure) -> None:
    row = measure("frontier", Faults(unknown_every=5))
    assert faults_of(row) == {"unknown": 4}
    assert row.summary.recall.value == pytest.approx(1 - 0.1 / 5)


def test_too_few_hits(measure: Measure) -> None:
    row = measure("frontier", Faults(short_every=5))
    assert faults_of(row) == {"short": 4}
    assert row.summary.recall.value == pytest.approx(1 - 0.1 / 5)


def test_a_forgotten_filter_is_as_many_violations_as_it_let_through(measure: Measure, tmp_path: Path) -> None:
    row = measure("filtered", Faults(unfilter_every=1))
    data = open_dataset(SET, queries=20, cache=tmp_path, seed=1)
    everything = truth_of(data, None, tmp_path).rows[:, :10]
    outside = data.random[everything] >= Filter("random", 0.1).limit
    assert 0 < outside.sum() == row.summary.violations
    # What is found and matches is nearer than all that match, so it counts.
    assert row.summary.recall.value == pytest.approx(1 - outside.mean())


def test_a_filter_kept_is_no_violation(measure: Measure) -> None:
    row = measure("filtered", Faults())
    assert faults_of(row) == {}
    assert row.summary.recall.value == 1.0


def test_what_changes_is_judged_by_how_it_was_at_that_moment(measure: Measure) -> None:
    row = measure("mix", Faults(duplicate_every=1))
    assert set(faults_of(row)) == {"duplicates"}
    assert row.summary.recall.value == pytest.approx(0.9)


def test_rows_that_stream_in_are_owed_once_acknowledged(tmp_path: Path) -> None:
    request = Request(
        tmp_path / "run",
        [SET],
        choose(["planted://?wrong_every=1&wrong=2"]),
        SETTINGS,
        tmp_path / "cache",
        ("load", "stream"),
    )
    (row,) = results(run(request)).rows
    assert row.extra["written"] > 0
    assert row.summary.violations == 0
    assert row.summary.recall.value == pytest.approx(0.8)


def test_an_open_loop_makes_everyone_wait_who_came_during_a_stall() -> None:
    """Coordinated omission would report one slow query; the truth is a queue behind it."""
    data = open_dataset(SET, queries=20, cache=Path("unused"), seed=1)
    clock = StoppedClock()
    moments = arrivals_ns(100, 2.0, seed=3)
    with PlantedBackend(Faults(delay_ms=2, stall_every=50, stall_ms=500), clock) as backend:
        backend.create(engines.CollectionSpec("c", data.dim))
        backend.upsert("c", data.records())
        recorder = open_loop(
            lambda query: backend.search("c", data.queries[query][None], 10)[0],
            range(20),
            moments,
            10,
            clock,
            workers=1,
            limit_s=100,
        )
    took = latencies_ns(Block(recorder.arrays()))
    end_ns, truly = 0, []
    for number, arrival_ns in enumerate(moments.tolist(), start=1):
        end_ns = max(arrival_ns, end_ns) + 2_000_000 + (500_000_000 - 0 if number % 50 == 0 else 0)
        truly.append(end_ns - arrival_ns)
    assert took.tolist() == truly
    assert (took > 100_000_000).sum() > 3 * (len(moments) // 50)


def test_what_an_open_loop_could_not_send_is_an_error_with_its_waiting_time() -> None:
    clock = StoppedClock()
    moments = arrivals_ns(100, 1.0, seed=3)

    def slow(query: int) -> list[str]:
        clock.wait_until(clock.now_ns() + 100_000_000)
        return []

    arrays = open_loop(slow, [0], moments, 10, clock, workers=1, limit_s=1.5).arrays()
    sent = int((arrays["error"] < 0).sum())
    assert len(arrays["query"]) == len(moments)
    assert 14 <= sent <= 15
    assert (latencies_ns(Block(arrays))[arrays["error"] >= 0] > 0).all()


def test_arrivals_are_poisson_and_the_same_again() -> None:
    moments = arrivals_ns(200, 100.0, seed=1)
    gaps_s = np.diff(moments) / 1e9
    assert len(moments) == pytest.approx(20_000, rel=0.03)
    # Of an exponential distribution, mean and deviation are one.
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)
    assert (moments == arrivals_ns(200, 100.0, seed=1)).all()


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="delay_msec"):
        PlantedBackend.connect("planted://?delay_msec=1")
