"""The conformance suite over pgvector, and what is particular to it: servers, processes, failures, plans."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psycopg
import pytest

from backends import connect
from backends.base import (
    And,
    BackendError,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    IndexSpec,
    Not,
    Or,
    Record,
    Unavailable,
    Unsupported,
    explain,
)
from backends.conformance import BackendSuite, Sizes, Twin
from backends.conformance.hard_data import hard_rows
from backends.conformance.samples import clustered, some, vectors
from backends.pgvector.backend import PostgresBackend
from backends.pgvector.connection import Connection, Database, parse_url
from backends.pgvector.dialect import WIDTHS, ef_search, probes
from backends.pgvector.filters import where_sql
from backends.pgvector.index import read_collection
from backends.pgvector.schema import prepare
from backends.pgvector.search import Searcher
from tests.support.old_words import age
from tests.support.postgres import PASSWORD, QUOTED, Server
from tests.support.postgres_suite import ServerSuite


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        made = Server(Path(folder))
        yield made
        # Nothing is to be kept: no checkpoint of all those databases.
        made.stop("immediate")


@pytest.fixture
def backend(server: Server) -> Iterator[PostgresBackend]:
    with PostgresBackend.connect(server.url(server.clean())) as opened:
        yield opened


@pytest.mark.server
class TestEmbedded(BackendSuite):
    # The same engine is tested at full size as a server.
    sizes = Sizes(hard=4_000)
    url = "pgvector-embedded:///{dir}"


@pytest.mark.server
class TestServer(ServerSuite):
    """PostgreSQL itself."""


def filled(backend: PostgresBackend, n: int = 30) -> Twin:
    twin = Twin(backend, CollectionSpec("photos", 8))
    twin.upsert(some(n))
    return twin


# Servers and credentials


@pytest.mark.server
def test_an_open_backend_survives_a_restart_of_its_server(server: Server, backend: PostgresBackend) -> None:
    twin = filled(backend)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: backend.count("photos"), range(30)))
    server.kill()
    server.start()
    twin.same_records()
    server.stop()
    server.start()
    twin.upsert(some(40, seed=2))
    twin.same_hits(vectors(2, 8), 20)


@pytest.mark.server
def test_a_server_that_is_away_is_named_in_time(server: Server) -> None:
    url = server.url(server.clean()) + "?connect_timeout=2"
    with PostgresBackend.connect(url) as backend:
        filled(backend)
        server.stop()
        try:
            started = time.monotonic()
            with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{server.port}.*running"):
                backend.count("photos")
            with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{server.port}.*running"):
                connect(url)
            assert time.monotonic() - started < 10
        finally:
            server.start()
        assert backend.count("photos") == 30


@pytest.mark.server
def test_wrong_credentials_are_said_without_the_password(server: Server) -> None:
    with pytest.raises(Unavailable, match="credentials") as caught:
        connect(server.url(server.clean(), password="s3cret"))
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://me:s3cret@[::1/x", "postgresql://me:s3cret@h/db?nonsense=1"])
def test_an_unreadable_url_is_refused_without_repeating_it(url: str) -> None:
    told = "option 1 of the URL is none of postgresql://; it has .*sslmode" if "nonsense" in url else "cannot be read"
    with pytest.raises(ValueError, match=told) as caught:
        connect(url)
    assert "s3cret" not in str(caught.value)


def test_the_address_shows_no_secret() -> None:
    conninfo, address = parse_url(f"postgresql://ann:{QUOTED}@db.example:5433/photos?sslmode=require")
    assert address == "postgresql://db.example:5433/photos"
    assert "sslmode=require" in conninfo
    assert "connect_timeout=10" in conninfo
    assert PASSWORD not in address


@pytest.mark.server
def test_an_administrator_s_first_connection_installs_the_extension(server: Server) -> None:
    with PostgresBackend.connect(server.admin_url(server.database(extension=False))) as backend:
        filled(backend).same_records()


@pytest.mark.server
def test_an_extension_in_a_schema_of_its_own_is_found(server: Server) -> None:
    name = server.database(extension=False)
    with server.admin(name) as connection:
        connection.execute('CREATE SCHEMA "My Extensions"; CREATE EXTENSION vector SCHEMA "My Extensions"')
        connection.execute('GRANT USAGE ON SCHEMA "My Extensions" TO PUBLIC')
    with PostgresBackend.connect(server.url(name)) as backend:
        twin = filled(backend)
        twin.same_records()
        twin.same_hits(vectors(2, 8), 5)


@pytest.mark.server
def test_a_user_without_rights_is_told_so(server: Server) -> None:
    with pytest.raises(Unavailable, match="ask an administrator for CREATE EXTENSION vector"):
        connect(server.url(server.database(extension=False)))
    name = server.database()
    with server.admin() as connection:
        connection.execute(f"ALTER DATABASE {name} OWNER TO postgres")
    with pytest.raises(BackendError, match=r"refuses this user.*administrator"):
        connect(server.url(name))


@pytest.mark.server
def test_a_database_that_is_not_utf8_is_refused(server: Server) -> None:
    with server.admin() as connection:
        connection.execute("CREATE DATABASE latin OWNER ann ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(Unavailable, match="UTF8"):
        connect(server.url("latin"))


# The schema


@pytest.mark.server
def test_two_processes_may_migrate_at_once(server: Server) -> None:
    name = server.database(extension=False)
    url = server.admin_url(name)
    barrier = threading.Barrier(6)

    def migrate(_: int) -> tuple[int, ...]:
        database = Database(*parse_url(url))
        barrier.wait()
        return prepare(database).version

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(migrate, range(6)))) == 1
    with server.admin(name) as connection:
        assert connection.execute("SELECT array_agg(version) FROM sightline.migrations").fetchone() == ([1, 2],)


@pytest.mark.server
def test_a_schema_of_a_newer_version_is_left_alone(server: Server) -> None:
    name = server.clean()
    PostgresBackend.connect(server.url(name)).close()
    with server.admin(name) as connection:
        connection.execute("INSERT INTO sightline.migrations (version) VALUES (99)")
    with pytest.raises(BackendError, match="upgrade Sightline"):
        connect(server.url(name))


@pytest.mark.server
def test_tables_of_others_are_neither_listed_nor_touched(server: Server) -> None:
    name = server.clean()
    with server.admin(name) as connection:
        connection.execute("DROP TABLE IF EXISTS photos, sightline_staging")
        connection.execute("CREATE TABLE photos (id int); INSERT INTO photos VALUES (1)")
        connection.execute("CREATE TABLE sightline_staging (id int); INSERT INTO sightline_staging VALUES (7)")
    with PostgresBackend.connect(server.url(name)) as backend:
        assert backend.collections() == []
        twin = filled(backend)
        twin.upsert(some(30, seed=4))
        twin.same_records()
        backend.drop("photos")
    with server.admin(name) as connection:
        assert connection.execute("SELECT id FROM photos").fetchall() == [(1,)]
        assert connection.execute("SELECT id FROM sightline_staging").fetchall() == [(7,)]


@pytest.mark.server
def test_a_collection_dropped_and_made_again_by_another_process(server: Server) -> None:
    url = server.url(server.clean())
    with PostgresBackend.connect(url) as mine, PostgresBackend.connect(url) as other:
        filled(mine)
        other.drop("photos")
        with pytest.raises(CollectionNotFound, match="photos"):
            mine.search("photos", np.ones((1, 8)), 3)
        filled(other, 5)
        assert mine.count("photos") == 5
        mine.upsert("photos", some(7))
        other.drop("photos")
        other.create(CollectionSpec("photos", 4))
        assert mine.search("photos", np.ones((1, 4)), 3) == [[]]


@pytest.mark.server
def test_a_collection_made_again_with_other_vectors_takes_no_old_ones(server: Server) -> None:
    url = server.url(server.clean())
    with PostgresBackend.connect(url) as mine, PostgresBackend.connect(url) as other:
        filled(mine)
        other.drop("photos")
        other.create(CollectionSpec("photos", 4))
        with pytest.raises(BackendError):
            mine.upsert("photos", some(3, 8))
        assert other.count("photos") == 0


# Full disk


@pytest.mark.server
def test_a_full_disk_is_said_and_stores_nothing(server: Server) -> None:
    name = server.clean()
    with PostgresBackend.connect(server.url(name)) as backend:
        twin = filled(backend)
        with server.admin(name) as connection:
            # PostgreSQL's own "no space left on device", on the way of every row that is called "last".
            connection.execute(
                "CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
                "$$ BEGIN COPY (SELECT repeat('x', 100000)) TO '/dev/full'; RETURN NEW; END $$"
            )
            connection.execute(
                "CREATE TRIGGER full_disk BEFORE INSERT ON sightline.c1 FOR EACH ROW "
                "WHEN (NEW.id = 'last') EXECUTE FUNCTION full_disk()"
            )
        for batch in (some(50, prefix="new"), some(50, seed=9)):
            with pytest.raises(BackendError, match=r"disk .* is full, nothing was stored"):
                backend.upsert("photos", [*batch, Record("last", np.ones(8, np.float32))])
        twin.same_records()
        twin.upsert(some(50, prefix="new"))
        twin.same_records()


# Indexes and plans


def scans_of(backend: PostgresBackend) -> int:
    """How often the vector index was used, by PostgreSQL's own count."""

    def ask(connection: Connection) -> int:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute("SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelname = 'c1_vector'").fetchone()
        return int(row[0]) if row else 0

    return backend._database.run(ask)


