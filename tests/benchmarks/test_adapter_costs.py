"""The benchmark of adapters against raw clients, on sets small enough to be quick."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from benchmarks import adapters
from benchmarks.side_by_side import alternately, cost_of, in_turns
from benchmarks.suite.engines import EngineError
from tests.support import (
    chroma_server,
    elasticsearch_server,
    milvus_server,
    opensearch_server,
    tidb_server,
    weaviate_server,
)
from tests.support.repository import ROOT
from tests.support.tiers import tiered

NATIVE = {info.scheme: info for info in backends.engines().values() if info.native}
EMBEDDED = [scheme for scheme, info in NATIVE.items() if info.in_folder]
SMALL = {"records": 300, "dim": 8, "k": 5, "queries": 6, "rounds": 1, "upserted": 50}


SERVERS = {
    "chroma": chroma_server.url,
    "elasticsearch": lambda: elasticsearch_server.server().url,
    "milvus": milvus_server.url,
    "opensearch": lambda: opensearch_server.server().url,
    "tidb": lambda: tidb_server.server().url,
    "weaviate": lambda: weaviate_server.server().url,
}


def place_of(scheme: str, directory: Path) -> str:
    """A URL of the scheme: in this directory, or of the server that the session has."""
    return SERVERS[scheme]() if scheme in SERVERS else NATIVE[scheme].template.replace("{dir}", str(directory))


def test_every_engine_with_a_native_client_is_tried() -> None:
    # The same adapter and the same native client stand behind the servers of an engine in a folder, too.
    assert {"chroma-embedded", "faiss", "pgvector-embedded", "qdrant-edge", "milvus-lite"} <= set(EMBEDDED)
    assert {*EMBEDDED, *SERVERS, "postgresql", "clickhouse"} == set(NATIVE)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", tiered([*EMBEDDED, *SERVERS]))
def test_both_sides_are_timed_and_nothing_is_left(scheme: str, tmp_path: Path) -> None:
    place = place_of(scheme, tmp_path)
    file = tmp_path / "report.json"
    assert adapters.main([place, f"--json={file}", *(f"--{name}={value}" for name, value in SMALL.items())]) == 0
    report = json.loads(file.read_text())
    assert [cost["work"] for cost in report["costs"]] == [
        "search, one query",
        "search, 100 queries",
        "upsert, 50 records",
    ]
    for cost in report["costs"]:
        assert cost["sightline_s"] > 0
        assert cost["raw_s"] > 0
        assert cost["ratio"] == pytest.approx(cost["sightline_s"] / cost["raw_s"])
        assert cost["ratio_min"] <= cost["ratio_max"]
    with backends.connect(place) as backend:
        assert not {adapters.NAME, adapters.UPSERTED} & set(backend.collections())


def test_an_engine_without_a_native_client_is_named() -> None:
    with pytest.raises(EngineError, match="'exact'"):
        adapters.measure_adapter("exact://", **SMALL)


def test_the_command_says_in_one_line_what_cannot_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert adapters.main(["no-such-engine"]) == 1
    assert capsys.readouterr().err.startswith("error: no engine is called 'no-such-engine'; there are ")
    assert adapters.main(["opensearch://127.0.0.1:1"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "does not answer" in told[0]


def test_filters_are_compared_where_the_native_client_has_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.adapters", "faiss", "--records", "3000", "--dim", "16"]
    report = tmp_path / "report.json"
    command += ["--queries", "4", "--rounds", "1", "--upserted", "50", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "| search, one query | 0.1% |" in done.stdout
    measured = json.loads(report.read_text())
    assert [search["where"] for search in measured["searches"]] == ["none", "10%", "1%", "0.1%"]
    assert min(search["sightline_recall"] for search in measured["searches"]) >= 0.9
    assert measured["searches"][0]["cost"] == measured["costs"][0]


def test_the_best_of_the_rounds_counts_for_each_call() -> None:
    cost = cost_of("x", [([3.0, 9.0], [1.0, 8.0]), ([5.0, 4.0], [2.0, 2.0])])
    assert (cost.sightline_s, cost.raw_s) == (3.5, 1.5)
    assert cost.ratio == pytest.approx(3.5 / 1.5)
    assert (cost.ratio_min, cost.ratio_max) == (6 / 4.5, 4.5 / 2)


def test_each_side_comes_first_as_often_as_the_other() -> None:
    assert list(alternately("ab")) == [(1, "a"), (0, "a"), (0, "b"), (1, "b")]
    assert list(alternately("ab", 1)) == [(0, "a"), (1, "a"), (1, "b"), (0, "b")]


def test_the_first_round_is_forgotten_and_each_one_is_cleaned_up_after() -> None:
    done: list[str] = []
    pair = (lambda: done.append("ours"), lambda: done.append("theirs"))
    rounds = in_turns([pair, pair], 2, after=lambda: done.append("after"))
    assert [(len(ours), len(theirs)) for ours, theirs in rounds] == [(2, 2), (2, 2)]
    assert [done[i : i + 5].count("ours") for i in (0, 5, 10)] == [2, 2, 2]
    assert [i for i, what in enumerate(done) if what == "after"] == [4, 9, 14]
