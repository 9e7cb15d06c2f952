"""The benchmark suite over real engines, small: what it stores, resumes, computes and says."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import ir_measures
import numpy as np
import pytest

import backends
from backends import EngineInfo, connect
from backends.base import CollectionSpec
from benchmarks import __main__ as command
from benchmarks.suite import cases
from benchmarks.suite.context import Settings
from benchmarks.suite.engines import EngineError, choose, configs, load_config
from benchmarks.suite.metrics import bootstrap, is_noisy, recalls
from benchmarks.suite.plan import grid, trimmed
from benchmarks.suite.ranking import Need, NeedError, parse_need
from benchmarks.suite.runner import Request, run
from benchmarks.suite.runs import Block, Point, Run, RunError, Value
from benchmarks.suite.selectivity import Filter
from benchmarks.suite.summaries import Results, quality, results
from benchmarks.suite.truth import brute_force, truth_of
from tests.support.bench_data import clustered_set

pytestmark = pytest.mark.slow

WHOLE = Settings()
SMALL = replace(
    WHOLE,
    settle_s=0.0,
    queries=20,
    repetitions=2,
    warmup=2,
    builds=1,
    efforts=2,
    workers=(2,),
    rates=(100,),
    block_s=0.3,
    selectivities=(0.1,),
    columns=("near",),
    stream_rows=300,
    stream_s=0.3,
    mixed=20,
)


def request(folder: Path, *, engine_names: tuple[str, ...] = ("faiss", "qdrant-edge"), **changes: Any) -> Request:
    given: dict[str, Any] = {"cases": ("load", "frontier", "filtered"), **changes}
    return Request(folder / "run", ["clustered:1200x16"], choose(engine_names), SMALL, folder / "cache", **given)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of every case that applies over two embedded engines and the oracle."""
    folder = tmp_path_factory.mktemp("finished")
    asked = request(folder, engine_names=("exact://", "faiss", "qdrant-edge"), cases=tuple(cases.CASES))
    asked.settings = replace(SMALL, repetitions=1)
    return run(asked)


@pytest.fixture(scope="module")
def found(finished: Run) -> Results:
    return results(finished)


def test_every_case_that_applies_was_measured_on_every_engine(found: Results, finished: Run) -> None:
    left = {(entry["engine"], entry["what"]) for entry in finished.manifest["left_out"]}
    assert left == {
        *((engine, case) for engine in ("exact", "faiss", "qdrant-edge") for case in ("quality", "end_to_end")),
        ("exact", "opened"),
        ("exact", "baseline"),
        ("exact", "plain_loop"),
    }
    measured = {(row.engine, row.case) for row in (*found.rows, *found.facts)}
    everything = {(engine, case) for engine in ("exact", "faiss", "qdrant-edge") for case in cases.CASES}
    assert measured == everything - left


def test_the_oracle_has_recall_1_and_no_engine_has_faults(found: Results) -> None:
    for row in found.rows:
        s = row.summary
        assert (s.errors, s.duplicates, s.unknown, s.short, s.wrong_scores) == (0, 0, 0, 0, 0), row
        if row.case != "hybrid":
            assert s.violations == 0, row
        if row.engine == "exact":
            assert s.recall.value == pytest.approx(1.0), row
        else:
            assert s.recall.value > (0.5 if row.case == "frontier" else 0.9), row


def test_effort_moves_recall(found: Results) -> None:
    rows = {row.params["effort"]: row.summary.recall.value for row in found.of("frontier") if row.engine == "faiss"}
    assert rows[0.1] < rows[None]


def test_raw_results_hold_every_query(finished: Run) -> None:
    for point, block in finished.blocks():
        if point.case != "frontier":
            continue
        arrays = block.arrays
        assert sorted(arrays["query"].tolist()) == sorted(set(arrays["query"].tolist()))
        assert len(arrays["query"]) == SMALL.queries
        assert (arrays["end_ns"] > arrays["start_ns"]).all()
        assert arrays["rows"].shape == arrays["scores"].shape == (SMALL.queries, SMALL.k)
        assert block.facts["warmup_queries"] == SMALL.warmup
        assert block.facts["noise"]["calibration_ns"] > 0