@pytest.mark.server
@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (IndexSpec("hnsw", params={"m": 8, "ef_construction": 40}), "hnsw (vector vector_ip_ops) WITH (m='8', ef_c"),
        (IndexSpec("ivf", params={"nlist": 7}), "ivfflat (vector vector_ip_ops) WITH (lists='7')"),
        (IndexSpec("hnsw", "half"), "::halfvec(16)) halfvec_ip_ops"),
        (IndexSpec("ivf", "half"), "ivfflat (((vector)::halfvec(16)) halfvec_ip_ops"),
        (IndexSpec("hnsw", "binary"), "::bit(16)) bit_hamming_ops"),
        (IndexSpec("ivf", "binary"), "ivfflat (((binary_quantize(vector))::bit(16)) bit_hamming_ops"),
        (IndexSpec("flat"), None),
        (IndexSpec("auto"), None),
    ],
)
def test_flush_builds_the_index_that_the_spec_asks_for(server: Server, index: IndexSpec, expected: str | None) -> None:
    name = server.clean()
    with PostgresBackend.connect(server.url(name)) as backend:
        backend.create(CollectionSpec("photos", 16, index=index))
        backend.upsert("photos", some(300, 16))
        backend.flush("photos")
        backend.flush("photos")
    with server.admin(name) as connection:
        found = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'c1_vector'").fetchall()
    if expected is None:
        assert found == []
    else:
        assert expected in str(found[0][0])


