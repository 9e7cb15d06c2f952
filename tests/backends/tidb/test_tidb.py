"""What is particular to tidb://: the server, credentials, transactions, full disks, and the statements for TiFlash."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pymysql
import pytest
import trustme

from backends import connect
from backends.base import (
    BackendError,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    DimensionMismatch,
    IndexSpec,
    Not,
    Record,
    Unavailable,
    Unsupported,
)
from backends.conformance.oracle import Twin
from backends.conformance.samples import some, vectors
from backends.errors import Denied
from backends.kit import again
from backends.tidb import connection as tidb_connection
from backends.tidb import index
from backends.tidb.backend import TidbBackend
from backends.tidb.connection import KEY_VARIABLE, Connection, Database, parse_url, rows
from backends.tidb.filters import number_key, where_sql
from backends.tidb.local_server import launch, ready
from backends.tidb.records import MAX_ROWS, _parts, key_bytes, vector_of, vector_text
from backends.tidb.schema import StoredCollection, read_collection
from tests.support import tidb_server
from tests.support.stopped_clock import StoppedClock

server = pytest.mark.server("tidb")
PORT, STATUS_PORT = 14001, 14081


@pytest.fixture
def url() -> str:
    return tidb_server.server().url


@pytest.fixture
def backend(url: str) -> Iterator[TidbBackend]:
    with TidbBackend.connect(url) as opened:
        yield opened
        for name in opened.collections():
            opened.drop(name)


def filled(backend: TidbBackend, n: int = 30) -> Twin:
    twin = Twin(backend, CollectionSpec("photos", 8))
    twin.upsert(some(n))
    return twin


def ask(backend: TidbBackend, statement: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    return backend._database.run(lambda connection: rows(connection, statement, params))


def start(argv: Sequence[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A server of a test's own, on `PORT`; the session's has another one."""
    with log.open("ab") as file:
        # It notes where its memory went beside itself.
        process = subprocess.Popen(
            argv, cwd=log.parent, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT
        )
    wait_until_ready(process, log)
    return process


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not ready(PORT, STATUS_PORT):
        assert process.poll() is None, log.read_text("utf-8", "replace")[-1000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    for child in [*psutil.Process(process.pid).children(recursive=True), process]:
        child.kill()
    process.wait(30)


def test_all_that_a_development_server_writes_is_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.tidb.local_server._binary", lambda: "tidb-server")
    options = dict(option.split("=", 1) for option in launch(tmp_path).argv[1:])
    for written in ("-path", "-temp-dir", "-log-slow-query"):
        assert Path(options[written]).parent == tmp_path, written


# URLs and credentials


@pytest.mark.parametrize(
    "bad",
    [
        "tidb://",
        "tidb://host/db",
        "tidb://me@host",
        "tidb://me@host/db/more",
        "tidb://me:s3cret@[::1/x",
        "tidb://me:s3c@ret@host/d@b",
        "tidb://me:s3cret@host/db?nonsense=1",
        "tidb://me:s3cret@host:99999/db",
        "tidb://me:s3cret@host/db?timeout=0",
        "tidb://me:s3cret@host/db?ssl=perhaps",
        "tidb://me:s3cret@host/db?ssl=false&ssl_ca=/x",
        "tidb://me:s3cret@host/db?ssl_ca=/no/such/file",
    ],
)
def test_an_unusable_url_is_refused_without_repeating_it(bad: str) -> None:
    with pytest.raises(ValueError, match="tidb") as caught:
        connect(bad)
    assert "s3c" not in str(caught.value)


def test_the_parts_of_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    place = parse_url("tidb://an%40n:s3%2Fcret@db.example/photos?ssl=true&timeout=7")
    assert place.address == "tidb://db.example:4000/photos"
    assert place.timeout_s == 7
    assert (place.arguments["user"], place.arguments["password"]) == ("an@n", b"s3/cret")
    assert place.arguments["ssl"].verify_mode == ssl.CERT_REQUIRED
    assert place.arguments["ssl"].check_hostname
    assert "s3" not in repr(place)
    monkeypatch.setenv(KEY_VARIABLE, "from outside")
    assert parse_url("tidb://ann@db/photos").arguments["password"] == b"from outside"
    assert parse_url("tidb://ann:own@db/photos").arguments["password"] == b"own"


@server
def test_a_wrong_password_is_refused_and_not_shown(
    url: str, backend: TidbBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(backend, "CREATE USER IF NOT EXISTS 'ann' IDENTIFIED BY 'the right one'")
    ask(backend, "GRANT ALL ON test.* TO 'ann'")
    place = url.partition("@")[2]
    for wrong in (f"tidb://ann:wrong-secret@{place}", f"tidb://ann@{place}"):
        monkeypatch.setenv(KEY_VARIABLE, "wrong-too")
        with pytest.raises(Denied, match=KEY_VARIABLE) as caught:
            connect(wrong)
        assert "wrong-" not in str(caught.value)
        assert "\n" not in str(caught.value)
    monkeypatch.setenv(KEY_VARIABLE, "the right one")
    with connect(f"tidb://ann@{place}") as opened:
        assert opened.collections() == []


@server
def test_a_user_without_rights_and_a_missing_database_are_told(url: str, backend: TidbBackend) -> None:
    ask(backend, "CREATE USER IF NOT EXISTS 'reader' IDENTIFIED BY 'reads'")
    ask(backend, "GRANT SELECT ON test.* TO 'reader'")
    twin = filled(backend)
    place = url.partition("@")[2]
    with connect(f"tidb://reader:reads@{place}") as reader:
        assert reader.count("photos") == 30
        with pytest.raises(BackendError, match=r"refuses this user.*administrator"):
            reader.upsert("photos", some(1))
    twin.same_records()
    with pytest.raises(Unavailable, match="CREATE DATABASE"):
        connect(url.replace("/test", "/nowhere"))


@server
def test_tls_is_checked_against_the_authority(url: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "another.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    config = tmp_path / "config.toml"
    config.write_text(f'[security]\nssl-cert = "{tmp_path / "cert.pem"}"\nssl-key = "{tmp_path / "key.pem"}"\n')
    with pytest.raises(Unavailable, match="no TLS"):
        connect(f"{url}?ssl=true")
    started = launch(tmp_path, PORT, STATUS_PORT)
    process = start([*started.argv, f"-config={config}"], dict(started.env), tmp_path / "log")
    try:
        place = f"tidb://root@127.0.0.1:{PORT}/test"
        with TidbBackend.connect(f"{place}?ssl_ca={tmp_path / 'ca.pem'}") as opened:
            assert ask(opened, "SHOW STATUS LIKE 'Ssl_version'")[0][1].startswith("TLS")
        for untrusted in (f"{place}?ssl=true", f"{place}?ssl_ca={tmp_path / 'another.pem'}"):
            with pytest.raises(Unavailable, match=r"TLS failed.*certificate"):
                connect(untrusted)
    finally:
        end(process)


# The server's life


@server
def test_a_server_that_is_not_there_is_named_with_the_remedy() -> None:
    with pytest.raises(Unavailable, match=r"tidb://127.0.0.1:9/db.*running"):
        connect("tidb://root:secret-word@127.0.0.1:9/db")


@server
def test_an_open_backend_survives_a_restart_of_its_server(backend: TidbBackend) -> None:
    twin = filled(backend)
    threads = [threading.Thread(target=backend.count, args=("photos",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tidb_server.kill()
    with pytest.raises(Unavailable, match="running"):
        backend.count("photos")
    with pytest.raises(Unavailable, match="running"):
        backend.upsert("photos", some(3))
    tidb_server.server()
    twin.same_records()
    twin.upsert(some(40, seed=2))
    twin.same_hits(vectors(2, 8), 20)


@server
def test_what_was_written_before_a_kill_is_there_whatever_its_size(url: str) -> None:
    """Rows of 512 dimensions and long ids, 150 a call, the server killed the moment a call returns; five times."""
    rng = np.random.default_rng(5)
    with connect(url) as backend:
        backend.drop("killed")
        backend.create(CollectionSpec("killed", 512))
    stored: dict[str, np.ndarray] = {}
    for kill in range(5):
        with connect(url) as backend:
            for batch in range(3):
                made = [
                    Record(f"{kill}-{batch}-{i:03}-{'x' * (i % 4) * 60}", rng.standard_normal(512).astype(np.float32))
                    for i in range(150)
                ]
                backend.upsert("killed", made)
                stored |= {record.id: np.asarray(record.vector) for record in made}
            tidb_server.kill()
        tidb_server.server()
    with connect(url) as backend:
        found = {r.id: r.vector for page in backend.scan("killed") for r in page.records}
        assert found.keys() == stored.keys()
        assert backend.count("killed") == len(stored)
        assert backend.delete("killed", where=Not(Compare("nowhere", "exists", True))) == len(stored)
        tidb_server.kill()
    tidb_server.server()
    with connect(url) as backend:
        assert backend.count("killed") == 0
        backend.drop("killed")


def write_until_refused(backend: TidbBackend, acknowledged: list[list[str]]) -> None:
    """Write batches of large records without end; adds the ids of each that was acknowledged."""
    row = vectors(1, 8)[0]
    for batch in range(1_000):
        made = [Record(f"{batch:03}-{i:02}", row, "text", "x" * 60_000) for i in range(100)]
        backend.upsert("c", made)
        acknowledged.append([record.id for record in made])


@server
@pytest.mark.slow
def test_a_full_disk_is_said_in_time_and_leaves_a_store_that_starts_again(tmp_path: Path) -> None:
    """TiDB's embedded store stops answering. What it acknowledged at the very end it may not have on the disk."""
    small = tmp_path / "small"
    small.mkdir()
    started = launch(tmp_path, PORT, STATUS_PORT)
    argv = [part.replace(str(tmp_path / "data"), str(small / "data")) for part in started.argv]
    mount = f"mount -t tmpfs -o size=600m none {small}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    script = f'{mount} && head -c 200m /dev/zero > {small}/fill; "$@"; rm {small}/fill; exec "$@"'
    process = start(["unshare", "-rm", "sh", "-c", script, "sh", *argv], dict(started.env), tmp_path / "log")
    try:
        place = f"tidb://root@127.0.0.1:{PORT}/test"
        with TidbBackend.connect(f"{place}?timeout=5") as backend:
            backend.create(CollectionSpec("c", 8))
            acknowledged: list[list[str]] = []
            with pytest.raises(Unavailable, match=r"did not answer in time.*disk full"):
                write_until_refused(backend, acknowledged)
        psutil.Process(process.pid).children()[0].kill()
        wait_until_ready(process, tmp_path / "log")
        with TidbBackend.connect(place) as backend:
            found = {r.id for page in backend.scan("c", with_vectors=False, batch=200) for r in page.records}
            assert all(found.issuperset(ids) for ids in acknowledged[:-1])
            backend.upsert("c", some(3))
    finally:
        end(process)


# Sharing


@server
def test_tables_of_others_are_neither_listed_nor_touched(backend: TidbBackend) -> None:
    for statement in ("CREATE TABLE IF NOT EXISTS photos (id INT PRIMARY KEY)", "REPLACE INTO photos VALUES (1)"):
        ask(backend, statement)
    assert backend.collections() == []
    twin = filled(backend)
    twin.same_records()
    backend.drop("photos")
    assert ask(backend, "SELECT id FROM photos") == [(1,)]
    ask(backend, "DROP TABLE photos")


@server
def test_a_collection_dropped_and_made_again_by_another(url: str, backend: TidbBackend) -> None:
    with TidbBackend.connect(url) as other:
        filled(backend)
        other.drop("photos")
        for call in (
            lambda: backend.search("photos", np.ones((1, 8)), 3),
            lambda: backend.upsert("photos", some(2)),
            lambda: list(backend.scan("photos")),
        ):
            with pytest.raises(CollectionNotFound, match="photos"):
                call()
        filled(other, 5)
        assert backend.count("photos") == 5
        other.drop("photos")
        other.create(CollectionSpec("photos", 4))
        assert backend.search("photos", np.ones((1, 4)), 3) == [[]]
        with pytest.raises(DimensionMismatch):
            backend.upsert("photos", some(3, 8))
        assert other.count("photos") == 0


@server
def test_two_handles_write_the_same_records_at_once(url: str, backend: TidbBackend) -> None:
    backend.create(CollectionSpec("photos", 8))
    with TidbBackend.connect(url) as other:
        raised: list[BaseException] = []

        def write(handle: TidbBackend, seed: int) -> None:
            try:
                for _ in range(5):
                    handle.upsert("photos", some(250, seed=seed))
            except BaseException as error:
                raised.append(error)

        threads = [threading.Thread(target=write, args=pair) for pair in ((backend, 1), (other, 2))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert raised == []
    assert backend.count("photos") == 250
    assert len(backend.search("photos", vectors(1, 8), 300)[0]) == 250


@server
def test_tables_that_no_collection_names_are_removed_an_hour_later(
    backend: TidbBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(backend, "CREATE TABLE sightline_c_left (id INT PRIMARY KEY)")
    left = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'sightline_c_left'"
    backend.create(CollectionSpec("young", 4))
    assert ask(backend, left) == [(1,)]
    monkeypatch.setattr("backends.tidb.schema._LEFTOVER_HOURS", -1)
    twin = filled(backend)
    backend.create(CollectionSpec("old", 4))
    assert ask(backend, left) == [(0,)]
    twin.same_records()


@server
def test_tables_of_a_newer_version_are_left_alone(url: str, backend: TidbBackend) -> None:
    ask(backend, "INSERT INTO sightline_migrations (version) VALUES (99)")
    try:
        with pytest.raises(BackendError, match="upgrade Sightline"):
            connect(url)
    finally:
        ask(backend, "DELETE FROM sightline_migrations WHERE version = 99")


# Statements


def test_numbers_are_ordered_by_value() -> None:
    ordered = [-(2**63), -1e300, -1.5, -1, 0, 5e-324, 0.1, 1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, 9.3e18, 1e300]
    ordered[:2] = [-1e300, -(2**63)]
    keys = [number_key(value) for value in ordered]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert len({len(key) for key in keys}) == 1
    assert number_key(2**53) == number_key(float(2**53))
    assert number_key(0.0) == number_key(-0.0) == number_key(0)


def test_values_are_bound() -> None:
    hostile = "'; DROP TABLE x; --"
    text, params = where_sql(Not(Compare("v", "in", tuple(f"{hostile}{i}" for i in range(20)))))
    assert "DROP" not in text
    assert any(hostile in str(param) for param in params)


def test_vectors_come_back_bit_for_bit() -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 20_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    assert vector_of(vector_text(values)).tobytes() == values.tobytes()


def test_a_transaction_has_few_rows_keys_and_bytes() -> None:
    short = [(b"%05d" % i, "text") for i in range(250)]
    assert [len(part) for part in _parts(iter(short))] == [MAX_ROWS, MAX_ROWS, 50]
    long = [(b"%0512d" % i, "text") for i in range(100)]
    parts = list(_parts(iter(long)))
    assert [row for part in parts for row in part] == long
    assert max(sum(key_bytes(row[0]) for row in part) for part in parts) < 16 << 10
    large = [(b"%05d" % i, "x" * (3 << 20)) for i in range(5)]
    assert [len(part) for part in _parts(iter(large))] == [2, 2, 1]


@server
def test_a_vector_of_the_wrong_length_reaches_no_table(backend: TidbBackend) -> None:
    twin = filled(backend)
    with pytest.raises(DimensionMismatch, match="wrong"):
        backend.upsert("photos", [*some(3, prefix="n"), Record("wrong", np.ones(9, np.float32))])
    with pytest.raises(ValueError, match="infinite"):
        backend.upsert("photos", [Record("huge", np.full(8, 1e39))])
    twin.same_records()
    with pytest.raises(Unsupported, match=r"16383.*16384"):
        backend.create(CollectionSpec("wide", 16_384))
    assert backend.collections() == ["photos"]


@server
def test_a_statement_that_takes_too_long_is_given_up_once(url: str) -> None:
    database = Database(parse_url(f"{url}?timeout=1"))
    asked = []

    def slow(connection: Connection) -> None:
        asked.append(1)
        rows(connection, "SELECT SLEEP(30)")

    try:
        with pytest.raises(Unavailable, match="in time"):
            database.run(slow)
        assert len(asked) == 1
        assert database.run(lambda connection: rows(connection, "SELECT 1")) == [(1,)]
    finally:
        database.close()


class NoConnection:
    """A connection that is open, and of which nothing is asked."""

    open = True

    def close(self) -> None:
        self.open = False


@pytest.fixture
def unconnected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(tidb_connection, "open_connection", lambda *_, **__: NoConnection())
    database = Database(parse_url("tidb://root@127.0.0.1/test"))
    yield database
    database.close()


@pytest.mark.parametrize("number", [9007, 8028, 8022, 8027, 1213])
def test_what_fails_by_what_others_do_is_done_again(unconnected: Database, number: int) -> None:
    answers: list[Exception | int] = [
        pymysql.OperationalError(number, "no"),
        pymysql.err.InternalError(number, "no"),
        5,
    ]

    def work(_: Connection) -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert unconnected.run(work) == 5
    assert not answers


def test_a_conflict_that_stays_is_told_in_seconds_and_a_refusal_at_once(
    unconnected: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StoppedClock()
    monkeypatch.setattr(again, "time", clock)
    asked: list[int] = []

    def fail(number: int) -> None:
        asked.append(number)
        raise pymysql.OperationalError(number, "no")

    for number, least, most in ((9007, 5, 100), (8028, 5, 100), (1105, 1, 1)):
        asked.clear()
        with pytest.raises(BackendError) as caught:
            unconnected.run(lambda _, number=number: fail(number))
        assert not isinstance(caught.value, Unavailable)
        assert least <= len(asked) <= most
    assert 6 < clock.now < 20


# TiFlash, by contract


class FakeCluster:
    """Answers as a cluster with TiFlash does, and keeps the statements; none is run anywhere."""

    def __init__(self, available: Sequence[int] = (0, 1)) -> None:
        self.statements: list[str] = []
        self._available = list(available)

    def cursor(self) -> FakeCluster:
        return self

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def execute(self, statement: str, params: object) -> int:
        self.statements.append(statement)
        return 0

    def fetchall(self) -> list[tuple[int]]:
        return [(self._available.pop(0),)]


STORED = StoredCollection("sightline_c_1", CollectionSpec("photos", 8, index=IndexSpec("hnsw")), 1, False)


def test_building_an_index_is_what_tidb_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """https://docs.pingcap.com/tidb/stable/vector-search-index, and SET TIFLASH REPLICA as its page says."""
    waited: list[float] = []
    monkeypatch.setattr(index.time, "sleep", waited.append)
    cluster: Any = FakeCluster()
    index.bring_up_to_date(cluster, "photos", STORED)
    copied, *polls, built, noted = cluster.statements
    assert copied == "ALTER TABLE sightline_c_1 SET TIFLASH REPLICA 1"
    assert len(polls) == 2
    assert all("information_schema.tiflash_replica" in poll for poll in polls)
    assert built == (
        "ALTER TABLE sightline_c_1 ADD VECTOR INDEX IF NOT EXISTS vectors ((VEC_COSINE_DISTANCE(vector))) USING HNSW"
    )
    assert noted.startswith("UPDATE sightline_collections SET indexed = TRUE")
    assert len(waited) == 1
    again: Any = FakeCluster()
    index.bring_up_to_date(again, "photos", StoredCollection("sightline_c_1", STORED.spec, 1, True))
    assert again.statements == ["ALTER TABLE sightline_c_1 COMPACT TIFLASH REPLICA"]


def test_a_copy_that_never_comes_ends_the_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index.time, "sleep", lambda seconds: None)
    cluster: Any = FakeCluster([0] * 3_600)
    with pytest.raises(Unavailable, match="TiFlash has not copied"):
        index.bring_up_to_date(cluster, "photos", STORED)


def test_when_an_index_is_built() -> None:
    def wants(kind: str, metric: str, having: int) -> bool:
        spec = CollectionSpec("c", 8, metric, index=IndexSpec(kind))  # type: ignore[arg-type]
        return index.wants_index(StoredCollection("t", spec, 1, False), having)

    assert wants("hnsw", "cosine", 1)
    assert wants("auto", "l2", 10_000)
    assert not wants("auto", "cosine", 9_999)
    assert not wants("flat", "cosine", 10**6)
    assert not wants("auto", "dot", 10**6)


def test_what_an_index_cannot_be_is_refused() -> None:
    with pytest.raises(Unsupported, match="dot"):
        index.check_index(CollectionSpec("c", 8, "dot", index=IndexSpec("hnsw")))
    with pytest.raises(Unsupported, match="no parameters"):
        index.check_index(CollectionSpec("c", 8, index=IndexSpec("hnsw", params={"m": 8})))


@server
def test_the_server_reads_the_statements_and_misses_the_nodes(backend: TidbBackend) -> None:
    """The real parser takes them; what is refused is for want of TiFlash."""
    filled(backend)
    stored = backend._database.run(lambda connection: read_collection(connection, "photos"))
    assert stored is not None
    assert not backend._database.run(index.has_tiflash)
    with pytest.raises(Unsupported, match="hnsw"):
        backend.create(CollectionSpec("graph", 8, index=IndexSpec("hnsw")))
    with pytest.raises(BackendError, match=r"tiflash replica count: 1 .* server count: 0"):
        backend._database.run_long(lambda connection: index.bring_up_to_date(connection, "photos", stored))
    add = (
        f"ALTER TABLE {stored.table} ADD VECTOR INDEX IF NOT EXISTS vectors ((VEC_COSINE_DISTANCE(vector))) USING HNSW"
    )
    with pytest.raises(Unsupported, match=r"vector index.*TiFlash replica"):
        ask(backend, add)
    ask(backend, f"ALTER TABLE {stored.table} COMPACT TIFLASH REPLICA")


@server
def test_a_collection_with_an_index_is_asked_through_it_without_a_filter(backend: TidbBackend) -> None:
    """Where there is none the same statements are answered by comparing, so that what they find can be checked."""
    twin = filled(backend)
    twin.upsert([Record("none", np.empty(0, np.float32))])
    ask(backend, "UPDATE sightline_collections SET indexed = TRUE WHERE name = 'photos'")
    backend._known.clear()
    assert not twin.same_hits(vectors(2, 8), 10)[0][0].exact or twin.same_hits(vectors(1, 8), 30)[0][0].exact
    assert twin.same_hits(vectors(2, 8), 10, Compare("n", "gte", 3))[0][0].exact
    assert twin.same_hits(vectors(2, 8), 31)[0][0].exact


@server
def test_an_exact_scan_cannot_be_answered_by_the_index(backend: TidbBackend) -> None:
    """TiDB's own tests say of its index: not for an expression around the distance, nor with a second order."""
    filled(backend)
    said: list[str] = []
    original = tidb_connection.rows

    def listen(connection: Connection, statement: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        said.append(statement)
        return original(connection, statement, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backends.tidb.search.rows", listen)
        backend.search("photos", vectors(1, 8), 3)
    (statement,) = said
    assert re.search(
        r"0 - VEC_NEGATIVE_INNER_PRODUCT\(vector, %s\) AS value .* ORDER BY value DESC, id LIMIT 3", statement
    )