def test_recall_agrees_with_ir_measures(finished: Run) -> None:
    """Recomputed from the raw ids alone, by a public library; without ties both definitions are one."""
    truth = finished.truth("clustered-1200x16", "all")
    checked = 0
    for point, block in finished.blocks():
        if point.case != "frontier":
            continue
        checked += 1
        queries, rows = block.arrays["query"].tolist(), block.arrays["rows"].tolist()
        qrels = {str(q): {str(row): 1 for row in truth.rows[q][:10].tolist()} for q in queries}
        ranking = {
            str(q): {str(row): -float(place) for place, row in enumerate(own)}
            for q, own in zip(queries, rows, strict=True)
        }
        theirs = ir_measures.calc_aggregate([ir_measures.R @ 10], qrels, ranking)[ir_measures.R @ 10]
        assert recalls(block.arrays).mean() == pytest.approx(theirs, abs=1e-9), point
    assert checked == 5


def test_quality_agrees_with_ir_measures() -> None:
    rng = np.random.default_rng(1)
    rows = np.array([rng.permutation(40)[:10] for _ in range(200)])
    answer = rng.integers(0, 40, 200)
    told = quality([Block({"rows": rows, "answer": answer})])
    qrels = {str(i): {str(row): 1} for i, row in enumerate(answer.tolist())}
    ranking = {str(i): {str(row): -float(p) for p, row in enumerate(own)} for i, own in enumerate(rows.tolist())}
    measures = [ir_measures.Success @ 1, ir_measures.Success @ 5, ir_measures.Success @ 10, ir_measures.RR @ 10]
    theirs = ir_measures.calc_aggregate(measures, qrels, ranking)
    assert 0 < told["R@1"] < told["R@10"] < 1
    assert [told[name] for name in ("R@1", "R@5", "R@10", "MRR")] == pytest.approx([theirs[m] for m in measures])


def test_the_report_is_computed_from_the_folder_alone(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["report", str(finished.folder), "--need", "recall >= 0.9, 10% filter, throughput"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert {path.name for path in paths} >= {"report.md", "results.csv"}
    text = (finished.folder / "report.md").read_text()
    for expected in (
        "take ",
        "recall >= 0.9, 10% filter, throughput",
        "ef_construction",
        "the data set has no captions",
    ):
        assert expected in text
    rows = list(csv.DictReader((finished.folder / "results.csv").read_text().splitlines()))
    assert len(rows) == len(results(finished).rows)
    assert {row["engine"] for row in rows} == {"exact", "faiss", "qdrant-edge"}


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cases.CASES["filtered"]
    calls = 0

    def interrupted(context: Any, point: Point) -> Block:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return whole.measure(context, point)

    monkeypatch.setitem(cases.CASES, "filtered", replace(whole, measure=interrupted))
    with pytest.raises(KeyboardInterrupt):
        run(request(tmp_path))
    folder = Run(tmp_path / "run")
    assert not folder.finished
    with pytest.raises(RunError, match="unfinished"):
        _ = folder.manifest
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "points").rglob("*.npz")}
    # Both loads, the first repetition, and the second one's frontier.
    assert len(before) == 2 + (4 + 2) + 4
    monkeypatch.setitem(cases.CASES, "filtered", whole)
    done = run(request(tmp_path))
    assert done.manifest["left_out"] == []
    assert sum(1 for _ in done.blocks()) == 2 + 8 + 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (tmp_path / "run" / "stores").exists()


def test_a_store_that_a_killed_run_left_damaged_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cases.CASES["frontier"]

    def killed(context: Any, point: Point) -> Block:
        raise KeyboardInterrupt

    monkeypatch.setitem(cases.CASES, "frontier", replace(whole, measure=killed))
    asked = request(tmp_path, engine_names=("faiss",), cases=("load", "frontier"))
    with pytest.raises(KeyboardInterrupt):
        run(asked)
    files = list((tmp_path / "run" / "stores").rglob("*.sqlite3"))
    assert files
    for path in files:
        path.write_bytes(b"half-written")
    monkeypatch.setitem(cases.CASES, "frontier", whole)
    done = run(asked)
    assert done.manifest["left_out"] == []
    assert {row.summary.errors for row in results(done).rows} == {0}


