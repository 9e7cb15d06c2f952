"""The benchmark of adapters against raw clients, on sets small enough to be quick."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import backends
from benchmarks import adapters
from tests.support import milvus_server, weaviate_server
from tests.support.tiers import tiered

NATIVE = {info.scheme: info for info in backends.engines().values() if info.native}
EMBEDDED = [scheme for scheme, info in NATIVE.items() if info.in_folder]
SMALL = {"records": 300, "dim": 8, "k": 5, "queries": 6, "rounds": 1, "upserted": 50}


SERVERS = {"milvus": milvus_server.url, "weaviate": lambda: weaviate_server.server().url}


def place_of(scheme: str, directory: Path) -> str:
    """A URL of the scheme: in this directory, or of the server that the session has."""
    return SERVERS[scheme]() if scheme in SERVERS else NATIVE[scheme].template.replace("{dir}", str(directory))


def test_every_engine_with_a_native_client_is_tried() -> None:
    # The same adapter and the same native client stand behind postgresql:// too.
    assert {"faiss", "pgvector-embedded", "qdrant-edge", "milvus-lite"} <= set(EMBEDDED)
    assert {*EMBEDDED, *SERVERS, "postgresql"} == set(NATIVE)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", tiered([*EMBEDDED, *SERVERS]))
def test_both_sides_are_timed_and_nothing_is_left(
    scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = place_of(scheme, tmp_path)
    adapters.main([place, *(f"--{name}={value}" for name, value in SMALL.items())])
    report = json.loads(capsys.readouterr().out)
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
    with adapters.connect(place) as backend:
        assert not {adapters.NAME, adapters.NAME + "_upsert"} & set(backend.collections())


def test_an_engine_without_a_native_client_is_named() -> None:
    with pytest.raises(ValueError, match="'exact'"):
        adapters.measure("exact://", **SMALL)


def test_the_best_of_the_rounds_counts_for_each_call() -> None:
    cost = adapters.cost_of("x", [([3.0, 9.0], [1.0, 8.0]), ([5.0, 4.0], [2.0, 2.0])])
    assert (cost.sightline_s, cost.raw_s) == (3.5, 1.5)
    assert cost.ratio == pytest.approx(3.5 / 1.5)
    assert (cost.ratio_min, cost.ratio_max) == (6 / 4.5, 4.5 / 2)
