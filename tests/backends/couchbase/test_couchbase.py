"""Couchbase's adapter beside the conformance suite, on the fake server: what it sends, credentials, faults, index."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import trustme

from backends import connect
from backends.base import (
    NO_VECTOR,
    BackendError,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    Corrupt,
    DimensionMismatch,
    IndexSpec,
    Record,
    Unavailable,
    Unsupported,
)
from backends.conformance import Twin
from backends.conformance.samples import clustered, some, vectors
from backends.couchbase import schema
from backends.couchbase.backend import CouchbaseBackend
from backends.couchbase.connection import CouchbaseServer, Refused
from backends.couchbase.version import of_server
from backends.errors import Denied
from backends.redaction import shown
from tests.support.fake_couchbase import BUCKET, PASSWORD, FakeCouchbase
from tests.support.stopped_clock import StoppedClock


@pytest.fixture
def fake() -> Iterator[FakeCouchbase]:
    running = FakeCouchbase()
    yield running
    running.stop()


@pytest.fixture
def backend(fake: FakeCouchbase) -> Iterator[CouchbaseBackend]:
    with CouchbaseBackend.connect(fake.url) as opened:
        yield opened


def filled(backend: CouchbaseBackend, n: int = 30, **options: Any) -> Twin:
    twin = Twin(backend, CollectionSpec("photos", 8, **options))
    twin.upsert(some(n))
    return twin


def sent(fake: FakeCouchbase, start: str) -> list[dict[str, Any]]:
    """The requests with a statement that starts so."""
    return [request for request in fake.statements if request["statement"].startswith(start)]


# What it sends


def test_reads_see_what_was_written_and_change_nothing(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    filled(backend).same_records()
    backend.search("photos", vectors(1, 8), 3)
    assert len(sent(fake, "SELECT")) >= 3
    for request in sent(fake, "SELECT"):
        assert (request["scan_consistency"], request["readonly"]) == ("request_plus", True)


def test_writes_are_transactions_on_the_disks_of_a_majority(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    filled(backend)
    backend.delete("photos", ids=["r00001"])
    backend.set_encoder("photos", "another")
    backend.drop("photos")
    for start in ("INSERT", "UPSERT", "UPDATE", "DELETE"):
        assert sent(fake, start)
        for request in sent(fake, start):
            assert (request["tximplicit"], request["durability_level"]) == (True, "majorityAndPersist")


def test_a_document_says_each_thing_as_filters_want_it(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    backend.create(CollectionSpec("photos", 2))
    metadata = {"n": 1.0, "s": "é", "b": True, "l": ["x", "y"]}
    backend.upsert("photos", [Record("ü" * 256, np.array([0.6, 0.8], np.float32), "text", "a", None, metadata)])
    (row,) = sent(fake, "UPSERT")[0]["$rows"]
    assert len(row["k"]) == 40
    assert row["d"] == {
        "id": "ü" * 256,
        "modality": "text",
        "text": "a",
        "uri": None,
        "body": '{"n":1.0,"s":"é","b":true,"l":["x","y"]}',
        "fields": ["n", "s", "b", "l"],
        "n": {"n": 1.0},
        "s": {"s": "é"},
        "b": {"b": True},
        "l": {"l": ["x", "y"]},
        "v": np.array([0.6, 0.8], np.float32).tolist(),
    }


def test_values_are_never_in_a_statement(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    filled(backend)
    backend.count("photos", Compare("lang", "in", ("'; DROP", "`x`")))
    assert "DROP" not in fake.statements[-1]["statement"]
    assert fake.statements[-1]["$p0"] == ["'; DROP", "`x`"]


def test_large_writes_are_sent_in_parts(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    backend.create(CollectionSpec("photos", 8))
    backend.upsert("photos", [Record(r.id, r.vector, "text", "x" * 60_000) for r in some(60)])
    assert 1 < len(sent(fake, "UPSERT")) < 10
    assert backend.count("photos") == 60


def test_deletions_and_reads_are_made_in_parts(
    fake: FakeCouchbase, backend: CouchbaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = filled(backend)
    monkeypatch.setattr("backends.couchbase.backend._PAGE_BYTES", 4 * 22 * 8)
    fake.statements.clear()
    assert [len(page.records) for page in backend.scan("photos")] == [4] * 7 + [2]
    assert [len(page.records) for page in backend.scan("photos", with_vectors=False)] == [30]
    ids = sorted(record.id for record in some(30))
    assert [record.id for record in backend.get("photos", ids, with_vectors=True)] == ids
    assert [len(request["$keys"]) for request in sent(fake, "SELECT") if "$keys" in request][-8:] == [4] * 7 + [2]
    monkeypatch.setattr("backends.couchbase.backend._DELETED", 5)
    fake.statements.clear()
    twin.oracle.delete("photos", ids=ids[:12])
    assert backend.delete("photos", ids=ids[:12]) == 12
    assert [len(request["$keys"]) for request in sent(fake, "DELETE")] == [5, 5, 2]
    twin.same_records()
    fake.statements.clear()
    images = Compare("modality", "eq", "image")
    gone = twin.oracle.delete("photos", where=images)
    assert backend.delete("photos", where=images) == gone > 5
    assert len(sent(fake, "DELETE")) == gone // 5 + 1
    twin.same_records()


def test_the_fake_knows_no_other_statement(fake: FakeCouchbase) -> None:
    server = CouchbaseServer(fake.url)
    schema.prepare(server)
    catalogue = server.keyspace(schema.CATALOGUE)
    for statement in (
        f"SELECT d.name FROM {catalogue} AS d OFFSET 3",
        f"SELECT COUNT(*) AS n FROM {catalogue} AS d WHERE d.name = 'x'",
        f"SELECT COUNT(*) AS n FROM {catalogue} AS d WHERE (NOT TRUE",
    ):
        with pytest.raises(Refused, match="syntax error"):
            server.query(statement)
    with pytest.raises(Refused, match="Readonly violation"):
        server.query(f"DELETE FROM {catalogue} AS d USE KEYS $keys RETURNING d.name", {"keys": []})
    server.close()


# The vector index


def test_the_vector_index_is_made_by_flush_and_searched_without_filters(
    fake: FakeCouchbase, backend: CouchbaseBackend
) -> None:
    rows = clustered(1_200, 16, 3)
    for metric, similarity in (("cosine", "COSINE"), ("dot", "DOT"), ("l2", "L2")):
        twin = Twin(backend, CollectionSpec(metric, 16, metric, index=IndexSpec("ivf", params={"nlist": 12})))  # type: ignore[arg-type]
        twin.upsert(Record(f"r{i:04}", row, metadata={"n": i}) for i, row in enumerate(rows[:900]))
        backend.flush(metric)
        assert not sent(fake, "CREATE VECTOR")
        twin.upsert(Record(f"r{i:04}", rows[i], metadata={"n": i}) for i in range(900, 1_200))
        backend.flush(metric)
        backend.flush(metric)
        (request,) = sent(fake, "CREATE VECTOR")
        options = json.loads(request["statement"].partition(" WITH ")[2])
        assert options == {"dimension": 16, "similarity": similarity, "description": "IVF12,SQ8"}
        fake.statements.clear()
        for effort, where, exact in ((None, None, False), (1.0, None, True), (None, Compare("n", "lt", 900), True)):
            for hits in twin.same_hits(rows[:3] + 0.01, 5, where, effort=effort):
                assert {hit.exact for hit in hits} == {exact}
        assert len([r for r in fake.statements if "APPROX_VECTOR_DISTANCE" in r["statement"]]) == 3
        fake.statements.clear()


def test_an_index_that_others_have_dropped_is_not_believed(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    twin = Twin(backend, CollectionSpec("photos", 8, index=IndexSpec("ivf")))
    twin.upsert([*some(1_000), *(Record(f"bare{i}", NO_VECTOR, "text", "a") for i in range(3))])
    backend.flush("photos")
    fake.scopes["sightline"][schema.read(backend._server, "photos").keyspace].index = None
    (hits,) = twin.same_hits(vectors(1, 8), 5)
    assert {hit.exact for hit in hits} == {True}


def test_documents_of_others_are_told(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    filled(backend)
    documents = fake.scopes["sightline"][schema.read(backend._server, "photos").keyspace].documents
    documents["theirs"] = {"name": "x", "v": [1.0] * 8}
    with pytest.raises(Corrupt, match="not what Sightline wrote"):
        list(backend.scan("photos"))


def test_effort_is_how_many_lists_are_looked_into(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    twin = Twin(backend, CollectionSpec("photos", 8, index=IndexSpec("ivf")))
    twin.upsert(some(1_000))
    backend.flush("photos")
    for effort, probes in ((0.1, 1), (None, 16), (0.9, 52)):
        backend.search("photos", vectors(1, 8), 5, effort=effort)
        assert f'"COSINE", {probes}, TRUE)' in fake.statements[-1]["statement"]


def test_what_it_cannot_index_is_refused(backend: CouchbaseBackend) -> None:
    for index, dim in ((IndexSpec("ivf"), 4_097), (IndexSpec("hnsw"), 8), (IndexSpec("auto", "int8"), 8)):
        with pytest.raises(Unsupported, match="Couchbase"):
            backend.create(CollectionSpec("photos", dim, index=index))
    assert backend.collections() == []


# Credentials and addresses


def test_a_wrong_password_is_said_and_not_shown(fake: FakeCouchbase) -> None:
    with pytest.raises(Denied, match=f"{fake.address} refuses the credentials") as caught:
        connect(fake.url_for("Hunter2Core"))
    assert "Hunter2Core" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_couchbase_is_told(fake: FakeCouchbase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CouchbaseServer, "manage", lambda *_, **__: "<html>Welcome</html>")
    with pytest.raises(Unavailable, match=f"what answers at {fake.address} is no Couchbase"):
        connect(fake.url)


def test_the_password_may_be_in_the_environment(fake: FakeCouchbase, monkeypatch: pytest.MonkeyPatch) -> None:
    url = fake.url.replace(":" + fake.url.split(":")[2].rpartition("@")[0] + "@", "@")
    assert url.startswith("couchbase://ann@127.0.0.1:")
    with pytest.raises(Denied):
        connect(url)
    monkeypatch.setenv("SIGHTLINE_COUCHBASE_PASSWORD", PASSWORD)
    with connect(url) as backend:
        assert backend.collections() == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("couchbase://ann:s3cret@db", "names no bucket"),
        ("couchbase://ann:s3/cret@db/photos", "names no bucket"),
        ("couchbase://ann:s3cret@db/photos/more", "names no bucket"),
        ("couchbase://ann:s3cret@db/photos?s3cret=1", "option 1"),
        ("couchbase://ann:s3cret@db/photos?query_port=x", "query_port must be a number"),
    ],
)
def test_an_unusable_url_is_refused_without_repeating_it(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        connect(url)
    assert "s3cret" not in str(caught.value)


def test_with_tls_the_ports_are_others() -> None:
    plain, safe, named = (
        CouchbaseServer(f"couchbase://ann:x@db{rest}")
        for rest in ("/photos", "/photos?https=true", ":1234/photos?https=true&query_port=5678")
    )
    assert [server._manager.host for server in (plain, safe, named)] == ["db:8091", "db:18091", "db:1234"]
    assert [server._query.host for server in (plain, safe, named)] == ["db:8093", "db:18093", "db:5678"]
    assert (plain.address, safe.address) == ("couchbase://db:8091/photos", "couchbase://db:18091/photos")
    assert shown("couchbase://ann:x@db/photos?https=true") == "couchbase://db/photos?https=true"


def test_whom_to_trust_may_be_said(tmp_path: Path) -> None:
    authority = trustme.CA(organization_name="ours")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    address = f"couchbase://ann:x@db/photos?https=true&ca_certs={tmp_path}"
    for http in (CouchbaseServer(f"{address}/ca.pem")._manager, CouchbaseServer(f"{address}/ca.pem")._query):
        assert http._tls is not None
        assert "ours" in str(http._tls.get_ca_certs())
    (tmp_path / "none.pem").write_text("nothing")
    for url, told in (
        (f"{address}/gone.pem", "ca_certs names cannot be read: No such file"),
        (f"{address}/none.pem", "no certificate in PEM form"),
        (f"couchbase://ann:x@db/photos?ca_certs={tmp_path}/ca.pem", "belongs to https=true"),
    ):
        with pytest.raises(ValueError, match=told):
            CouchbaseServer(url)


def test_its_version_is_what_the_cluster_says(fake: FakeCouchbase) -> None:
    assert of_server(fake.url, 5) == "Couchbase 8.0.0-1000-fake"


# Faults


def test_a_server_that_goes_away_and_comes_back(
    fake: FakeCouchbase, backend: CouchbaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.couchbase.connection.PATIENCE_S", 0.0)
    twin = filled(backend)
    fake.stop()
    with pytest.raises(Unavailable, match=f"Couchbase at {fake.address} does not answer.*is it running"):
        backend.count("photos")
    with pytest.raises(Unavailable, match="does not answer"):
        connect(fake.url)
    fake.start()
    twin.same_records()
    twin.upsert(some(40, seed=2))
    twin.same_hits(vectors(2, 8), 20)


def test_a_server_that_stays_away_is_told_in_time(
    fake: FakeCouchbase, backend: CouchbaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.stop()
    clock = StoppedClock()
    monkeypatch.setattr("backends.kit.http_json.time", clock)
    with pytest.raises(Unavailable, match="does not answer"):
        connect(fake.url)
    assert clock.now == 0
    with pytest.raises(Unavailable, match="does not answer"):
        backend.count("photos")
    assert 5 < clock.now <= 10


def test_a_short_absence_is_waited_for(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    twin = filled(backend)
    fake.stop()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(backend.count, "photos")
        fake.start()
        assert asked.result() == 30
    twin.same_records()


def test_a_full_disk_is_said_and_stores_nothing(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    twin = filled(backend)
    fake.full = True
    with pytest.raises(BackendError, match="no space left on device") as caught:
        backend.upsert("photos", some(40, prefix="new"))
    assert not isinstance(caught.value, Unavailable)
    fake.full = False
    twin.same_records()


def test_vectors_of_another_length_are_refused(backend: CouchbaseBackend) -> None:
    twin = filled(backend)
    with pytest.raises(DimensionMismatch):
        backend.upsert("photos", some(3, 4))
    with pytest.raises(DimensionMismatch):
        backend.search("photos", vectors(1, 4), 3)
    twin.same_records()


def test_what_others_drop_or_make_anew_is_noticed_at_once(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    filled(backend)
    with connect(fake.url) as other:
        other.drop("photos")
        for call in (
            lambda: backend.count("photos"),
            lambda: backend.search("photos", vectors(1, 8), 3),
            lambda: backend.get("photos", ["r00001"]),
            lambda: backend.upsert("photos", some(1)),
        ):
            with pytest.raises(CollectionNotFound):
                call()
        other.create(CollectionSpec("photos", 4))
        other.upsert("photos", some(5, 4))
        assert backend.count("photos") == 5
        assert set(fake.scopes["sightline"]) == {"catalogue", schema.read(backend._server, "photos").keyspace}


def test_two_writers_at_once(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    twin = filled(backend, 0)
    with connect(fake.url) as other, ThreadPoolExecutor(2) as pool:
        for writer, prefix in ((backend, "a"), (other, "b")) * 3:
            pool.submit(writer.upsert, "photos", some(100, prefix=prefix))
    for prefix in "ab":
        twin.oracle.upsert("photos", some(100, prefix=prefix))
    twin.same_records()


def test_a_create_whose_answer_was_lost_is_the_collection_s_own(
    fake: FakeCouchbase, backend: CouchbaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = backend._server.query

    def twice(statement: str, *arguments: Any, **options: Any) -> Any:
        if statement.startswith("INSERT"):
            query(statement, *arguments, **options)
        return query(statement, *arguments, **options)

    monkeypatch.setattr(backend._server, "query", twice)
    filled(backend).same_records()
    monkeypatch.undo()
    kept = set(fake.scopes["sightline"])
    # Another one, made meanwhile, wins, and nothing is left of ours.
    look = schema._entries
    answers = iter([lambda server, name: []])
    monkeypatch.setattr(schema, "_entries", lambda server, name: next(answers, look)(server, name))
    with pytest.raises(CollectionExists):
        backend.create(CollectionSpec("photos", 8))
    assert set(fake.scopes["sightline"]) == kept


def test_a_create_that_failed_in_another_way_does_not_say_that_there_is_one(
    fake: FakeCouchbase, backend: CouchbaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = backend._server.query

    def impossible(statement: str, *arguments: Any, **options: Any) -> Any:
        if statement.startswith("INSERT"):
            raise Refused("durability impossible", frozenset({12009}))
        return query(statement, *arguments, **options)

    monkeypatch.setattr(backend._server, "query", impossible)
    with pytest.raises(Refused, match="durability impossible"):
        backend.create(CollectionSpec("photos", 8))
    assert set(fake.scopes["sightline"]) == {"catalogue"}


@pytest.mark.parametrize("begins", ["CREATE PRIMARY", "INSERT"])
def test_a_create_that_ends_half_way_leaves_nothing(
    backend: CouchbaseBackend, fake: FakeCouchbase, monkeypatch: pytest.MonkeyPatch, begins: str
) -> None:
    for method in ("query", "define"):
        carried_out = getattr(backend._server, method)

        def lost(statement: str, *arguments: Any, _do: Any = carried_out, **options: Any) -> Any:
            if statement.startswith(begins):
                raise Unavailable("the server went away")
            return _do(statement, *arguments, **options)

        monkeypatch.setattr(backend._server, method, lost)
    with pytest.raises(Unavailable, match="went away"):
        backend.create(CollectionSpec("photos", 8))
    assert set(fake.scopes["sightline"]) == {"catalogue"}
    monkeypatch.undo()
    filled(backend).same_records()


def test_what_a_killed_create_has_left_is_removed_a_day_later(
    fake: FakeCouchbase, backend: CouchbaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = filled(backend)
    kept = set(fake.scopes["sightline"])
    left = schema._new_keyspace()
    schema._make_collection(backend._server, left)
    connect(fake.url).close()
    assert set(fake.scopes["sightline"]) == kept | {left}
    now = time.time()
    monkeypatch.setattr(schema.time, "time", lambda: now + schema._ABANDONED_S + 1)
    connect(fake.url).close()
    assert set(fake.scopes["sightline"]) == kept
    twin.same_records()


def test_a_drop_whose_answer_was_lost_leaves_nothing(
    fake: FakeCouchbase, backend: CouchbaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(backend)
    query = backend._server.query

    def twice(statement: str, *arguments: Any, **options: Any) -> Any:
        if statement.startswith("DELETE"):
            query(statement, *arguments, **options)
        return query(statement, *arguments, **options)

    monkeypatch.setattr(backend._server, "query", twice)
    backend.drop("photos")
    assert set(fake.scopes["sightline"]) == {"catalogue"}


def test_collections_of_others_are_neither_listed_nor_touched(fake: FakeCouchbase, backend: CouchbaseBackend) -> None:
    server = backend._server
    server.manage("POST", "/scopes/sightline/collections", "name=theirs")
    assert backend.collections() == []
    filled(backend)
    backend.drop("photos")
    assert {"_default", "sightline"} == set(fake.scopes)
    assert set(fake.scopes["sightline"]) == {"catalogue", "theirs"}


def test_the_fake_refuses_those_without_credentials(fake: FakeCouchbase) -> None:
    port = fake.address.rpartition(":")[2].partition("/")[0]
    request = Request(f"http://127.0.0.1:{port}/pools/default/buckets/{BUCKET}/scopes")
    with pytest.raises(OSError, match="401"):
        urlopen(request, timeout=5)