def test_a_folder_of_another_run_is_refused(tmp_path: Path, finished: Run) -> None:
    other = request(tmp_path, engine_names=("faiss",))
    other.out = finished.folder
    with pytest.raises(RunError, match="another cases, engines"):
        run(other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("x")
    other.out = tmp_path / "full"
    with pytest.raises(RunError, match="not empty"):
        run(other)


def test_an_engine_that_fails_is_left_out_with_its_reason(tmp_path: Path) -> None:
    done = run(request(tmp_path, engine_names=("exact://", "qdrant://127.0.0.1:9"), cases=("load", "frontier")))
    assert {row.engine for row in results(done).rows} == {"exact"}
    failed = [entry for entry in done.manifest["left_out"] if entry["engine"] == "qdrant"]
    assert failed
    assert "127.0.0.1:9" in failed[0]["why"]


@pytest.mark.parametrize("chosen", [None, *(Filter(c, s) for c in WHOLE.columns for s in WHOLE.selectivities)], ids=str)
def test_exact_neighbours_are_those_of_the_oracle(chosen: Filter | None) -> None:
    data = clustered_set(1500, 8)
    found = brute_force(data, chosen, depth=10, block_bytes=16_000)
    with connect("exact://") as oracle:
        oracle.create(CollectionSpec("c", 8))
        oracle.upsert("c", data.records())
        hits = oracle.search("c", data.queries, 10, where=chosen.where if chosen else None)
        assert found.matching == oracle.count("c", chosen.where if chosen else None)
    theirs = [[int(hit.id[4:]) for hit in own] for own in hits]
    assert [[row for row in own if row >= 0] for own in found.rows.tolist()] == theirs


@pytest.mark.parametrize("column", WHOLE.columns)
def test_selectivities_are_what_they_say_and_only_one_column_follows_the_vectors(column: str) -> None:
    data = clustered_set(4000, 32)
    values = getattr(data, column)
    for share in WHOLE.selectivities:
        assert (values < Filter(column, share).limit).mean() == pytest.approx(share)
    below = data.vectors[values < 500].mean(axis=0) - data.vectors[values >= 500].mean(axis=0)
    assert (np.linalg.norm(below) > 0.2) == (column == "near")


def test_neighbours_are_kept_and_not_mistaken_for_another_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, other = clustered_set(300, 8), clustered_set(301, 8)
    first = truth_of(data, None, tmp_path)
    monkeypatch.setattr("benchmarks.suite.truth.brute_force", lambda *_: pytest.fail("it was computed again"))
    assert (truth_of(data, None, tmp_path).rows == first.rows).all()
    monkeypatch.undo()
    assert truth_of(other, None, tmp_path).rows.max() == 300
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    assert (truth_of(data, None, tmp_path).rows == first.rows).all()


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("clustered", 0.05, 0.85), ("uniform", 0.05, 0.85), ("blobs", 0.9, 1.01)]
)
def test_the_made_sets_are_as_hard_for_a_default_hnsw_as_they_say(
    kind: str, least: float, most: float, tmp_path: Path
) -> None:
    from benchmarks.suite.datasets import open_dataset

    data = open_dataset(f"{kind}:4000x192", queries=100, cache=tmp_path)
    index = faiss.IndexHNSWFlat(192, 32, faiss.METRIC_INNER_PRODUCT)
    index.add(data.vectors)
    truth = brute_force(data, None, depth=10).rows
    labels = index.search(data.queries, 10)[1]
    recall = np.mean([len(set(mine) & set(true)) / 10 for mine, true in zip(labels, truth, strict=True)])
    assert least < recall < most


def test_ties_are_fair() -> None:
    arrays = {
        "rows": np.array([[5, 6], [5, 5], [7, -1]]),
        "true": np.array([[0.5, 0.5], [0.5, 0.5], [0.4, np.nan]]),
        "allowed": np.ones((3, 2), bool),
        "kth": np.full(3, 0.5, np.float32),
        "expected": np.full(3, 2),
        "error": np.full(3, -1),
    }
    assert recalls(arrays).tolist() == [1.0, 0.5, 0.0]


def test_every_configuration_is_complete() -> None:
    known = configs()
    assert {"faiss", "qdrant-edge", "milvus-lite", "milvus", "pgvector", "weaviate"} <= set(known)
    assert len(known) == len({info.bench for info in backends.engines().values() if info.bench})
    for config in known.values():
        # Where nothing is built there is one way.
        assert len(config.builds) >= 2 or [build.index.kind for build in config.builds] == ["flat"]
        assert config.efforts[0] is None
        assert config.native is not None


def test_engines_are_told_apart_by_their_names() -> None:
    urls = ["pgvector", "qdrant://h:1", "qdrant://h:2", "qdrant-edge", "postgresql://h/d", "exact://"]
    chosen = choose(urls)
    assert [e.name for e in chosen] == ["pgvector", "qdrant", "qdrant-3", "qdrant-edge", "postgresql", "exact"]
    assert [e.config.native is not None for e in chosen] == [True, False, False, True, True, False]


