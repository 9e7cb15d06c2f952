"""Records without a vector, engine by engine: how they are stored, and collections that were made before them."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import connect
from backends.base import NO_VECTOR, Backend, CollectionSpec, Compare, IndexSpec, Record
from backends.conformance import Twin
from backends.conformance.samples import clustered, some, vectors
from backends.milvus.records import placeholder
from backends.pgvector.backend import PostgresBackend
from backends.pgvector.connection import Connection
from backends.pgvector.embedded import EmbeddedPostgresBackend
from backends.weaviate.backend import WeaviateBackend
from backends.weaviate.connection import WeaviateServer
from tests.support import milvus_server, weaviate_server

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


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresBackend]:
    with (
        tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgresBackend.connect(f"pgvector-embedded://{folder}/db") as backend,
    ):
        yield backend


def sql(backend: PostgresBackend, statement: str) -> list[tuple[Any, ...]]:
    def work(connection: Connection) -> list[tuple[Any, ...]]:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []

    return backend._database.run(work)


def table_of(backend: PostgresBackend) -> str:
    ((number,),) = sql(backend, "SELECT number FROM sightline.collections WHERE name = 'c'")
    return f"sightline.c{number}"


@pytest.mark.server
def test_postgresql_tables_from_before_take_them(postgres: PostgresBackend) -> None:
    filled(postgres)
    sql(postgres, f"ALTER TABLE {table_of(postgres)} ALTER COLUMN vector SET NOT NULL")
    postgres.upsert("c", some(3, prefix="more"))
    columns = f"SELECT attnotnull FROM pg_attribute WHERE attrelid = '{table_of(postgres)}'::regclass"
    assert sql(postgres, f"{columns} AND attname = 'vector'") == [(True,)], "not before the first need"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda prefix: postgres.upsert("c", bare(some(5, prefix=prefix))), ("x", "y")))
    postgres.upsert("c", bare(some(2)))
    assert (postgres.count("c"), len(found(postgres))) == (43, 31)
    assert sql(postgres, f"SELECT count(*) FROM {table_of(postgres)} WHERE vector IS NULL") == [(12,)]
    postgres.drop("c")


@pytest.mark.server
@pytest.mark.parametrize("quantization", ["none", "half"])
def test_postgresql_searches_its_graph_among_those_with_vectors(postgres: PostgresBackend, quantization: str) -> None:
    rows = clustered(3_000, 32, seed=1)
    twin = Twin(postgres, CollectionSpec("c", 32, index=IndexSpec("hnsw", quantization)))  # type: ignore[arg-type]
    twin.upsert(Record(f"r{i}", rows[i] if i % 3 else NO_VECTOR, metadata={"i": i}) for i in range(3_000))
    postgres.flush("c")
    assert not postgres.search("c", rows[:1], 5)[0][0].exact
    for where in (None, Compare("i", "lt", 2_000), Compare("i", "lt", 30)):
        twin.same_hits(rows[:40], 10, where)
    postgres.drop("c")


@pytest.mark.parametrize("index", ["auto", "hnsw", "ivf"])
def test_milvus_handles_that_have_not_met_one_leave_them_out(tmp_path: Path, index: str) -> None:
    """Each handle searches without a filter until a search meets a record without a vector."""
    url = f"milvus-lite://{tmp_path}"
    with connect(url) as writer, connect(url) as reader:
        twin = Twin(writer, CollectionSpec("c", DIM, index=IndexSpec(index)))  # type: ignore[arg-type]
        twin.upsert(some(60))
        twin.backend = reader
        twin.same_hits(vectors(3, DIM), 10)
        writer.upsert("c", bare(some(60, prefix="b")))
        twin.oracle.upsert("c", bare(some(60, prefix="b")))
        for k in (1, 10, 60, 200):
            twin.same_hits(vectors(5, DIM), k)
            twin.same_hits(vectors(5, DIM), k, Compare("lang", "eq", "en"))
        twin.delete(ids=[r.id for r in some(60, prefix="b")])
        reader.flush("c")
        twin.same_hits(vectors(5, DIM), 100)


def test_milvus_placeholders_differ_and_are_never_read(tmp_path: Path) -> None:
    one, other = placeholder("a", 64), placeholder("b", 64)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)
    assert abs(float(one @ other)) < 0.6
    np.testing.assert_array_equal(one, placeholder("a", 64))
    with filled(connect(f"milvus-lite://{tmp_path}")) as backend:
        backend.upsert("c", bare(some(5, prefix="b")))
        (record,) = backend.get("c", ["b00001"], with_vectors=True)
        assert (record.vector.shape, record.modality) == ((0,), "image")  # type: ignore[union-attr]
        (hit,) = backend.search("c", placeholder("b00001", DIM)[None], 1)[0]
        assert hit.id.startswith("r")
        for modality in ("image", "text"):
            where = Compare("modality", "eq", modality)
            assert backend.count("c", where) == sum(r.modality == modality for r in some(30) + some(5))


@pytest.mark.server("milvus")
def test_a_milvus_server_keeps_the_encoder_when_it_is_killed() -> None:
    name = "killed_after_set_encoder"
    with connect(milvus_server.url()) as backend:
        backend.create(CollectionSpec(name, DIM, encoder="first"))
        backend.upsert(name, [*some(5), *bare(some(5, prefix="b"))])
        backend.set_encoder(name, "second")
    milvus_server.kill()
    with connect(milvus_server.url()) as backend:
        assert backend.describe(name) == CollectionSpec(name, DIM, encoder="second")
        assert (backend.count(name), len(backend.search(name, vectors(1, DIM), 20)[0])) == (10, 5)
        backend.drop(name)


@pytest.mark.server("weaviate")
def test_weaviate_does_not_take_them_for_lost_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that no search finds are indexed anew, unless they have no vector."""
    name = "vectorless"
    with WeaviateBackend.connect(weaviate_server.server().url) as backend:
        backend.create(CollectionSpec(name, DIM))
        backend.upsert(name, some(20) + bare(some(20, prefix="b")))
        patched: list[str] = []
        rest = WeaviateServer.rest

        def spied(self: WeaviateServer, method: str, path: str, *arguments: Any, **options: Any) -> Any:
            patched.append(path) if path.startswith("/objects/") else None
            return rest(self, method, path, *arguments, **options)

        monkeypatch.setattr(WeaviateServer, "rest", spied)
        for where in (None, Compare("n", "lt", 5)):
            assert len(backend.search(name, vectors(1, DIM), 30, where=where)[0]) == (20 if where is None else 5)
        backend.flush(name)
        assert patched == []
        backend.drop(name)


@pytest.mark.server("weaviate")
def test_weaviate_sets_the_encoder_while_others_add_fields() -> None:
    name = "encoder_and_fields"
    url = weaviate_server.server().url
    with connect(url) as backend, connect(url) as other:
        backend.create(CollectionSpec(name, DIM, encoder="0"))

        def add(i: int) -> None:
            other.upsert(name, [Record(f"r{i}", vectors(1, DIM)[0], metadata={f"field{i}": i})])

        with ThreadPoolExecutor(2) as pool:
            adding = [pool.submit(add, i) for i in range(8)]
            for i in range(1, 5):
                backend.set_encoder(name, str(i))
            for done in adding:
                done.result()
        assert backend.describe(name) == other.describe(name) == CollectionSpec(name, DIM, encoder="4")
        assert [backend.count(name, Compare(f"field{i}", "gte", i)) for i in range(8)] == [1] * 8
        backend.drop(name)
