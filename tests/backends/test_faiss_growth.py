"""What a faiss:// collection keeps from version to version, so that no step costs what the whole collection does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import connect
from backends.base import NO_VECTOR, Backend, CollectionSpec, Compare, IndexSpec, Record, Where, parse_where
from backends.faiss import calibration, columns, selections
from backends.faiss.backend import FaissBackend
from backends.faiss.index import VISITS, IndexFile
from benchmarks.suite.datasets import clustered

DIM = 8
FIELDS = ["n", "s", "tags", "modality", "nowhere"]
FILTERS: list[Where | None] = [
    None,
    parse_where({"n": {"$gte": 2}}),
    parse_where({"tags": "x"}),
    Compare("modality", "eq", "image"),
    parse_where({"s": {"$ne": "a"}}),
]


@pytest.fixture
def faiss(tmp_path: Path) -> Iterator[FaissBackend]:
    with FaissBackend.connect(f"faiss://{tmp_path.as_posix()}/store") as backend:
        yield backend


def made(i: int, rng: random.Random) -> Record:
    """A record of mixed types, lists and gaps; one in five without a vector."""
    metadata: dict[str, Any] = {
        "n": rng.choice([1, 1.0, 2, 3.5, True, False, "1", "q"]),
        "s": rng.choice(["a", "b", "ü", "1", ["a", "q"]]),
        "tags": rng.sample(["x", "y", "z"], rng.randint(0, 3)),
    }
    metadata = {key: value for key, value in metadata.items() if rng.random() < 0.8}
    vector = np.array([rng.gauss(0, 1) for _ in range(DIM)], np.float32) if rng.random() < 0.8 else NO_VECTOR
    return Record(f"i{i}", vector, rng.choice(["image", "text"]), metadata=metadata)  # type: ignore[arg-type]


def test_what_is_kept_from_version_to_version_equals_what_is_read_anew(faiss: FaissBackend) -> None:
    rng = random.Random(1)
    with connect("exact://") as oracle:
        both: tuple[Backend, Backend] = (faiss, oracle)
        for backend in both:
            backend.create(CollectionSpec("c", DIM))
        for step in range(40):
            records = [made(rng.randrange(400), rng) for _ in range(rng.choice([1, 5, 60]))]
            gone = [f"i{rng.randrange(400)}" for _ in range(3)]
            for backend in both:
                backend.upsert("c", records)
                backend.delete("c", ids=gone)
            if step % 13 == 12:
                faiss.flush("c")
            query = np.array([[rng.gauss(0, 1) for _ in range(DIM)]], np.float32)
            for where in rng.sample(FILTERS, 2):
                assert faiss.facets("c", FIELDS, where=where, top=3) == oracle.facets("c", FIELDS, where=where, top=3)
                assert faiss.count("c", where) == oracle.count("c", where)
                found, truth = (backend.search("c", query, 5, where=where)[0] for backend in both)
                assert [hit.id for hit in found] == [hit.id for hit in truth]


def test_a_write_is_judged_alone(faiss: FaissBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    faiss.create(CollectionSpec("c", DIM))
    rng = random.Random(2)
    faiss.upsert("c", [made(i, rng) for i in range(300)])
    where = Compare("modality", "eq", "image")
    before = faiss.count("c", where)
    faiss.facets("c", ["n"], where=where)

    def refuse(*_: object) -> None:
        raise AssertionError("the whole collection was read")

    monkeypatch.setattr(selections, "select", refuse)
    monkeypatch.setattr(columns, "_read", refuse)
    faiss.upsert("c", [Record("new", np.ones(DIM, np.float32), "image", metadata={"n": "of its own"})])
    assert faiss.count("c", where) == before + 1
    assert ("of its own", 1) in faiss.facets("c", ["n"], where=where, top=20)["n"].counts
    faiss.delete("c", ids=["new"])
    assert faiss.count("c", where) == before
    assert "of its own" not in dict(faiss.facets("c", ["n"], where=where, top=20)["n"].counts)


def test_a_field_of_very_many_values_is_counted_and_not_kept(
    faiss: FaissBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "MOST_VALUES", 20)
    faiss.create(CollectionSpec("c", DIM))
    faiss.upsert("c", [Record(f"r{i}", NO_VECTOR, metadata={"name": f"n{i}", "few": i % 3}) for i in range(50)])
    found = faiss.facets("c", ["name", "few"], top=2)
    assert (found["name"].counts, found["name"].more) == ((("n0", 1), ("n1", 1)), 48)
    assert found["few"].counts == ((0, 17), (1, 17))
    snapshot = faiss._find("c")._snapshot
    assert snapshot is not None
    assert snapshot.columns.get("name") is None
    assert snapshot.columns.get("few") is not None


def graph_of(backend: FaissBackend) -> Path:
    (graph,) = (backend.folder / "c").glob("graph-*")
    return graph


def test_a_flush_after_a_few_writes_leaves_the_graph_and_one_after_many_renews_it(faiss: FaissBackend) -> None:
    vectors, queries = clustered(3_000, 16, seed=3, queries=10)
    faiss.create(CollectionSpec("c", 16, index=IndexSpec("hnsw")))
    faiss.upsert("c", [Record(f"r{i}", vectors[i]) for i in range(2_000)])
    faiss.flush("c")
    first = graph_of(faiss)
    faiss.upsert("c", [Record("near", queries[0])])
    faiss.flush("c")
    assert graph_of(faiss) == first
    assert faiss.search("c", queries[:1], 1, effort=0.1)[0][0].id == "near"
    faiss.upsert("c", [Record(f"r{i}", vectors[i]) for i in range(2_000, 3_000)])
    faiss.flush("c")
    assert graph_of(faiss) != first
    assert faiss.search("c", queries[:1], 1, effort=0.1)[0][0].id == "near"


def description_of(backend: FaissBackend) -> IndexFile:
    backend.search("c", np.ones((1, 16), np.float32), 1)
    snapshot = backend._find("c")._snapshot
    assert snapshot is not None
    assert snapshot.index is not None
    return snapshot.index.description


def test_what_was_measured_stays_with_a_graph_that_has_grown_a_little(faiss: FaissBackend) -> None:
    vectors, _ = clustered(3_600, 16, seed=3, queries=1)
    faiss.create(CollectionSpec("c", 16, index=IndexSpec("hnsw")))
    faiss.upsert("c", [Record(f"r{i}", vectors[i]) for i in range(3_000)])
    faiss.flush("c")
    before = description_of(faiss)
    assert before.visits != VISITS
    faiss.upsert("c", [Record(f"r{i}", vectors[i]) for i in range(3_000, 3_600)])
    faiss.flush("c")
    after = description_of(faiss)
    assert (before.covered, after.covered) == (3_000, 3_600)
    assert (after.widths, after.measured, after.visits) == (before.widths, before.measured, before.visits)


def test_a_hard_collection_is_searched_wider_and_an_easy_one_is_not(faiss: FaissBackend) -> None:
    rng = np.random.default_rng(4)
    crowded, queries = clustered(6_000, 256, seed=4, queries=60)
    spread = rng.standard_normal((6_000, 4)).astype(np.float32) @ rng.standard_normal((4, 256)).astype(np.float32)
    widths = {}
    for name, vectors in (("crowded", crowded), ("spread", spread)):
        # Few neighbours a node, so that a small collection is as hard as a large one.
        index = IndexSpec("hnsw", params={"m": 4, "ef_construction": 16})
        faiss.create(CollectionSpec(name, 256, index=index))
        faiss.upsert(name, [Record(f"r{i}", vectors[i]) for i in range(6_000)])
        faiss.flush(name)
        faiss.search(name, queries[:1], 1)
        snapshot = faiss._find(name)._snapshot
        assert snapshot is not None
        assert snapshot.index is not None
        widths[name] = snapshot.index.description.widths
    assert widths["spread"][0] < widths["crowded"][0]
    truth = faiss.search("crowded", queries, 10, effort=1)
    found = faiss.search("crowded", queries, 10)
    shares = [len({h.id for h in a} & {h.id for h in b}) / 10 for a, b in zip(found, truth, strict=True)]
    assert np.mean(shares) >= 0.95


def test_an_index_that_a_later_version_says_more_of_is_read(faiss: FaissBackend) -> None:
    vectors, _ = clustered(2_000, 16, seed=5, queries=1)
    faiss.create(CollectionSpec("c", 16, index=IndexSpec("hnsw")))
    faiss.upsert("c", [Record(f"r{i}", vectors[i]) for i in range(2_000)])
    faiss.flush("c")
    before = description_of(faiss)
    with faiss._find("c").connections.transaction("IMMEDIATE") as connection:
        text = "json_set(index_file, '$.unknown', 1)"
        connection.execute(f"UPDATE state SET version = version + 1, index_file = {text}")
    assert description_of(faiss).to_json() == before.to_json()


def test_an_index_of_an_earlier_version_is_measured_by_the_next_flush(faiss: FaissBackend) -> None:
    vectors, _ = clustered(2_000, 16, seed=5, queries=1)
    faiss.create(CollectionSpec("c", 16, index=IndexSpec("hnsw")))
    faiss.upsert("c", [Record(f"r{i}", vectors[i]) for i in range(2_000)])
    faiss.flush("c")
    graph, handle = graph_of(faiss), faiss._find("c")
    with handle.connections.transaction("IMMEDIATE") as connection:
        text = "json_remove(index_file, '$.widths', '$.measured')"
        connection.execute(f"UPDATE state SET version = version + 1, index_file = {text}")
    faiss.flush("c")
    faiss.search("c", vectors[:1], 1)
    snapshot = handle._snapshot
    assert snapshot is not None
    assert snapshot.index is not None
    assert len(snapshot.index.description.widths) == len(calibration.DEPTHS)
    assert graph_of(faiss) == graph