@pytest.mark.server
def test_l2_has_its_own_operators(server: Server) -> None:
    name = server.clean()
    with PostgresBackend.connect(server.url(name)) as backend:
        backend.create(CollectionSpec("photos", 16, "l2", index=IndexSpec("hnsw")))
        backend.upsert("photos", some(100, 16))
        backend.flush("photos")
    with server.admin(name) as connection:
        (found,) = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'c1_vector'").fetchone() or (
            "",
        )
    assert "vector_l2_ops" in str(found)


@pytest.mark.server
@pytest.mark.parametrize("quantization", ["none", "half", "binary"])
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_the_index_is_used_and_is_right(server: Server, kind: str, quantization: str) -> None:
    """The planner takes the index for the statement that is sent, and few records are missed."""
    name = server.clean()
    rows = clustered(3_000, 64, 3)
    with PostgresBackend.connect(server.url(name)) as backend:
        twin = Twin(backend, CollectionSpec("photos", 64, index=IndexSpec(kind, quantization)))  # type: ignore[arg-type]
        twin.upsert(Record(f"r{i:04}", rows[i], metadata={"n": i}) for i in range(len(rows)))
        backend.flush("photos")
        # PostgreSQL prefers to scan so few rows where more effort is asked for.
        twin.same_hits(rows[:40:2], 10, effort=0.2, recall=0.5)
        for where in (None, Compare("n", "lt", 2_000)):
            for hits in twin.same_hits(rows[:40:2] + 0.02, 10, where):
                assert not hits[0].exact
        hits = twin.same_hits(rows[:4], 10, effort=1.0, recall=1.0)
        assert all(hit.exact for found in hits for hit in found)
        rare = twin.same_hits(rows[:4], 10, Compare("n", "lt", 30), recall=1.0)
        assert all(hit.exact for found in rare for hit in found)
        assert scans_of(backend) > 0


