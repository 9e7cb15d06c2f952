"""What is particular to ClickHouse, chDB and MyScale: turns, kills between two steps, servers, statements."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from backends import connect
from backends.base import (
    NO_VECTOR,
    Backend,
    BackendError,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    DimensionMismatch,
    IndexSpec,
    Record,
    Unavailable,
    Unsupported,
)
from backends.clickhouse import records as stored
from backends.clickhouse.backend import ClickHouseStore
from backends.clickhouse.connection import Server, parse_url
from backends.clickhouse.dialects import ClickHouse, MyScale
from backends.clickhouse.embedded import _Engine
from backends.clickhouse.filters import MAX_BOUND, Params, scalar_key
from backends.clickhouse.schema import comment_of, read_table
from backends.clickhouse.words import renew_words
from backends.conformance import Twin
from backends.conformance.samples import clustered, some, vectors
from backends.conformance.threads import together
from backends.errors import Denied
from backends.kit import again
from backends.kit.widths import Width
from backends.text import WORDS_VERSION
from indexers.transfer import copy
from tests.support.clickhouse_bridge import Bridge
from tests.support.old_words import old_words
from tests.support.repository import ROOT
from tests.support.stopped_clock import StoppedClock

SPEC = CollectionSpec("photos", 8)
PASSWORD = "a s3cret pass@word"


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    with tempfile.TemporaryDirectory(prefix="ch-", ignore_cleanup_errors=True) as folder:
        made = Bridge(Path(folder), password=PASSWORD)
        yield made
        made.kill()


@pytest.fixture
def chdb(tmp_path: Path) -> Iterator[Any]:
    with connect(f"chdb://{tmp_path}/store") as backend:
        yield backend


@pytest.fixture(params=["chdb", pytest.param("clickhouse", marks=pytest.mark.server)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store of each kind without collections."""
    if request.param == "chdb":
        yield f"chdb://{tmp_path}/store"
        return
    server = request.getfixturevalue("bridge")
    yield server.url()
    with connect(server.url()) as backend:
        for name in backend.collections():
            backend.drop(name)


def filled(backend: Backend, n: int = 30) -> Twin:
    twin = Twin(backend, SPEC)
    twin.upsert(some(n))
    return twin


# Upserts in two steps


class Killed(Exception):
    """Stands for the end of the process."""


def kill_between(backend: Any, records: list[Record], write: Callable[[], None] | None = None) -> None:
    """Upsert, or `write`, as far as the new rows are in, and the old ones not yet gone."""

    def settle(*_: object) -> None:
        raise Killed

    backend._settle = settle
    with pytest.raises(Killed):
        (write or partial(backend.upsert, "photos", records))()
    del backend._settle


def test_a_kill_between_the_two_steps_of_an_upsert_leaves_the_newest_rows_only(place: str) -> None:
    with connect(place) as backend:
        twin = filled(backend)
        changed = [
            Record(f"r{i:05}", vectors(1, 8, seed=70 + i)[0], text="newest", metadata={"n": -i}) for i in range(9)
        ]
        kill_between(backend, changed)
        twin.oracle.upsert("photos", changed)
        assert backend.count("photos") == 30
        assert backend.count("photos", Compare("n", "lte", 0)) == 9
        twin.same_records()
    with connect(place) as backend:
        twin.backend = backend
        twin.same_records()
        twin.same_count(Compare("n", "lt", 5))
        twin.same_hits(vectors(4, 8), 40)
        assert len(backend.search_text("photos", "newest", 50)) == 9
        rows = backend._database.rows(f"SELECT count() FROM {backend._find('photos').sql}")
        assert rows[0][0] == 30, "what was replaced has gone, and what said so"


def test_repairing_twice_does_no_harm_and_a_later_upsert_wins(place: str) -> None:
    with connect(place) as backend:
        twin = filled(backend, 5)
        kill_between(backend, some(5, seed=4))
        twin.upsert(some(5, seed=5))
    for _ in range(2):
        with connect(place) as backend:
            twin.backend = backend
            twin.same_records()
            twin.same_count(None)