def test_a_parameter_without_a_reason_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    text = (
        'name = "x"\n[defaults.hnsw]\nm = 16\n[effort]\nvalues = []\nreason = "r"\n'
        '[[build]]\nname = "b"\nkind = "hnsw"\n'
    )
    info = EngineInfo(scheme="x", backend="x:X", example="x://", summary="x", bench=path)
    path.write_text(text + "params = { m = 16 }\n")
    assert load_config(path, [info]).builds[0].index.params == {"m": 16}
    path.write_text(text + "params = { m = 17 }\n")
    with pytest.raises(EngineError, match="no reason for its m"):
        load_config(path, [info])


def test_where_time_is_short_the_least_important_is_left_out() -> None:
    data = clustered_set(2000, 32)
    planned, missing = grid(
        0, data, choose(["faiss"])[0], connect("exact://").capabilities, Settings(), list(cases.CASES)
    )
    total_s = sum(plan.expected_s for plan in planned)
    kept, dropped = trimmed(planned, total_s / 3)
    assert sum(plan.expected_s for plan in kept) <= total_s / 3
    assert kept
    assert len(kept) + len(dropped) == len(planned)
    assert {plan.point.case for plan in kept if not plan.build_index} >= {"load", "frontier", "filtered"}
    assert {plan.point.case for plan in dropped} >= {"hybrid", "keyword"}
    everything, none = trimmed(planned, total_s)
    assert (everything, none) == (planned, [])
    assert {entry.what for entry in missing} == {"quality", "end_to_end", "opened"}


def test_a_run_without_time_loads_and_says_what_it_left_out(tmp_path: Path) -> None:
    done = run(request(tmp_path, engine_names=("exact://", "faiss"), minutes=0.0001))
    assert [point.case for point, _ in done.blocks()] == ["load", "load"]
    reasons = {(entry["engine"], entry["why"]) for entry in done.manifest["left_out"]}
    assert reasons == {(engine, "0.0001 minutes were not enough") for engine in ("exact", "faiss")}
    assert len(done.manifest["left_out"]) == 2 * (1 + 1) + 2 * (2 + 1)


def test_a_need_in_words() -> None:
    assert parse_need("recall >= 0.95, 10% filter, p99") == Need(0.95, 0.1, "p99")
    assert parse_need("throughput") == Need(0.95, None, "throughput")
    for wrong in ("recall > 2", "fast", "p99, p50", ""):
        with pytest.raises(NeedError):
            parse_need(wrong)


def test_intervals_hold_their_figure_and_repetitions_widen_them() -> None:
    rng = np.random.default_rng(1)
    same = [rng.normal(10, 1, 300) for _ in range(3)]
    apart = [rng.normal(mean, 1, 300) for mean in (8, 10, 14)]
    narrow, wide = (bootstrap(samples, lambda drawn: np.median(drawn, axis=1)) for samples in (same, apart))
    assert narrow.low <= narrow.value <= narrow.high
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("noise", "noisy"),
    [
        ({"calibration_ns": 100, "steal_share": 0.0}, False),
        ({"calibration_ns": 130, "steal_share": 0.0}, True),
        ({"calibration_ns": 100, "steal_share": 0.05}, True),
    ],
)
def test_a_throttled_repetition_is_flagged(noise: dict[str, float], noisy: bool) -> None:
    assert is_noisy({"noise": noise}, usual_ns=100) is noisy


def test_points_that_differ_lie_in_places_that_differ() -> None:
    params: list[dict[str, Value]] = [{"effort": 0.1}, {"effort": 0.2}, {"effort": None}, {"build": "a"}]
    places = {Point("frontier", "d", "e", own, repetition).place for own in params for repetition in (0, 1)}
    assert len(places) == 8


def test_the_command_line_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["run", "--out", str(tmp_path / "o"), "--cache", str(tmp_path)]
    for wrong, message in (
        (["--engines", "oracle"], "no engine is called 'oracle'"),
        (["--cases", "load,dance"], "no case 'dance'"),
        (["--minutes", "0"], "--minutes must be more than 0"),
        (["--data", "photos:nowhere", "--engines", "exact://"], "nowhere"),
        (["--data", "clustered:0x8", "--engines", "exact://"], "is not a size"),
        (["--need", "soon"], "'soon' is no part of a need"),
    ):
        assert command.main([*out, *wrong]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "o").exists()
    assert command.main(["report", str(tmp_path)]) == 1
    assert "has no plan.json" in capsys.readouterr().err


def test_secrets_are_not_stored(tmp_path: Path) -> None:
    wanted = request(tmp_path, engine_names=("postgresql://me:hunter2@h:1/d?password=hunter3",))
    assert "hunter" not in json.dumps(wanted.plan())
