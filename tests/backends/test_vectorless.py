"""Records without a vector, engine by engine: how they are stored, and collections that were made before them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np

from backends import connect
from backends.base import NO_VECTOR, Backend, CollectionSpec, Compare, Record
from backends.conformance.samples import some, vectors

DIM = 8


def bare(records: list[Record]) -> list[Record]:
    return [replace(record, vector=NO_VECTOR) for record in records]


def filled(backend: Backend, n: int = 30) -> Backend:
    backend.create(CollectionSpec("c", DIM))
    backend.upsert("c", some(n))
    return backend


def found(backend: Backend, k: int = 100) -> set[str]:
    return {hit.id for hit in backend.search("c", vectors(1, DIM), k)[0]}


def tables(place: Path) -> set[str]:
    connection = sqlite3.connect(place / "c" / "store.sqlite3")
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    return names


def test_faiss_keeps_them_out_of_the_vector_files(tmp_path: Path) -> None:
    with filled(connect(f"faiss://{tmp_path}")) as backend:
        assert "bare" not in tables(tmp_path), "a store without such records is as it always was"
        sizes = {path.name: path.stat().st_size for path in (tmp_path / "c").glob("vectors-*")}
        backend.upsert("c", bare(some(10, prefix="b")))
        assert {path.name: path.stat().st_size for path in (tmp_path / "c").glob("vectors-*")} == sizes
        assert (backend.count("c"), len(found(backend))) == (40, 30)


def test_faiss_readers_follow_through_deletes_and_compaction(tmp_path: Path) -> None:
    with filled(connect(f"faiss://{tmp_path}")) as writer, connect(f"faiss://{tmp_path}") as reader:

        def agree() -> None:
            everything = [r.id for page in writer.scan("c") for r in page.records if not r.has_vector]
            assert [r.id for page in reader.scan("c") for r in page.records if not r.has_vector] == everything
            for where in (Compare("n", "lt", 5), Compare("lang", "eq", "en")):
                assert reader.count("c", where) == writer.count("c", where)
            assert reader.count("c") == writer.count("c")
            assert found(reader) == found(writer)

        for i in range(4):
            writer.upsert("c", bare(some(10, prefix=f"b{i}")) + some(5, prefix=f"v{i}", seed=i))
            agree()
            writer.delete("c", ids=[f"b{i}{j:05}" for j in range(0, 10, 2)] + [f"v{i}00000"])
            agree()
        writer.upsert("c", bare(some(3)))
        agree()
        assert (writer.count("c"), len(found(writer))) == (30 + 4 * (5 + 4), 30 - 3 + 4 * 4)
        writer.flush("c")
        agree()
        connection = sqlite3.connect(tmp_path / "c" / "store.sqlite3")
        assert connection.execute("SELECT count(*) FROM bare").fetchone() == (4 * 5 + 3,)
        assert connection.execute("SELECT count(*) FROM dead").fetchone() == (0,)
        connection.close()
        writer.delete("c", where=Compare("n", "gte", 0))
        agree()
        assert writer.count("c") == 0


def test_faiss_builds_its_graph_without_them(tmp_path: Path) -> None:
    n = 10_500
    rows = np.random.default_rng(1).standard_normal((n, DIM)).astype(np.float32)
    with connect(f"faiss://{tmp_path}") as backend:
        backend.create(CollectionSpec("c", DIM))
        backend.upsert("c", [Record(f"r{i}", rows[i] if i % 20 else NO_VECTOR) for i in range(n)])
        backend.flush("c")
        assert not list((tmp_path / "c").glob("graph-*")), "9,975 vectors are scanned"
        backend.upsert("c", [Record(f"r{i}", rows[i]) for i in range(0, n, 20)])
        backend.flush("c")
        assert list((tmp_path / "c").glob("graph-*"))
        (hits,) = backend.search("c", rows[:1], 3)
        assert (hits[0].id, hits[0].exact) == ("r0", False)
