"""AnalyticDB's own statements, compared with the documented ones; and what is particular to it, on its stand-in."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends import connect
from backends.base import (
    CollectionSpec,
    Compare,
    DimensionMismatch,
    IndexSpec,
    Record,
    Unavailable,
    Unsupported,
)
from backends.conformance import Twin
from backends.conformance.samples import clustered, some
from backends.errors import Denied
from backends.pgvector.analyticdb import AnalyticBackend
from backends.pgvector.connection import Connection, Database
from backends.pgvector.version import of_analyticdb
from backends.text import WORDS_VERSION
from tests.support.analyticdb import AnalyticServer, StandInBackend

# Its own statements, on an instance that keeps what it is told and answers as one with 50,000 records would


class Instance:
    """A connection to it."""

    info = SimpleNamespace(parameter_status=lambda name: "UTF8")

    def __init__(self, spec: CollectionSpec) -> None:
        self.statements: list[str] = []
        self.values: list[object] = []
        self.answers: list[tuple[str, tuple[object, ...]]] = [
            ("SELECT to_regclass", (False,)),
            ("SELECT quote_ident", ("public", 4711)),
            ("INSERT INTO sightline.collections", (1,)),
            ("SELECT c.number", (1, spec.to_json(), 50_000, True, 0, WORDS_VERSION, None)),
            ("SELECT count(*), count(vector)", (50_000, 50_000)),
            ("SELECT count(*)", (50_000,)),
            ("SELECT 1 FROM sightline.c1", (1,)),
        ]

    def execute(self, statement: bytes | str, values: object = None) -> Instance:
        text = " ".join((statement.decode() if isinstance(statement, bytes) else statement).split())
        self.statements.append(text)
        self.values.append(values)
        self._row = next((row for start, row in self.answers if text.startswith(start)), None)
        return self

    def fetchone(self) -> tuple[object, ...] | None:
        return self._row

    def fetchall(self) -> list[tuple[object, ...]]:
        return []

    def __iter__(self) -> Iterator[tuple[object, ...]]:
        return iter(self.fetchall())

    def cursor(self, *, binary: bool = False) -> Instance:
        return self

    def copy(self, statement: bytes) -> AbstractContextManager[Any]:
        self.statements.append(statement.decode())
        return nullcontext(SimpleNamespace(write=lambda chunk: None))

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()

    pipeline = transaction


class Instances(Database):
    """The pool of connections to it."""

    def __init__(self, spec: CollectionSpec) -> None:
        super().__init__("", "analyticdb://instance")
        self.instance = Instance(spec)
        self.opened: tuple[object, ...] = ()

    def connect(self) -> Any:
        return nullcontext(self.instance)

    def open(self, vector_oid: int, settings: dict[str, str], prepare_threshold: int | None = 5) -> None:
        self.opened = (vector_oid, settings, prepare_threshold)

    def run(self, work: Any) -> Any:
        return work(self.instance)


class Told:
    """The adapter on it: what `statements` it makes of a call."""

    def __init__(self, spec: CollectionSpec) -> None:
        self.database = Instances(spec)
        self.instance = self.database.instance
        self.backend = AnalyticBackend(self.database)
        self.connecting = list(self.instance.statements)

    def of(self, call: str, *arguments: object, **options: object) -> list[str]:
        self.instance.statements.clear()
        self.instance.values.clear()
        getattr(self.backend, call)(*arguments, **options)
        return [text for text in self.instance.statements if not text.startswith("SELECT c.number")]


PHOTOS = CollectionSpec("photos", 512, index=IndexSpec("hnsw"))
QUERY = np.eye(1, 512, dtype=np.float32)
COLUMNS = "id, modality, text, uri, metadata"


def test_connecting_installs_nothing_and_spreads_its_tables() -> None:
    told = Told(PHOTOS)
    made = [text for text in told.connecting if text.startswith("CREATE")]
    assert made == [
        "CREATE SCHEMA IF NOT EXISTS sightline",
        "CREATE TABLE IF NOT EXISTS sightline.migrations (version integer PRIMARY KEY, "
        "applied_at timestamptz NOT NULL DEFAULT now()) DISTRIBUTED BY (version)",
        'CREATE TABLE sightline.collections ( number serial NOT NULL, name text COLLATE "C" PRIMARY KEY, '
        "spec text NOT NULL, words integer NOT NULL DEFAULT 1 ) DISTRIBUTED BY (name)",
    ]


def test_sessions_use_the_planner_that_knows_the_index_and_prepare_nothing() -> None:
    assert Told(PHOTOS).database.opened == (
        4711,
        {
            "search_path": "public",
            "optimizer": "off",
            "fastann.hnsw_ef_search": "200",
            "fastann.hnsw_max_scan_points": "100000",
        },
        None,
    )


def test_a_collection_s_table_is_spread_by_its_key() -> None:
    assert Told(PHOTOS).of("create", PHOTOS) == [
        "INSERT INTO sightline.collections (name, spec, words) VALUES (%s, %s, %s) "
        "ON CONFLICT (name) DO NOTHING RETURNING number",
        'CREATE TABLE sightline.c1 ( id text COLLATE "C" PRIMARY KEY, modality text COLLATE "C" NOT NULL, text text, '
        "uri text, metadata jsonb NOT NULL, terms jsonb NOT NULL, length integer NOT NULL, vector vector(512) ) "
        "DISTRIBUTED BY (id)",
        "ALTER TABLE sightline.c1 ALTER COLUMN vector SET STORAGE PLAIN",
        "CREATE INDEX ON sightline.c1 USING gin (metadata jsonb_path_ops)",
        "CREATE INDEX ON sightline.c1 USING gin (terms)",
        "CREATE INDEX ON sightline.c1 (length)",
    ]


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (PHOTOS, "dim = 512, distancemeasure = IP, hnsw_m = 32, hnsw_ef_construction = 600"),
        (
            CollectionSpec("photos", 8_192, "dot", index=IndexSpec("hnsw", params={"m": 48, "ef_construction": 40})),
            "dim = 8192, distancemeasure = IP, hnsw_m = 48, hnsw_ef_construction = 96",
        ),
        (
            CollectionSpec("photos", 3, "l2", index=IndexSpec("hnsw", params={"m": 10})),
            "dim = 3, distancemeasure = L2, hnsw_m = 10, hnsw_ef_construction = 600",
        ),
    ],
)
def test_the_index_is_fastann_s(spec: CollectionSpec, options: str) -> None:
    told = Told(spec)
    told.instance.answers.insert(0, ("SELECT c.number", (1, spec.to_json(), 50_000, False, 0, WORDS_VERSION, None)))
    built = told.of("flush", "photos")
    assert built[-1] == (
        "CREATE INDEX c1_vector ON sightline.c1 USING ann(vector) "
        f"WITH ({options}, pq_enable = 0, external_storage = 0)"
    )
    assert "VACUUM (ANALYZE) sightline.c1" in built


def test_an_index_that_another_process_built_meanwhile_is_left() -> None:
    told = Told(PHOTOS)
    told.instance.answers.insert(0, ("SELECT c.number", (1, PHOTOS.to_json(), 50_000, False, 0, WORDS_VERSION, None)))
    told.instance.answers.insert(0, ("SELECT to_regclass('sightline.c1_vector')", (True,)))
    assert not any(text.startswith("CREATE INDEX") for text in told.of("flush", "photos"))


@pytest.mark.parametrize(("metric", "operator"), [("cosine", "<#>"), ("dot", "<#>"), ("l2", "<->")])
def test_a_search_orders_by_its_operator_alone(metric: Any, operator: str) -> None:
    told = Told(CollectionSpec("photos", 512, metric, index=IndexSpec("hnsw")))
    value = f"vector {operator} %(query)s" if metric == "cosine" else "vector"
    # The recorded instance finds nothing, so a scan of everything follows.
    assert told.of("search", "photos", QUERY, 10)[:1] == [
        f"SELECT {COLUMNS}, {value} AS value FROM sightline.c1 WHERE TRUE AND vector IS NOT NULL "
        f"ORDER BY vector {operator} %(query)s LIMIT 10"
    ]


def test_a_filtered_search_reorders_outside_of_the_search() -> None:
    told = Told(PHOTOS).of("search", "photos", QUERY, 10, where=Compare("year", "eq", 1999))
    assert told[1] == (
        f"SELECT {COLUMNS}, vector <#> %(query)s AS value FROM (SELECT {COLUMNS}, vector FROM sightline.c1 "
        "WHERE (metadata @> %(p0)s::jsonb) AND vector IS NOT NULL ORDER BY vector <#> %(query)s LIMIT 30) s "
        "ORDER BY vector <#> %(query)s LIMIT 10"
    )
    assert told[-1].endswith("ORDER BY value, id LIMIT 10")


@pytest.mark.parametrize(("k", "effort", "width"), [(10, 0.8, "398"), (300, None, "300"), (300, 0.8, "398")])
def test_the_width_of_a_search_is_for_it_alone_and_holds_what_it_is_asked_for(
    k: int, effort: float | None, width: str
) -> None:
    told = Told(PHOTOS)
    assert told.of("search", "photos", QUERY, k, effort=effort)[0] == "SELECT set_config(%s, %s, true)"
    assert ["fastann.hnsw_ef_search", width] in told.instance.values


def test_more_than_an_index_scan_gives_is_scanned() -> None:
    told = Told(PHOTOS)
    for k, where in ((1_001, None), (334, Compare("year", "gte", 1999))):
        (statement,) = (text for text in told.of("search", "photos", QUERY, k, where=where) if "query" in text)
        assert "(vector <#> %(query)s) + 0 AS value" in statement


def test_an_upsert_never_sets_the_key() -> None:
    record = Record("a", QUERY[0], "text", "a horse", None, {"n": 1})
    assert Told(PHOTOS).of("upsert", "photos", [record])[2:] == [
        "CREATE TEMP TABLE IF NOT EXISTS sightline_staging (LIKE sightline.c1) ON COMMIT DROP DISTRIBUTED BY (id)",
        "COPY pg_temp.sightline_staging (id, modality, text, uri, metadata, terms, length, vector) "
        "FROM STDIN (FORMAT BINARY)",
        "INSERT INTO sightline.c1 (id, modality, text, uri, metadata, terms, length, vector) "
        "SELECT id, modality, text, uri, metadata, terms, length, vector FROM pg_temp.sightline_staging "
        'ORDER BY id COLLATE "C" ON CONFLICT (id) DO UPDATE SET modality = excluded.modality, text = excluded.text, '
        "uri = excluded.uri, metadata = excluded.metadata, terms = excluded.terms, length = excluded.length, "
        "vector = excluded.vector",
    ]


def test_no_statement_has_what_postgresql_9_4_has_not() -> None:
    told = Told(PHOTOS)
    told.instance.answers.insert(0, ("SELECT c.number", (1, PHOTOS.to_json(), 50_000, False, 0, WORDS_VERSION, None)))
    everything = list(told.connecting)
    for call, arguments in (
        ("create", (PHOTOS,)),
        ("collections", ()),
        ("describe", ("photos",)),
        ("upsert", ("photos", [Record("a", QUERY[0])])),
        ("get", ("photos", ["a"])),
        ("flush", ("photos",)),
        ("count", ("photos",)),
        ("search", ("photos", QUERY, 10)),
        ("search_text", ("photos", "a horse", 10)),
        ("drop", ("photos",)),
    ):
        told.of(call, *arguments)
        everything += told.instance.statements
    later = (
        r"MATERIALIZED|GENERATED|INDEX IF NOT EXISTS|halfvec|::bit|OFFSET|max_parallel|plan_cache|\bjit\b|"
        r"CREATE EXTENSION|to_regclass\([^']"
    )
    assert [text for text in everything if re.search(later, text)] == []


# What only it has


@pytest.mark.parametrize(
    ("index", "dim"),
    [
        (IndexSpec("auto"), 8_193),
        (IndexSpec("ivf"), 16),
        (IndexSpec("hnsw", "half"), 16),
        (IndexSpec("hnsw", params={"m": 9}), 16),
        (IndexSpec("hnsw", params={"ef_construction": 4_001}), 16),
    ],
)
def test_what_it_cannot_index_is_refused(index: IndexSpec, dim: int) -> None:
    told = Told(PHOTOS)
    with pytest.raises(Unsupported, match="AnalyticDB"):
        told.backend.create(CollectionSpec("photos", dim, index=index))
    assert not any("CREATE TABLE sightline.c1" in text for text in told.instance.statements)


def test_an_instance_without_its_vector_engine_says_what_to_switch_on() -> None:
    database = Instances(PHOTOS)
    database.instance.answers = [("SELECT to_regclass", (False,))]
    with pytest.raises(Unavailable, match="switch vector search engine optimization on"):
        AnalyticBackend(database)


@pytest.mark.parametrize("url", ["analyticdb://me:s3cret@[::1/x", "analyticdb://me:s3cret@h/db?nonsense=1"])
def test_an_unreadable_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(
        ValueError, match=r"this analyticdb:// URL|option 1 of the URL is none of analyticdb://"
    ) as caught:
        connect(url)
    assert "s3cret" not in str(caught.value)


@pytest.fixture(scope="module")
def server() -> Iterator[AnalyticServer]:
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        made = AnalyticServer(Path(folder))
        yield made
        made.stop("immediate")


@pytest.mark.server
def test_nothing_is_ever_prepared(server: AnalyticServer) -> None:
    rows = clustered(1_000, 16, 3)

    def prepared(connection: Connection) -> object:
        return connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()

    with StandInBackend.connect(server.url(server.database())) as backend:
        twin = Twin(backend, CollectionSpec("photos", 16, index=IndexSpec("hnsw")))
        twin.upsert(Record(f"r{i:04}", row) for i, row in enumerate(rows))
        backend.flush("photos")
        for row in rows[:10]:
            assert not twin.same_hits(row[None] + 0.01, 5)[0][0].exact
        twin.same_hits(rows[:10], 20)
        assert backend._database.run(prepared) == (0,)


@pytest.mark.server
def test_a_table_called_vector_is_not_taken_for_the_type(server: AnalyticServer) -> None:
    name = server.database()
    with server.admin(name) as connection:
        connection.execute("CREATE SCHEMA a; CREATE TABLE a.vector (id int)")
    with StandInBackend.connect(server.url(name)) as backend:
        assert backend._installed.namespace == "public"
        Twin(backend, CollectionSpec("photos", 8)).upsert(some(5))


@pytest.mark.server
def test_faults_name_the_instance_and_no_secret(server: AnalyticServer) -> None:
    name = server.database()
    where = rf"analyticdb://127\.0\.0\.1:{server.port}/{name}"
    with pytest.raises(Denied, match=f"{where} refuses the credentials") as caught:
        StandInBackend.connect(server.url(name, "s3cret"))
    assert "s3cret" not in str(caught.value)
    with StandInBackend.connect(server.url(name)) as backend, StandInBackend.connect(server.url(name)) as other:
        twin = Twin(backend, CollectionSpec("photos", 8))
        twin.upsert(some(20))
        with pytest.raises(DimensionMismatch):
            backend.upsert("photos", some(1, 4, prefix="x"))
        other.upsert("photos", some(20))
        twin.same_records()
        server.kill()
        try:
            with pytest.raises(Unavailable, match=where):
                StandInBackend.connect(server.url(name) + "?connect_timeout=2")
        finally:
            server.start()
        twin.same_records()


@pytest.mark.server
def test_its_version_says_whether_the_vector_engine_is_there(server: AnalyticServer) -> None:
    assert re.fullmatch(r"PostgreSQL \d+\.\d+, FastANN", of_analyticdb(server.url(server.database()), 20))
    without = server.url(server.database(extension=False))
    assert of_analyticdb(without, 20).endswith(", no vector engine")