@pytest.mark.server
def test_ivf_lists_follow_the_size(backend: PostgresBackend) -> None:
    twin = Twin(backend, CollectionSpec("photos", 8, index=IndexSpec("ivf")))
    lists = []
    for start, stop in ((0, 100), (100, 300), (300, 1_000)):
        twin.upsert(some(stop, prefix="r")[start:])
        backend.flush("photos")
        stored = backend._database.run(lambda connection: read_collection(connection, "photos"))
        lists.append(stored.lists)  # type: ignore[union-attr]
    assert lists == [10, 10, 31]
    twin.same_hits(vectors(5, 8), 10)


@pytest.mark.server
def test_vectors_too_long_for_an_index_of_floats(backend: PostgresBackend) -> None:
    for dim, kind, quantization, metric in (
        (3_000, "hnsw", "none", "dot"),
        (4_001, "hnsw", "half", "cosine"),
        (4_001, "ivf", "none", "cosine"),
        (16_001, "auto", "none", "cosine"),
    ):
        with pytest.raises(Unsupported, match="dimensions"):
            backend.create(CollectionSpec("long", dim, metric, index=IndexSpec(kind, quantization)))  # type: ignore[arg-type]
    assert backend.collections() == []
    twin = Twin(backend, CollectionSpec("long", 2_500, index=IndexSpec("hnsw")))
    twin.upsert(some(50, 2_500))
    backend.flush("long")
    twin.same_records()
    twin.same_hits(vectors(2, 2_500), 5)


@pytest.mark.server
@pytest.mark.parametrize(
    ("index", "metric"),
    [
        (IndexSpec("flat", "half"), "cosine"),
        (IndexSpec("hnsw", "binary"), "l2"),
        (IndexSpec("hnsw", params={"m": 101}), "cosine"),
        (IndexSpec("hnsw", params={"m": 16, "ef_construction": 20}), "cosine"),
        (IndexSpec("ivf", params={"nlist": 40_000}), "cosine"),
    ],
)
def test_what_pgvector_cannot_index_is_refused_at_create(
    backend: PostgresBackend, index: IndexSpec, metric: str
) -> None:
    with pytest.raises(Unsupported, match="pgvector"):
        backend.create(CollectionSpec("photos", 16, metric, index=index))  # type: ignore[arg-type]
    assert backend.collections() == []


@pytest.mark.server
def test_components_beyond_half_precision_are_refused(backend: PostgresBackend) -> None:
    backend.create(CollectionSpec("photos", 4, "dot", index=IndexSpec("hnsw", "half")))
    with pytest.raises(ValueError, match="half precision"):
        backend.upsert("photos", [Record("a", np.full(4, 1e5, np.float32))])
    assert backend.count("photos") == 0


