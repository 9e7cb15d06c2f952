"""What the benchmark's figures are checked by: ir-measures over the raw ids, and a plain loop over the raw client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.suite.check import check, told
from benchmarks.suite.context import Settings
from benchmarks.suite.engines import Build, IndexSpec, choose
from benchmarks.suite.plan import Planned
from benchmarks.suite.progress import Pace
from benchmarks.suite.report import _left_out
from benchmarks.suite.runner import Request, run
from benchmarks.suite.runs import Block, Point, Run
from benchmarks.suite.scheduler import Scheduler
from benchmarks.suite.summaries import plain, results

SETTINGS = replace(
    Settings(),
    settle_s=0.0,
    queries=20,
    repetitions=2,
    warmup=2,
    builds=1,
    efforts=2,
    workers=(3,),
    rates=(100,),
    block_s=0.3,
    selectivities=(0.1, 0.001),
    columns=("near",),
)
FAULTS = (
    "faulty://?error_every=7&duplicate_every=3&wrong_every=4&wrong=2&unknown_every=5&short_every=6&unfilter_every=2"
)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over an engine with every fault there is, so that recall is nowhere 1."""
    folder = tmp_path_factory.mktemp("faulty")
    cases = ("load", "frontier", "filtered", "concurrency", "open_loop")
    return run(Request(folder / "run", ["clustered:1000x8"], choose([FAULTS]), SETTINGS, folder / "cache", cases))


def test_recall_recomputed_from_the_raw_ids_is_the_reports_whatever_the_faults(faulty: Run) -> None:
    checked = check(faulty)
    assert {one.case for one in checked} == {"frontier", "filtered", "concurrency", "open_loop"}
    assert len(checked) == len(results(faulty).rows)
    assert all(one.agrees for one in checked), told(checked)
    assert all(0 < one.told < 1 for one in checked)
    assert "the largest difference is" in told(checked)[0]


def test_a_report_whose_recall_is_wrong_does_not_pass(
    faulty: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["report", str(faulty.folder), "--check"]) == 0
    # A duplicate that counts twice is the classic mistake.
    monkeypatch.setattr("benchmarks.suite.metrics.first_of_each", lambda rows: np.ones_like(rows, np.bool_))
    assert command.main(["report", str(faulty.folder), "--check"]) == 1
    assert "differs: faulty on clustered-1000x8, frontier, recall" in capsys.readouterr().out


def _timed(ours_ms: Sequence[float], plain_ms: Sequence[float]) -> Block:
    ends = (np.array(ours_ms) * 1e6).astype(np.int64)
    loop = (np.array(plain_ms) * 1e6).astype(np.int64)
    return Block({"intended_ns": np.zeros_like(ends), "end_ns": ends, "plain_ns": loop})


def test_a_plain_loop_lies_inside_the_interval_or_it_is_said_that_it_does_not() -> None:
    rng = np.random.default_rng(1)
    ours = [rng.normal(2.0, 0.3, 200) for _ in range(3)]
    same = plain([_timed(one, rng.permutation(one)) for one in ours])
    assert same["inside"]
    assert same["plain_p50_ms"] == pytest.approx(float(np.median([np.median(one) for one in ours])), abs=1e-3)
    assert same["plain_queries"] == 600
    assert not plain([_timed(one, one + 0.4) for one in ours])["inside"]
    assert not plain([_timed(one, one - 0.4) for one in ours])["inside"]


def test_a_plain_loop_over_a_real_client_takes_as_long_as_the_suite_says(tmp_path: Path) -> None:
    asked = Request(
        tmp_path / "run",
        ["clustered:1000x256"],
        choose(["faiss"]),
        replace(SETTINGS, queries=100, repetitions=3),
        tmp_path / "cache",
        ("load", "plain_loop"),
    )
    done = run(asked)
    (row,) = results(done).rows
    assert row.summary.errors == 0
    assert row.summary.recall.value > 0.9
    assert row.extra["plain_queries"] == row.summary.queries == 300
    # Wide, since the machine may be busy; the interval itself is for the report to compare with.
    assert 0.5 < row.extra["plain_p50_ms"] / row.summary.percentiles_ms["p50"] < 2
    assert all(one.agrees for one in check(done))


def _planned(case: str, repetition: int, expected_s: float, priority: int, engine: str = "e") -> Planned:
    point = Point(case, "d", engine, {}, repetition)
    return Planned(point, Build("b", IndexSpec()), 0, 0, expected_s, priority)


def test_what_was_given_up_comes_back_when_there_turns_out_to_be_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr("benchmarks.suite.scheduler.time.monotonic", lambda: now_s[0])
    most, least = _planned("frontier", 0, 10.0, 1), _planned("hybrid", 0, 10.0, 7)
    scheduler = Scheduler([least, most], until_s=1015.0)
    order = [least, most]
    assert scheduler.next(order) is most
    # It took a tenth of what was expected, so now both fit, though the other one's turn was before.
    now_s[0] += 1.0
    scheduler.done(most, 1.0)
    assert scheduler.next(order) is least
    scheduler.done(least, 1.0)
    assert scheduler.next(order) is None
    assert not scheduler.todo


def test_a_slot_that_was_begun_is_finished_for_all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("benchmarks.suite.scheduler.time.monotonic", lambda: now_s[0])
    one, other = (_planned("hybrid", 0, 10.0, 7, engine) for engine in "ab")
    scheduler = Scheduler([one, other], until_s=25.0)
    assert scheduler.next([one, other]) is one
    now_s[0] = 60.0
    scheduler.done(one, 60.0)
    assert scheduler.next([one, other]) is other


def test_the_pace_is_an_engines_own_and_a_stranger_has_that_of_all() -> None:
    pace = Pace()
    assert pace.of("a", "load", 0) == 1.0
    for _ in range(20):
        pace.learn("slow", "filtered", 0, 1.0, 8.0)
        pace.learn("fast", "filtered", 0, 1.0, 0.1)
    assert pace.of("slow", "filtered", 0) > 7
    assert pace.of("fast", "filtered", 0) < 0.6
    assert 2 < pace.of("new", "filtered", 0) < 5


def test_what_was_left_out_is_told_once_for_all_that_it_is_the_same_of() -> None:
    def entry(engine: str, what: str, why: str = "no time") -> dict[str, str]:
        return {"dataset": "d", "engine": engine, "what": what, "why": why}

    entries = [
        *(entry(engine, f"{case} {engine} d build=a r2") for engine in "xy" for case in ("frontier", "filtered")),
        *(entry("x", f"{what} x d build=b r{number}") for what, number in (("load", 0), ("frontier", 0))),
        entry("x", "frontier x d build=b r1"),
        entry("x", "quality", "no captions"),
        entry("y", "quality", "no captions"),
    ]
    assert _left_out(entries) == [
        "d: filtered, frontier, repetition 3, of x, y: no time",
        "d: all of build b, of x: no time",
        "d: quality, of x, y: no captions",
    ]