def test_a_killed_process_leaves_the_newest_rows_only(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/store"
    with connect(url) as backend:
        filled(backend, 20)
    killed = subprocess.run([sys.executable, "-c", KILLED, url], cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert killed.returncode == -9
    with connect(url) as backend:
        assert backend.count("photos") == 20
        found = backend.get("photos", [f"r{i:05}" for i in range(20)])
        assert [record.text for record in found] == ["newest"] * 20


KILLED = """
import os, sys
import numpy as np
from backends import connect
from backends.base import Record
with connect(sys.argv[1]) as backend:
    backend._settle = lambda *_: os.kill(os.getpid(), 9)
    backend.upsert("photos", [Record(f"r{i:05}", np.ones(8), text="newest") for i in range(20)])
"""


def test_what_is_acknowledged_is_on_the_disk(chdb: ClickHouseStore) -> None:
    chdb.create(SPEC)
    ((made,),) = chdb._database.rows("SELECT create_table_query FROM system.tables WHERE name = 'sightline_photos'")
    for setting in ("fsync_after_insert = 1", "fsync_part_directory = 1", "min_rows_to_fsync_after_merge = 1"):
        assert setting in made


# The index


def test_an_index_finds_also_after_deletions_and_what_is_not_in_it_yet(chdb: ClickHouseStore) -> None:
    rows = clustered(3_000, 16, seed=5)
    twin = Twin(chdb, CollectionSpec("photos", 16, index=IndexSpec("hnsw")))
    twin.upsert(Record(f"r{i:05}", rows[i], metadata={"i": i}) for i in range(2_500))
    assert chdb.search("photos", rows[:1], 5)[0][0].exact, "nothing is indexed before flush"
    chdb.flush("photos")
    (hits,) = chdb.search("photos", rows[:1], 5)
    assert not hits[0].exact
    table = chdb._find("photos")
    distance = f"cosineDistance({table.vector}, {rows[0].tolist()})"
    plan = chdb._database.rows(f"EXPLAIN indexes = 1 SELECT id FROM {table.sql} ORDER BY {distance} LIMIT 5")
    assert "vector_similarity" in str(plan)
    twin.delete(where=Compare("i", "lt", 500))
    twin.upsert(Record(f"r{i:05}", rows[i], metadata={"i": i}) for i in range(2_500, 3_000))
    twin.upsert([Record("blind", NO_VECTOR)])
    twin.same_hits(rows[::100] + np.float32(0.01), 10, recall=0.95)
    (filtered,) = chdb.search("photos", rows[:1], 5, where=Compare("i", "gt", 2_600))
    assert filtered[0].exact


def test_a_new_width_leaves_what_others_change_meanwhile(
    chdb: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*_: object) -> Width:
        chdb.set_encoder("photos", "second:2")
        return Width(20_000, 512, 0.98)

    chdb.create(SPEC)
    monkeypatch.setattr("backends.clickhouse.backend.measure", meanwhile)
    chdb.flush("photos")
    assert chdb.describe("photos").encoder == "second:2"
    assert chdb._find("photos").width == Width(20_000, 512, 0.98)


def test_a_second_flush_has_nothing_to_do(chdb: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = filled(chdb)
    chdb.flush("photos")
    twin.delete(ids=["r00001"])
    chdb.flush("photos")
    twin.same_records()
    monkeypatch.setattr(ClickHouse, "wait", lambda *_: ["SELECT throwIf(1)"])
    chdb.flush("photos")


@pytest.mark.parametrize(
    ("metric", "index"),
    [
        ("dot", IndexSpec("hnsw")),
        ("l2", IndexSpec("hnsw", "int8")),
        ("cosine", IndexSpec("flat", "half")),
        ("cosine", IndexSpec("hnsw", params={"m": 1})),
    ],
)
def test_an_index_that_cannot_be_is_refused(chdb: Backend, metric: Any, index: IndexSpec) -> None:
    with pytest.raises(Unsupported):
        chdb.create(CollectionSpec("photos", 8, metric, index=index))
    assert chdb.collections() == []


def test_words_of_an_earlier_version_are_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"chdb://{tmp_path}/store"
    with connect(url) as backend:
        backend.create(SPEC)
        with monkeypatch.context() as patch:
            patch.setattr(stored, "tokenize", old_words)
            backend.upsert("photos", [Record("a", np.ones(8), text="飞机停在跑道"), Record("b", NO_VECTOR, text="x")])
        comment = comment_of(SPEC, 1).replace("\\", "\\\\").replace("'", "\\'")
        backend._database.execute(f"ALTER TABLE {backend._find('photos').sql} MODIFY COMMENT '{comment}'")
    with connect(url) as backend:
        assert [hit.id for hit in backend.search_text("photos", "飞机", 5)] == ["a"]
        assert backend._find("photos", fresh=True).words == WORDS_VERSION
        assert backend.count("photos") == 2
        assert not backend.get("photos", ["b"], with_vectors=True)[0].has_vector


def test_two_who_take_the_words_anew_at_once_lose_nothing(chdb: ClickHouseStore) -> None:
    filled(chdb, 5)
    table, runs = chdb._find("photos"), []
    for _ in range(2):
        # Both have read before either writes.
        renew_words(chdb._database, table, lambda *given: runs.append(given))
    kill_between(chdb, some(0), lambda: chdb._write(*runs[0]))
    chdb._write(*runs[1])
    assert runs[0][3] != runs[1][3]
    assert chdb.count("photos") == 5
    # And what is equally new, however unlikely, stays.
    kill_between(chdb, some(0), lambda: chdb._write(*runs[1]))
    chdb._write(*runs[1])
    assert len(chdb.get("photos", [record.id for record in some(5)])) == 5


# One folder in a process, one process in a folder


def test_two_stores_of_a_process_take_turns(tmp_path: Path) -> None:
    one, two = (connect(f"chdb://{tmp_path}/{name}") for name in ("one", "two"))
    with one, two:
        twins = [filled(one), filled(two, 12)]

        def use(twin: Twin) -> None:
            for _ in range(5):
                twin.same_records()
                twin.same_hits(vectors(2, 8), 9)

        threads = [threading.Thread(target=use, args=(twin,)) for twin in twins for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        twins[0].upsert(some(3, seed=9))
        twins[0].same_records()
        twins[1].same_records()
        assert copy(one, "photos", two, "copied").written == 30
        assert two.count("copied") == 30


def test_who_is_interrupted_while_it_waits_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine()
    engine._enter(tmp_path / "one")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine._changed, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine._enter(tmp_path / "two")
    assert not engine._queue


def test_long_texts_are_inserted_in_parts(chdb: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.clickhouse.backend._BYTES", 10_000)
    sizes: list[int] = []
    insert = chdb._database.insert

    def measured(table: str, columns: Any, rows: bytes, settings: Any) -> None:
        sizes.append(len(rows))
        insert(table, columns, rows, settings)

    monkeypatch.setattr(chdb._database, "insert", measured)
    twin = Twin(chdb, SPEC)
    twin.upsert([Record(f"r{i}", vectors(1, 8, seed=i)[0], text="word " * 100 * (i + 1)) for i in range(9)])
    assert len(sizes) > 4
    assert max(sizes) < 10_000
    twin.same_records()


def test_stores_of_one_folder_write_one_after_another(tmp_path: Path) -> None:
    with connect(f"chdb://{tmp_path}/store") as one, connect(f"chdb://{tmp_path}/store") as other:
        one.create(SPEC)
        writes = [partial(store.upsert, "photos", some(40, seed=seed)) for seed, store in enumerate((one, other) * 3)]
        together(writes)
        assert one.count("photos") == other.count("photos") == 40
        assert len([record for page in other.scan("photos") for record in page.records]) == 40


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable, match=r"cannot use the folder .*/file"):
        connect(f"chdb://{tmp_path}/file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk; CI runs as root")
def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    command = f"mount -t tmpfs -o size=48m none {tmp_path} && exec {sys.executable} -c '{FULL}' chdb://{tmp_path}/store"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "disk of chdb://" in done.stdout
    assert "\n" not in done.stdout.strip()


FULL = """
import sys
import numpy as np
from backends import connect
from backends.base import CollectionSpec, Record
from backends.errors import Unavailable
rng = np.random.default_rng(0)
with connect(sys.argv[1]) as backend:
    backend.create(CollectionSpec("photos", 1024))
    stored = 0
    try:
        for batch in range(100):
            rows = rng.standard_normal((500, 1024))
            backend.upsert("photos", [Record(f"r{batch}-{i}", row) for i, row in enumerate(rows)])
            stored += 500
    except Unavailable as error:
        print(error)
    assert 0 < stored < 50_000, stored
    assert backend.count("photos") == stored
    assert len(backend.search("photos", rows[:1], 5)[0]) == 5
with connect(sys.argv[1]) as backend:
    assert backend.count("photos") == stored
"""


# Servers


@pytest.mark.server
def test_wrong_credentials_are_said_without_the_password(bridge: Bridge) -> None:
    with pytest.raises(Denied, match="credentials") as caught:
        connect(bridge.url(password="wr0ng-password"))
    assert "wr0ng" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.server
def test_the_password_may_be_in_the_environment(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CLICKHOUSE_PASSWORD", PASSWORD)
    with connect(f"clickhouse://127.0.0.1:{bridge.port}/sightline") as backend:
        assert backend.collections() == []


@pytest.mark.server
def test_a_server_that_goes_and_comes_back(bridge: Bridge) -> None:
    with connect(bridge.url()) as backend:
        twin = filled(backend)
        bridge.kill()
        try:
            for call in (lambda: backend.count("photos"), lambda: connect(bridge.url())):
                with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{bridge.port}.*running") as caught:
                    call()
                assert "s3cret" not in str(caught.value)
        finally:
            bridge.start()
        twin.same_records()
        twin.upsert(some(9, seed=3))
        twin.same_hits(vectors(2, 8), 40)
        backend.drop("photos")


@pytest.mark.server
def test_what_takes_too_long_is_said_once_and_what_may_take_long_is_waited_for(bridge: Bridge) -> None:
    server = Server(parse_url(bridge.url(), "clickhouse", variable="NONE"), call_s=1)
    try:
        tries: list[int] = []

        def sleep() -> None:
            tries.append(1)
            server.execute("SELECT sleep(2.5)")

        with pytest.raises(Unavailable, match="did not answer in time"):
            server.run(sleep)
        assert len(tries) == 1, "it would take as long again"
        server.execute_long("SELECT sleep(2.5)")
    finally:
        server.close()


def test_a_flush_has_no_limit_of_time(chdb: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(chdb._database, "execute_long", asked.append)
    twin = filled(chdb)
    twin.upsert(some(5, seed=2))
    chdb.flush("photos")
    assert [statement.split(" TABLE ")[0] for statement in asked] == ["OPTIMIZE"]


@pytest.mark.server
def test_who_is_connected_finds_nothing_of_what_another_s_kill_left(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.clickhouse.backend._TABLE_LIFE_S", 0.0)
    with connect(bridge.url()) as mine, connect(bridge.url()) as other:
        mine.create(SPEC)
        mine.upsert("photos", [Record("a", np.ones(8), text="old", metadata={"n": 1})])
        other.count("photos")
        kill_between(other, [Record("a", np.ones(8), text="new", metadata={"n": 2})])
        assert mine.search("photos", np.ones((1, 8)), 5, where=Compare("n", "eq", 1)) == [[]]
        assert mine.search_text("photos", "old", 5) == []
        assert mine.count("photos") == 1
        mine.drop("photos")


@pytest.mark.server
def test_what_others_drop_or_make_otherwise(bridge: Bridge) -> None:
    with connect(bridge.url()) as mine, connect(bridge.url()) as other:
        filled(mine)
        other.drop("photos")
        with pytest.raises(CollectionNotFound, match="photos"):
            mine.upsert("photos", some(1))
        for spec in (CollectionSpec("photos", 4), CollectionSpec("photos", 4, "l2")):
            other.drop("photos")
            other.create(spec)
            mine.upsert("photos", some(7, 4))
            assert mine.search("photos", vectors(1, 4), 9)[0] == other.search("photos", vectors(1, 4), 9)[0]
            with pytest.raises(DimensionMismatch):
                mine.upsert("photos", some(1, 8))
            with pytest.raises(DimensionMismatch):
                mine.search("photos", vectors(1, 8), 1)
            assert mine.count("photos") == 7
        other.drop("photos")


@pytest.mark.server
def test_two_who_write_the_same_ids_at_once_leave_one_row_each(bridge: Bridge) -> None:
    with connect(bridge.url()) as one, connect(bridge.url()) as two:
        one.create(SPEC)

        def write(backend: Backend, name: str) -> None:
            for batch in range(6):
                backend.upsert(
                    "photos", [Record(f"s{i}", vectors(1, 8, seed=i)[0], text=name) for i in range(batch, 30)]
                )

        threads = [threading.Thread(target=write, args=given) for given in ((one, "one"), (two, "two"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.count("photos") == 30
        assert len(one.search("photos", vectors(1, 8), 99)[0]) == 30
        assert len([r for page in two.scan("photos") for r in page.records]) == 30
        one.drop("photos")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("clickhouse://me:s3cret@[::1/x", "cannot be read"),
        ("clickhouse://me:s3cret@h/db?nonsense=1", "option 1 of the URL is none of clickhouse://; it has secure"),
        ("myscale://me:s3cret@h/db?secure=true&s3cret=1", "option 2 of the URL is none of myscale://; it has secure"),
        ("clickhouse://me:s3cret@h/db?secure=maybe", "true or false"),
    ],
)
def test_an_unreadable_url_is_refused_without_repeating_it(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        connect(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "port", "secure"),
    [
        ("db", 8443, True),
        ("db?secure=true", 8443, True),
        ("db?secure=false", 8123, False),
        ("db:443", 443, True),
        ("db:8123", 8123, False),
        ("db:9000?secure=true", 9000, True),
    ],
)
def test_myscale_is_reached_by_tls_unless_the_url_says_otherwise(rest: str, port: int, secure: bool) -> None:
    place = parse_url(f"myscale://ann@{rest}", "myscale", variable="NONE", secure=MyScale.secure)
    assert (place.port, place.secure) == (port, secure)


@pytest.mark.server
@pytest.mark.parametrize("state", ["old", "new"])
def test_a_deletion_by_a_filter_beside_another_s_upsert_brings_nothing_back(bridge: Bridge, state: str) -> None:
    with connect(bridge.url()) as one, connect(bridge.url()) as two:
        one.create(SPEC)
        rows = vectors(3, 8)
        one.upsert("photos", [Record(name, rows[i], metadata={"state": "old"}) for i, name in enumerate("abc")])
        changed = [Record("a", rows[0], metadata={"state": "new"}), Record("b", rows[1], metadata={"state": "new"})]
        # The new rows are in, and what they replace has not gone yet.
        kill_between(two, changed)
        left = {"old": ["a", "b"], "new": ["c"]}[state]
        assert one.delete("photos", where=Compare("state", "eq", state)) == 3 - len(left)
        two.upsert("photos", [])
        with connect(bridge.url()) as three:
            assert [record.id for page in three.scan("photos") for record in page.records] == left
            assert three.count("photos") == len(left)
            three.drop("photos")


def test_a_flush_keeps_no_writer_waiting(chdb: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = filled(chdb)
    execute = chdb._database.execute_long

    def merging(statement: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(twin.upsert, some(40, seed=3)).result()
        execute(statement)

    monkeypatch.setattr(chdb._database, "execute_long", merging)
    chdb.upsert("photos", twin.oracle.get("photos", ["r00001"], with_vectors=True))
    chdb.flush("photos")
    twin.same_records()
    twin.same_hits(vectors(2, 8), 50)


def test_a_url_says_where_and_as_whom() -> None:
    place = parse_url("clickhouse://ann:p%40ss@db:8443/photos", "clickhouse", variable="NONE")
    assert (place.host, place.port, place.database, place.user) == ("db", 8443, "photos", "ann")
    assert (place.password, place.secure) == ("p@ss", True)
    assert "p@ss" not in f"{place!r} {place.address}"
    assert not parse_url("clickhouse://db", "clickhouse", variable="NONE").secure
    assert parse_url("clickhouse://db?secure=true", "clickhouse", variable="NONE").port == 8443


class Said:
    """A database of which only the version is asked."""

    address = "clickhouse://h:8123/d"

    def __init__(self, version: str) -> None:
        self._version = version

    def rows(self, *_: object) -> list[tuple[str]]:
        return [(self._version,)]


def test_a_server_without_the_index_is_refused_by_its_version() -> None:
    ClickHouse().check(Said("25.8.2.29"))  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match=r"24\.8\.1\.1; 25\.8 or later"):
        ClickHouse().check(Said("24.8.1.1"))  # type: ignore[arg-type]


# Statements


def test_keys_of_scalars_order_as_they_do() -> None:
    numbers = [-1e300, -(2**63), -2.5, -1, 0, 5e-324, 2.5, 3, 2**53, 2**53 + 1, 2.0**60, 2**60 + 1, 9.3e18, 1e300]
    keys = [scalar_key(number) for number in numbers]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert scalar_key(1) == scalar_key(1.0) != scalar_key(True)


def test_long_lists_are_bound_in_pieces_that_a_server_takes() -> None:
    params = Params()
    values = [f"{i:0500}" for i in range(1_000)]
    assert params.among("id", values).count(" OR ") > 5
    bound: list[Any] = list(params.values.values())
    assert [value for some in bound for value in some] == values
    assert max(sum(map(len, some)) for some in bound) <= MAX_BOUND


def test_myscale_is_told_what_its_documentation_says() -> None:
    """See https://docs.myscale.com/docs/en/vector-search; its bounds are those that its own tests state."""
    dialect = MyScale()
    for index, wanted in (
        (IndexSpec(), "MSTG('metric_type=Cosine')"),
        (IndexSpec("hnsw"), "HNSWFLAT('metric_type=Cosine')"),
        (
            IndexSpec("hnsw", params={"m": 16, "ef_construction": 100}),
            "HNSWFLAT('metric_type=Cosine', 'm=16', 'ef_c=100')",
        ),
    ):
        told = dialect.index_ddl("d.t", CollectionSpec("t", 8, index=index), "cosine_8")
        assert told == f"ALTER TABLE d.t ADD VECTOR INDEX nearest cosine_8 TYPE {wanted}"
    assert dialect.wait("d.t")[-1] == "SYSTEM WAIT BUILDING VECTOR INDICES d.t"
    for metric, name, direction in (("cosine", "Cosine", "ASC"), ("l2", "L2", "ASC"), ("dot", "IP", "DESC")):
        spec = CollectionSpec("t", 8, metric)  # type: ignore[arg-type]
        assert f"'metric_type={name}'" in dialect.index_ddl("t", spec, "v")
        ordering = dialect.ordering(spec, "v", "[1]", 256)
        assert (ordering.distance, ordering.direction) == ("distance('alpha=3')(v, [1])", direction)
        assert not ordering.settings
    assert dialect.ordering(SPEC, "v", "q", 9_999).distance == "distance('alpha=4')(v, q)"
    hnsw = CollectionSpec("t", 8, index=IndexSpec("hnsw"))
    assert dialect.ordering(hnsw, "v", "q", 300).distance == "distance('ef_s=300')(v, q)"
    for params in ({"m": 7}, {"m": 129}, {"ef_construction": 15}, {"ef_construction": 1_025}):
        with pytest.raises(Unsupported, match="MyScale takes"):
            dialect.check_index(CollectionSpec("t", 8, index=IndexSpec("hnsw", params=params)))


@pytest.mark.server
def test_myscale_s_own_statements_are_those_and_no_others(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path, myscale=True)
    try:
        with connect(bridge.url()) as backend:
            rows = clustered(200, 8, seed=1)
            backend.create(CollectionSpec("photos", 8, index=IndexSpec("hnsw")))
            backend.upsert("photos", [Record(f"r{i}", row) for i, row in enumerate(rows)])
            backend.flush("photos")
            (hits,) = backend.search("photos", rows[:1], 2)
            assert (hits[0].id, hits[0].exact) == ("r0", False)
            table = read_table(backend._database, backend._dialect, "photos")
            assert table is not None
            assert table.indexed
        added, waited, searched = bridge.statements()
    finally:
        bridge.kill()
    at = "`sightline`.`sightline_photos`"
    assert added == f"ALTER TABLE {at} ADD VECTOR INDEX nearest cosine_8 TYPE HNSWFLAT('metric_type=Cosine')"
    assert waited == f"SYSTEM WAIT BUILDING VECTOR INDICES {at}"
    assert searched.startswith(
        "SELECT id, modality, text, uri, metadata, has_vector, seq, distance('ef_s=256')(cosine_8, "
    )
    assert searched.partition(" FROM ")[2].startswith(f"{at} ORDER BY distance ASC LIMIT 12")


def test_an_error_is_one_line(chdb: ClickHouseStore) -> None:
    with pytest.raises(BackendError) as caught:
        chdb._database.rows("SELECT\nnonsense(1)")
    assert "\n" not in str(caught.value)
    assert "(version" not in str(caught.value)


class FailsFirst:
    """A client that answers only after these errors."""

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes)

    def query(self, *_: object, **__: object) -> Any:
        if self._codes:
            raise DatabaseError("out of luck", code=self._codes.pop(0))
        return SimpleNamespace(result_rows=[(5,)])

    def close(self) -> None:
        pass


def test_what_a_server_cannot_do_at_the_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "time", StoppedClock())
    place = parse_url("clickhouse://h/d", "clickhouse", variable="NONE")
    for codes in ((202, 236), (999,)):
        monkeypatch.setattr(Server, "_new_client", lambda *_, codes=codes: FailsFirst(*codes))
        server = Server(place)
        assert server.run(lambda server=server: server.rows("SELECT 5")) == [(5,)]
        server.close()
    monkeypatch.setattr(Server, "_new_client", lambda *_: FailsFirst(*[202] * 1_000))
    always = Server(place)
    with pytest.raises(Unavailable, match="cannot do this now; try again later"):
        always.run(lambda: always.rows("SELECT 5"))
    assert 3 < again.time.monotonic() < 10  # type: ignore[attr-defined]
    always.close()