@pytest.mark.server
def test_a_pgvector_without_iterative_scan_searches_filters_exactly(backend: PostgresBackend) -> None:
    """What 0.5 to 0.7 can do: the index serves unfiltered searches of up to ef_search hits."""
    rows = clustered(3_000, 32, 3)
    twin = Twin(backend, CollectionSpec("photos", 32, index=IndexSpec("hnsw")))
    twin.upsert(Record(f"r{i:04}", rows[i], metadata={"n": i}) for i in range(len(rows)))
    backend.flush("photos")
    backend._searcher = Searcher(iterative=False)
    for k, where, exact in ((10, None, False), (10, Compare("n", "lt", 2_900), True), (250, None, True)):
        for hits in twin.same_hits(rows[:5], k, where):
            assert hits[0].exact is exact


def test_effort_becomes_pgvectors_parameters() -> None:
    assert [ef_search(effort) for effort in (0.01, 0.5, 0.65, 1.0)] == [10, 100, 200, 1000]
    assert [probes(effort, 100) for effort in (0.01, 0.5, 0.65, 1.0)] == [1, 19, 36, 100]


@pytest.mark.server
def test_effort_lasts_for_its_search_only(backend: PostgresBackend) -> None:
    backend.create(CollectionSpec("photos", 8, index=IndexSpec("hnsw")))
    backend.upsert("photos", some(400))
    backend.flush("photos")
    backend.search("photos", vectors(3, 8), 5, effort=0.9)
    shown = backend._database.run(lambda connection: connection.execute("SHOW hnsw.ef_search").fetchone())
    assert shown == ("200",)


@pytest.mark.server
def test_an_index_scan_that_ends_short_is_followed_by_an_exact_one(backend: PostgresBackend) -> None:
    """Matches all on the far side of the query: the scan gives up before it reaches them."""
    rows = clustered(4_000, 16, 3)
    far = np.argsort(rows @ rows[0])[:1_500]
    twin = Twin(backend, CollectionSpec("photos", 16, index=IndexSpec("hnsw")))
    twin.upsert(Record(f"r{i:04}", rows[i], metadata={"far": bool(i in set(far.tolist()))}) for i in range(len(rows)))
    backend.flush("photos")

    settings = dict(backend._database._settings)
    backend._database.close()
    backend._database = backend._pool = Database(*parse_url(backend._database._conninfo))
    backend._database.open(
        backend._installed.vector_oid, {**settings, "hnsw.max_scan_tuples": "1", "hnsw.ef_search": "10"}
    )
    (hits,) = twin.same_hits(rows[:1], 20, Compare("far", "eq", True), recall=1.0)
    assert all(hit.exact for hit in hits)


