"""What is specific to faiss://: its files, locks, indexes and the ways they can break."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from backends import connect
from backends.base import (
    And,
    Backend,
    BackendError,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    Corrupt,
    IndexSpec,
    Not,
    Or,
    Record,
    Unavailable,
    Unsupported,
    Where,
)
from backends.faiss.backend import FaissBackend
from backends.faiss.index import plan_index
from backends.faiss.records import MAX_IDLE, Connections, translate_errors

DIM = 24


def rows(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, dim)).astype(np.float32)
    found = centres[rng.integers(0, 20, n)] + rng.standard_normal((n, dim)).astype(np.float32)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def records(n: int, start: int = 0, seed: int = 0) -> list[Record]:
    vectors = rows(n, seed)
    return [
        Record(
            f"r{start + i:05}", vectors[i], text=f"word{i % 5} shared", metadata={"n": start + i, "tags": ["a", "b"]}
        )
        for i in range(n)
    ]


def url_of(folder: Path) -> str:
    return f"faiss://{folder.as_posix()}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "a folder"


def filled(place: Path, n: int = 300, index: IndexSpec | None = None, metric: str = "cosine") -> FaissBackend:
    backend = FaissBackend.connect(url_of(place).replace(" ", "%20"))
    backend.create(CollectionSpec("c", DIM, metric, "enc", index or IndexSpec()))  # type: ignore[arg-type]
    backend.upsert("c", records(n))
    return backend


def oracle_of(backend: Backend, metric: str = "cosine") -> Backend:
    oracle = connect("exact://")
    oracle.create(CollectionSpec("c", DIM, metric))  # type: ignore[arg-type]
    oracle.upsert("c", [record for page in backend.scan("c") for record in page.records])
    return oracle


def assert_same(
    backend: Backend, queries: np.ndarray, k: int, where: Where | None = None, metric: str = "cosine"
) -> None:
    expected = oracle_of(backend, metric).search("c", queries, k, where=where)
    for hits, truth in zip(backend.search("c", queries, k, where=where), expected, strict=True):
        assert [hit.id for hit in hits] == [hit.id for hit in truth]
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in truth], rtol=1e-9)


def recall(backend: Backend, queries: np.ndarray, **options: float) -> tuple[float, bool]:
    truth = backend.search("c", queries, 10, effort=1)
    found = backend.search("c", queries, 10, **options)
    shares = [len({h.id for h in a} & {h.id for h in b}) / 10 for a, b in zip(found, truth, strict=True)]
    return float(np.mean(shares)), any(hit.exact for hits in found for hit in hits)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("faiss://", "does not name a folder"),
        ("faiss:///", "does not name a folder"),
        ("faiss://relative/dir", "faiss://./relative"),
        ("faiss:///x?fast=1", "takes no options"),
        ("faiss:///x#y", "%23"),
        ("faiss:///x%00y", "NUL"),
        ("qdrant:///x", "no faiss:// URL"),
    ],
)
def test_urls_of_another_form_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaissBackend.connect(url)


def test_urls_are_relative_or_absolute_and_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with FaissBackend.connect("faiss://./a%20b/c%23d") as backend:
        assert backend.collections() == []
        assert not (tmp_path / "a b").exists(), "reading makes no folder"
        backend.create(CollectionSpec("c", 3))
    with FaissBackend.connect(url_of(tmp_path / "a b" / "c%23d")) as backend:
        assert backend.collections() == ["c"]
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file is a file"):
        FaissBackend.connect(url_of(tmp_path / "file"))


def test_a_second_writer_learns_the_lock_file_and_the_holder(place: Path) -> None:
    script = (
        "import sys; from backends import connect; from backends.base import CollectionSpec;"
        "b = connect(sys.argv[1]); b.create(CollectionSpec('c', 3)); print('held', flush=True); sys.stdin.read()"
    )
    url = url_of(place).replace(" ", "%20")
    holder = subprocess.Popen(
        [sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        with connect(url) as backend:
            with pytest.raises(Unavailable) as told:
                backend.upsert("c", [Record("a", np.ones(3, np.float32))])
            assert str(place / "sightline.lock") in str(told.value)
            assert f"process {holder.pid}" in str(told.value)
            assert backend.count("c") == 0
            holder.kill()
            holder.wait(timeout=60)
            backend.upsert("c", [Record("a", np.ones(3, np.float32))])
            with connect(url) as other, pytest.raises(Unavailable, match=f"this process .pid {os.getpid()}"):
                other.drop("c")
    finally:
        holder.kill()
        holder.communicate(timeout=60)


def test_an_open_reader_sees_writes_flushes_and_compaction(place: Path) -> None:
    with (
        filled(place, 400, IndexSpec("hnsw")) as writer,
        FaissBackend.connect(url_of(place).replace(" ", "%20")) as reader,
    ):
        probe = rows(3, seed=9)
        for change in (
            lambda: writer.flush("c"),
            lambda: writer.upsert("c", records(50, 380, seed=5)),
            lambda: writer.delete("c", where=Compare("n", "lt", 200)),
            lambda: writer.flush("c"),
            lambda: writer.upsert("c", records(5, 1000, seed=6)),
        ):
            reader.search("c", probe, 7)
            change()
            assert reader.count("c") == writer.count("c")
            assert reader.search("c", probe, 7, effort=1) == writer.search("c", probe, 7, effort=1)
            assert_same(reader, probe, 500)
        assert reader.get("c", ["r00399"], with_vectors=True)[0].vector is not None
        writer.drop("c")
        with pytest.raises(CollectionNotFound):
            reader.search("c", probe, 7)
        assert reader.collections() == []
        writer.create(CollectionSpec("c", 3))
        assert reader.describe("c").dim == 3
        assert reader.search("c", np.ones((1, 3)), 7) == [[]]


def test_flush_gives_space_back(place: Path) -> None:
    with filled(place, 2_000, IndexSpec("hnsw")) as backend:
        backend.flush("c")
        folder = place / "c"
        before = {path.name: path.stat().st_size for path in folder.iterdir()}
        assert before["vectors-1.f32"] == 2_000 * DIM * 4
        graph = next(size for name, size in before.items() if name.startswith("graph-"))
        assert graph < 2_000 * (4 * 2 * 32 + 40), "the graph is stored without the vectors"
        assert backend.delete("c", where=Compare("n", "gte", 300)) == 1_700
        backend.flush("c")
        after = {path.name: path.stat().st_size for path in folder.iterdir()}
        assert after["vectors-2.f32"] == 300 * DIM * 4
        assert "vectors-1.f32" not in after
        assert after["store.sqlite3"] < before["store.sqlite3"] / 3
        assert sum(after.values()) < sum(before.values()) / 3
        assert_same(backend, rows(3, seed=9), 20)
        backend.delete("c", ids=[f"r{i:05}" for i in range(300)])
        backend.flush("c")
        assert backend.search("c", rows(1), 5) == [[]]
        backend.upsert("c", records(4))
        assert_same(backend, rows(3, seed=9), 20)


def test_a_torn_tail_is_overwritten(place: Path) -> None:
    with filled(place, 20) as backend:
        for name in ("vectors-1.f32", "rows-1.i64"):
            with (place / "c" / name).open("ab") as file:
                file.write(b"\x7f" * 1001)
        assert_same(backend, rows(2, seed=3), 30)
        backend.upsert("c", records(15, 15, seed=4))
        assert_same(backend, rows(2, seed=3), 50)
        backend.flush("c")
        assert_same(backend, rows(2, seed=3), 50)


def test_a_write_that_the_disk_refuses_stores_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with filled(place, 20) as backend:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(Unavailable, match="No space left"):
                backend.upsert("c", records(9, 15, seed=4))
        assert backend.count("c") == 20
        assert_same(backend, rows(2, seed=3), 30)
        backend.upsert("c", records(9, 15, seed=4))
        assert backend.count("c") == 24
        assert_same(backend, rows(2, seed=3), 30)


def test_damage_is_reported_with_the_file(place: Path) -> None:
    filled(place, 50, IndexSpec("hnsw")).close()
    folder = place / "c"
    store, vectors = folder / "store.sqlite3", folder / "vectors-1.f32"
    url = url_of(place).replace(" ", "%20")

    def assert_corrupt(path: Path) -> None:
        with connect(url) as backend, pytest.raises(Corrupt) as told:
            backend.search("c", rows(1), 3)
        assert str(path) in str(told.value)

    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-4])
    assert_corrupt(vectors)
    vectors.unlink()
    assert_corrupt(vectors)
    vectors.write_bytes(whole)
    database = store.read_bytes()
    for damage, seen in (
        ("UPDATE state SET format = 9", "format 9"),
        ("PRAGMA application_id = 7", "application id"),
        ("UPDATE state SET spec = '{}'", "description"),
        ("DELETE FROM state", "format"),
        ("UPDATE items SET metadata = 'x'", "metadata"),
        ("UPDATE items SET metadata = '[1]'", "metadata"),
        ("UPDATE items SET metadata = '{} x'", "metadata"),
    ):
        connection = sqlite3.connect(store, isolation_level=None)
        connection.execute(damage)
        connection.close()
        with connect(url) as backend, pytest.raises(Corrupt, match=seen) as told:
            backend.search("c", rows(1), 3)
        assert str(store) in str(told.value)
        store.write_bytes(database)
    for content in (b"not a database at all" * 400, database[:4096] + os.urandom(8192)):
        store.write_bytes(content)
        assert_corrupt(store)
    with connect(url) as backend:
        assert backend.collections() == ["c"]
        backend.drop("c")
        assert backend.collections() == []


def test_a_damaged_index_is_reported_and_a_missing_one_rebuilt(place: Path) -> None:
    with filled(place, 1_000, IndexSpec("hnsw")) as backend:
        backend.flush("c")
    (graph,) = (place / "c").glob("graph-*")
    damaged = bytearray(graph.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    graph.write_bytes(damaged)
    url = url_of(place).replace(" ", "%20")
    with connect(url) as backend, pytest.raises(Corrupt, match="flush") as told:
        backend.search("c", rows(1), 3)
    assert str(graph) in str(told.value)
    graph.unlink()
    with connect(url) as backend:
        assert recall(backend, rows(5, seed=9), effort=0.01) == (1.0, True)
        backend.flush("c")
        assert recall(backend, rows(5, seed=9), effort=0.01)[1] is False


def test_leftovers_of_a_killed_writer_go(place: Path) -> None:
    filled(place, 5).close()
    for name in (".new-x", ".dropped-y-1"):
        (place / name).mkdir()
        (place / name / "store.sqlite3").touch()
    connection = sqlite3.connect(place / "c" / "store.sqlite3", isolation_level=None)
    connection.execute("UPDATE state SET dropped = 1, version = version + 1")
    connection.close()
    with FaissBackend.connect(url_of(place).replace(" ", "%20")) as backend:
        assert backend.collections() == []
        with pytest.raises(CollectionNotFound):
            backend.count("c")
        backend.create(CollectionSpec("c", DIM))
        assert backend.count("c") == 0
        assert {path.name for path in place.iterdir()} == {"c", "sightline.lock", "sightline.pid"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "quantization", "metric"),
    [
        ("hnsw", "none", "cosine"),
        ("hnsw", "none", "l2"),
        ("hnsw", "half", "dot"),
        ("hnsw", "int8", "l2"),
        ("ivf", "none", "l2"),
        ("ivf", "half", "cosine"),
        ("ivf", "int8", "dot"),
        ("flat", "none", "cosine"),
        ("flat", "half", "l2"),
        ("flat", "int8", "cosine"),
    ],
)
def test_every_index_is_built_searched_grown_and_replaced(
    kind: str, quantization: str, metric: str, place: Path
) -> None:
    queries = rows(20, seed=0)[:20] + np.float32(0.05)
    with filled(place, 1_500, IndexSpec(kind, quantization), metric) as backend:  # type: ignore[arg-type]
        scanned = kind == "flat" and quantization == "none"
        backend.flush("c")
        found, exact = recall(backend, queries, effort=0.15)
        assert exact is scanned
        assert found >= 0.85
        backend.upsert("c", records(100, 1_450, seed=7))
        backend.delete("c", where=Compare("n", "lt", 100))
        assert recall(backend, queries, effort=0.15)[0] >= 0.85
        newest = backend.get("c", ["r01549"], with_vectors=True)[0]
        assert newest.vector is not None
        assert "r01549" in {hit.id for hit in backend.search("c", newest.vector[None], 3, effort=0.15)[0]}
        backend.flush("c")
        assert recall(backend, queries, effort=0.15)[0] >= 0.85
        assert recall(backend, queries)[0] >= 0.95
        assert_same(backend, queries, 1_500, metric=metric)
        graphs = list((place / "c").glob("graph-*"))
        assert len(graphs) == (0 if scanned else 1)


def test_index_by_size_and_by_spec() -> None:
    assert plan_index(IndexSpec(), 10_000) is None
    assert plan_index(IndexSpec(), 10_001) == ("hnsw", "none")
    assert plan_index(IndexSpec(), 1_000_001) == ("hnsw", "int8")
    assert plan_index(IndexSpec(quantization="half"), 2_000_000) == ("hnsw", "half")
    assert plan_index(IndexSpec("flat"), 10**7) is None
    assert plan_index(IndexSpec("ivf", "int8"), 500) == ("ivf", "int8")


def test_binary_quantization_is_refused(place: Path) -> None:
    with FaissBackend.connect(url_of(place).replace(" ", "%20")) as backend, pytest.raises(Unsupported, match="binary"):
        backend.create(CollectionSpec("c", DIM, index=IndexSpec(quantization="binary")))


def test_index_parameters_reach_faiss(place: Path) -> None:
    with filled(place, 500, IndexSpec("ivf", params={"nlist": 7})) as backend:
        backend.flush("c")
        backend.search("c", rows(1), 1)
        index = backend._find("c")._snapshot.index._index  # type: ignore[union-attr]
        assert index.nlist == 7
    with FaissBackend.connect(url_of(place / "second").replace(" ", "%20")) as backend:
        backend.create(CollectionSpec("c", DIM, index=IndexSpec("hnsw", params={"m": 5, "ef_construction": 17})))
        backend.upsert("c", records(500))
        backend.flush("c")
        backend.search("c", rows(1), 1)
        hnsw = backend._find("c")._snapshot.index._index.hnsw  # type: ignore[union-attr]
        assert (hnsw.nb_neighbors(1), hnsw.efConstruction) == (5, 17)


def test_ties_at_the_cut_go_to_the_smallest_ids(place: Path) -> None:
    with filled(place, 40) as backend:
        vector = rows(1, seed=8)[0]
        ids = [f"t{i:03}" for i in np.random.default_rng(2).permutation(700)]
        backend.upsert("c", [Record(i, vector) for i in ids])
        for k in (1, 3, 699):
            (hits,) = backend.search("c", vector[None], k)
            assert [hit.id for hit in hits] == sorted(ids)[:k]
            assert all(hit.exact and hit.score <= 1.0 for hit in hits)


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_scores_beyond_float32_equal_the_oracle(metric: str, scale: float, place: Path) -> None:
    with filled(place, 0, metric=metric) as backend:
        vectors = (rows(60, seed=2).astype(np.float64) * scale).astype(np.float32)
        backend.upsert("c", [Record(f"v{i:02}", vector) for i, vector in enumerate(vectors)])
        assert_same(backend, vectors[:3], 5, metric=metric)


def test_a_filter_of_4096_comparisons_and_one_of_great_depth(place: Path) -> None:
    with filled(place, 300) as backend:
        wide = Or(tuple(Compare("n", "eq", i) for i in range(100, 4_196)))
        assert backend.count("c", wide) == 200
        assert backend.count("c", Compare("n", "in", tuple(range(-5_000, 50)))) == 50
        deep: Where = Compare("n", "lt", 10)
        for _ in range(16):
            deep = Not(And((deep, Compare("tags", "contains", "a"))))
        assert backend.count("c", deep) == 10
        assert_same(backend, rows(2, seed=5), 7, deep)


def test_numbers_compare_exactly_beyond_two_to_the_53(place: Path) -> None:
    big = 2**53
    values = [big, big + 1, float(big), -(2**63), 2**63 - 1, 0.1, -0.0, 0]
    with filled(place, 0) as backend:
        backend.upsert("c", [Record(f"v{i}", rows(1)[0], metadata={"x": v}) for i, v in enumerate(values)])
        oracle = oracle_of(backend)
        for value in values:
            for op in ("eq", "ne", "gt", "lte"):
                where = Compare("x", op, value)  # type: ignore[arg-type]
                assert backend.count("c", where) == oracle.count("c", where), where


def test_true_and_one_are_different_filters_in_the_cache(place: Path) -> None:
    with filled(place, 0) as backend:
        backend.upsert("c", [Record("i", rows(1)[0], metadata={"x": 1}), Record("b", rows(1)[0], metadata={"x": True})])
        for value, expected in ((1, "i"), (True, "b"), (1.0, "i")):
            (hits,) = backend.search("c", rows(1), 5, where=Compare("x", "eq", value))
            assert [hit.id for hit in hits] == [expected]


def test_keyword_search_takes_long_and_hostile_queries(place: Path) -> None:
    with filled(place, 30) as backend:
        long = " ".join(f"w{i}" for i in range(3_000)) + " word3"
        assert {hit.id for hit in backend.search_text("c", long, 50)} == {f"r{i:05}" for i in range(3, 30, 5)}
        for query in ('"shared', "shared*", "NOT shared", "text:shared", "^shared", "(shared", "shared NEAR("):
            assert len(backend.search_text("c", query, 50)) == 30
        assert backend.search_text("c", '" * ( )', 5) == []
        assert [h.id for h in backend.search_text("c", "shared", 3)] == ["r00000", "r00001", "r00002"]


def test_searches_go_on_while_an_index_is_built(place: Path) -> None:
    with filled(place, 2_000, IndexSpec("hnsw")) as backend:
        probe = rows(1, seed=3)
        expected = [hit.id for hit in backend.search("c", probe, 5, effort=1)[0]]
        failures: list[object] = []
        done = threading.Event()
        searched = 0

        def search() -> None:
            nonlocal searched
            while not done.is_set():
                found = [hit.id for hit in backend.search("c", probe, 5)[0]]
                searched += 1
                if len(set(found) & set(expected)) < 4:
                    failures.append(found)

        thread = threading.Thread(target=search)
        thread.start()
        backend.flush("c")
        done.set()
        thread.join(timeout=60)
        assert not failures
        assert searched > 0


def test_vectors_take_their_bytes_on_disk_and_no_more(place: Path) -> None:
    with filled(place, 3_000, IndexSpec("hnsw")) as backend:
        backend.flush("c")
        assert (backend.folder / "c" / "vectors-1.f32").stat().st_size == 3_000 * DIM * 4


def test_idle_connections_are_bounded(tmp_path: Path) -> None:
    with connect(f"faiss://{tmp_path}") as store:
        store.create(CollectionSpec("c", 4))
        connections = Connections(next(tmp_path.rglob("store.sqlite3")))
        taken = [connections.take() for _ in range(20)]
        for connection in taken:
            connections.give(connection)
        assert len(connections._idle) == MAX_IDLE
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            taken[-1].execute("SELECT 1")
        connections.close()


def test_what_sqlite_refuses_is_no_outage(tmp_path):
    with sqlite3.connect(":memory:") as connection:
        for statement, values in (
            ("SELECT " + "+".join(["?"] * 40_000), [1] * 40_000),
            ("SELECT " + "(" * 2_000 + "1" + ")" * 2_000, []),
            ("SELECT zeroblob(1 << 40)", []),
        ):
            with pytest.raises(BackendError, match="refuses") as caught, translate_errors(tmp_path):
                connection.execute(statement, values).fetchall()
            assert not isinstance(caught.value, (Unavailable, Corrupt))
        with pytest.raises(Unavailable), translate_errors(tmp_path):
            connection.execute("SELECT * FROM nothing")


def test_a_folder_that_is_no_collection_is_not_dropped(tmp_path: Path) -> None:
    (tmp_path / "Documents").mkdir()
    (tmp_path / "Documents" / "letter.txt").write_text("dear", encoding="utf-8")
    with connect(f"faiss://{tmp_path}") as store:
        store.create(CollectionSpec("c", 4))
        store.drop("Documents")
        assert store.collections() == ["c"]
    assert (tmp_path / "Documents" / "letter.txt").read_text(encoding="utf-8") == "dear"