@pytest.mark.server
def test_fields_whose_numbers_a_filter_orders_get_an_index(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.pgvector.search.AUTO_INDEX_ROWS", 100)
    name = server.clean()
    with PostgresBackend.connect(server.url(name)) as backend:
        twin = Twin(backend, CollectionSpec("photos", 8))
        twin.upsert(some(400))
        backend.flush("photos")

        def definitions() -> list[str]:
            with server.admin(name) as connection:
                found = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%jsonb_typeof%'")
                return [row[0] for row in found.fetchall()]

        # Equality has an index already, and strings have none: they may be too long for it.
        twin.same_hits(vectors(2, 8), 5, Compare("n", "eq", 7))
        twin.same_hits(vectors(2, 8), 5, Compare("lang", "lt", "fr"))
        assert definitions() == []
        for where in (
            Compare("n", "lt", 30),
            Not(Compare("n", "gte", 30)),
            And((Compare("n", "gt", 4.5), Not(Compare("ratio", "lte", 20)))),
            Or((Compare("ratio", "lt", 3), Compare("lang", "eq", "de"))),
        ):
            for _ in range(7):
                # Prepared from the fifth time on.
                twin.same_hits(vectors(2, 8), 5, where)
        assert sorted("'n'" in definition for definition in definitions()) == [False, True]
        with server.admin(name) as connection:
            connection.execute("SET enable_seqscan = off")
            plan = "EXPLAIN SELECT 1 FROM sightline.c1 WHERE " + where_sql(Compare("n", "lt", 30))[0]
            shown = connection.execute(plan.encode(), where_sql(Compare("n", "lt", 30))[1]).fetchall()
        assert any("c1_" in line and "Index" in line for (line,) in shown), shown
        # What an index of all values would not take.
        twin.upsert([Record("long", np.ones(8, np.float32), metadata={"n": "x" * 20_000, "ratio": 1e300})])
        twin.same_hits(vectors(2, 8), 5, Compare("n", "gt", 390))
        twin.same_hits(vectors(2, 8), 5, Compare("ratio", "gt", 90))


@pytest.mark.server
def test_who_may_only_read_filters_without_new_indexes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.pgvector.search.AUTO_INDEX_ROWS", 100)
    database = server.database()
    url = server.url(database)
    with connect(url) as owner:
        owner.create(CollectionSpec("c", 8))
        owner.upsert("c", some(400))
        owner.flush("c")
    with psycopg.connect(server.admin_url(database), autocommit=True) as connection:
        connection.execute("CREATE ROLE plain_reader LOGIN PASSWORD 'x'")
        connection.execute("GRANT USAGE ON SCHEMA sightline TO plain_reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA sightline TO plain_reader")
    place = urlsplit(url).netloc
    with connect(url.replace(place, f"plain_reader:x@{place.rpartition('@')[2]}")) as reader:
        for _ in range(2):
            assert len(reader.search("c", vectors(1, 8), 50, where=Compare("n", "lt", 30))[0]) == 30


def test_who_owns_no_index_flushes_all_the_same(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    database = server.database()
    url = server.url(database)
    with connect(url) as owner:
        owner.create(CollectionSpec("c", 8, index=IndexSpec("hnsw")))
        owner.upsert("c", some(400))
        owner.flush("c")
    with psycopg.connect(server.admin_url(database), autocommit=True) as connection:
        connection.execute("CREATE ROLE plain_writer LOGIN PASSWORD 'x'")
        connection.execute("GRANT USAGE ON SCHEMA sightline TO plain_writer")
        connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sightline TO plain_writer")
    for module in ("search", "index"):
        monkeypatch.setattr(f"backends.pgvector.{module}.AUTO_INDEX_ROWS", 100)
    place = urlsplit(url).netloc
    with connect(url.replace(place, f"plain_writer:x@{place.rpartition('@')[2]}")) as writer:
        writer.upsert("c", [replace(some(1)[0], id="new")])
        writer.flush("c")
        assert writer.count("c") == 401


@pytest.mark.server
def test_the_width_that_a_graph_takes_is_kept_with_its_index(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("search", "index"):
        monkeypatch.setattr(f"backends.pgvector.{module}.AUTO_INDEX_ROWS", 1_000)
    rows = hard_rows(2_000, seed=3)[0]
    url = server.url(server.clean())
    with PostgresBackend.connect(url) as backend:
        backend.create(CollectionSpec("photos", rows.shape[1], index=IndexSpec("hnsw", params={"m": 4})))
        backend.upsert("photos", (Record(f"r{i:04}", row) for i, row in enumerate(rows)))
        backend.flush("photos")
    with PostgresBackend.connect(url) as another:
        width = another._database.run(lambda connection: another._find(connection, "photos").width)
        assert width is not None
        assert width.width in WIDTHS
        assert (width.rows, width.enough) == (2_000, True)
        with explain() as plans:
            another.search("photos", rows[:2], 5)
        assert [plan.width for plan in plans] in ([width.width] * 2, [None] * 2)
        assert [plan.kind for plan in plans] == ["index" if width.width == WIDTHS[0] else "scan"] * 2


@pytest.mark.server
def test_flush_builds_the_graph_anew_after_many_deletes(server: Server) -> None:
    name = server.clean()

    def graph(connection: Connection) -> object:
        return connection.execute("SELECT 'sightline.c1_vector'::regclass::oid").fetchone()

    with PostgresBackend.connect(server.url(name)) as backend:
        twin = Twin(backend, CollectionSpec("photos", 8, index=IndexSpec("hnsw")))
        twin.upsert(some(1_000))
        backend.flush("photos")
        first = backend._database.run(graph)
        backend.delete("photos", ids=["r00001"])
        twin.oracle.delete("photos", ids=["r00001"])
        deleted_and_flushed(backend, "photos")
        assert backend._database.run(graph) == first
        twin.delete(where=Compare("n", "lt", 200))
        deleted_and_flushed(backend, "photos")
        assert backend._database.run(graph) != first
        twin.same_hits(vectors(5, 8), 10)


def deleted_and_flushed(backend: PostgresBackend, name: str) -> None:
    """Flush once PostgreSQL has counted the dead rows, which it does with a second's delay."""
    backend._database.run(lambda connection: connection.execute("SELECT pg_stat_force_next_flush()"))
    backend.flush(name)


@pytest.mark.server
def test_what_the_client_refuses_is_no_outage(backend: PostgresBackend) -> None:
    database = backend._database
    statement = b"SELECT " + b", ".join([b"%s"] * 65_536)
    asked = []

    def too_many(connection: Any) -> None:
        asked.append(1)
        connection.execute(statement, [1] * 65_536)

    with pytest.raises(BackendError, match="parameters") as caught:
        database.run(too_many)
    assert not isinstance(caught.value, Unavailable)
    assert len(asked) == 1
    with pytest.raises(BackendError) as caught:
        database.run(lambda connection: connection.execute("SELECT %s::text", ["a\0b"]))
    assert not isinstance(caught.value, Unavailable)
    with pytest.raises(BackendError, match="password") as caught:
        database.run(lambda connection: connection.execute("SELECT 'password authentication failed'::int"))
    assert not isinstance(caught.value, Unavailable)
    assert backend.collections() == []


def test_every_filter_within_the_bounds_has_few_parameters() -> None:
    most = Or(tuple(Compare(f"f{i}", "in", tuple(f"{i}-{j}" for j in range(16))) for i in range(4_000)))
    one_field = Or(tuple(Compare("place", "in", tuple(f"{i}-{j}" for j in range(16))) for i in range(2_500)))
    not_equal = And(tuple(Compare(f"f{i}", "nin", (1, "a", 2)) for i in range(4_000)))
    assert len(where_sql(one_field)[1]) == 5
    for where in (most, not_equal, Not(most)):
        assert len(where_sql(where)[1]) < 65_535


def test_who_may_only_read_searches_by_the_old_words(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    database = server.database()
    url = server.url(database)
    with connect(url) as owner:
        owner.create(CollectionSpec("c", 2))
        owner.upsert("c", [Record("a", np.ones(2, np.float32), "text", "a black horse")])
        age(owner)
    with psycopg.connect(server.admin_url(database), autocommit=True) as connection:
        connection.execute("CREATE ROLE words_reader LOGIN PASSWORD 'x'")
        connection.execute("GRANT USAGE ON SCHEMA sightline TO words_reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA sightline TO words_reader")
    place = urlsplit(url).netloc
    with (
        caplog.at_level(logging.WARNING),
        connect(url.replace(place, f"words_reader:x@{place.rpartition('@')[2]}")) as b,
    ):
        for _ in range(2):
            assert [hit.id for hit in b.search_text("c", "horse", 5)] == ["a"]
    assert sum("as an earlier Sightline took them" in record.getMessage() for record in caplog.records) == 1
    with connect(url) as owner:
        assert [hit.id for hit in owner.search_text("c", "horse", 5)] == ["a"]
