"""What is particular to Milvus: keys for filters, names, URLs, errors, indexes, and servers that die."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from milvus_lite.analyzer.standard import StandardAnalyzer
from milvus_lite.storage.wal import WAL
from pymilvus import DataType, MilvusClient, MilvusException

from backends import connect
from backends.base import (
    NO_VECTOR,
    BackendError,
    CollectionExists,
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
)
from backends.conformance.filtered_recall import Corpus, check_promise
from backends.conformance.samples import clustered, some, vectors
from backends.errors import Denied
from backends.milvus.backend import LITE_FLUSH_ROWS
from backends.milvus.connection import Connection, TooLarge
from backends.milvus.filters import Dialect, expression, number_key, quote
from backends.milvus.records import hit_of, own_name, record_of, stored_name, words_of
from backends.milvus.schema import FLAT, Index, index_of
from backends.milvus.search import measure
from tests.support import milvus_server

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
NEAR_POWERS = st.builds(
    lambda e, d, s: s * (2**e + d), st.integers(52, 62), st.integers(-3, 3), st.sampled_from((1, -1))
)
SERVER = Dialect(guarded=False, lists_as_text=False)
NEWER = Dialect(guarded=True, lists_as_text=False)
LITE = Dialect(guarded=True, lists_as_text=True)


@pytest.fixture
def lite(tmp_path):
    with connect(f"milvus-lite://{tmp_path}/store") as backend:
        yield backend


@pytest.fixture(scope="module")
def server():
    with connect(milvus_server.url()) as backend:
        yield backend


@pytest.fixture
def named(server):
    """Names of collections on the server, dropped afterwards."""
    names = [f"own_{time.time_ns():x}_{i}" for i in range(3)]
    yield names
    for name in names:
        server.drop(name)


def raw(backend):
    return backend._connection._client


# Keys, names, expressions


@given(NUMBERS | NEAR_POWERS, NUMBERS | NEAR_POWERS)
def test_number_keys_sort_and_equal_as_numbers_do(a, b):
    assert (number_key(a) < number_key(b)) == (a < b)
    assert (number_key(a) == number_key(b)) == (a == b)


def test_number_keys_where_doubles_end():
    values = [-(2**63), -(2**53) - 1, -1, -5e-324, 0, 5e-324, 0.5, 1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, 1e300]
    for a, b in itertools.pairwise(values):
        assert number_key(a) < number_key(b)
    assert number_key(-0.0) == number_key(0)
    assert number_key(2.0**53) == number_key(2**53)
    assert len(number_key(1990)) <= 4, "years are short"


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,62}", fullmatch=True))
def test_names_are_those_milvus_takes_and_come_back(name):
    stored = stored_name(name)
    assert stored.replace("_", "").isalnum()
    assert len(stored) <= 255
    assert own_name(stored) == name
    assert own_name("someone_elses") is None


def test_expressions_of_each_version():
    old = Compare("year", "gt", 5)
    key = '$meta["vyear"]'
    assert expression(old, SERVER) == f'({key} > "n{number_key(5)}" and {key} < "o")'
    assert expression(old, NEWER) == f'(exists {key} and {key} > "n{number_key(5)}" and {key} < "o")'
    tags = Compare("tags", "contains", 'a"b')
    assert expression(tags, NEWER) == '(exists $meta["ltags"] and json_contains_any($meta["ltags"], ["a\\"b"]))'
    assert '"a' not in expression(tags, LITE), "Lite is asked for a hash"
    assert expression(None, SERVER) == ""
    assert quote('a"\\\n') == '"a\\"\\\\\\n"'


def test_wide_filters_are_short_and_shallow():
    many = Or(tuple(Compare("n", "eq", i) for i in range(4_000)))
    assert expression(many, SERVER).count(" in [") == 1
    different = expression(Or(tuple(Compare(f"f{i}", "eq", 1) for i in range(1_000))), SERVER)
    depth = max(itertools.accumulate((c == "(") - (c == ")") for c in different))
    assert depth <= 12


def test_words_are_cut_to_what_a_field_takes():
    assert words_of(["under_the", "bridge", "日本"]) == "under_the bridge 日本"
    cut = words_of([f"語{i}" for i in range(20_000)])
    assert 65_500 < len(cut.encode()) <= 65_535
    assert all(re.fullmatch(r"語\d+", word) for word in cut.split(" "))
    # Repetitions go first, so that every word is there.
    assert set(words_of(["日本語"] * 9_000 + ["終"]).split(" ")) == {"日本語", "終"}


def test_lite_leaves_words_whole():
    words = ["काला", "🎂", "👨\u200d👩", "แมว", "カラス", "strasse", "a_b", "𠀀𠀁", "й"]
    assert StandardAnalyzer().tokenize(words_of(words)) == words_of(words).split(" ")
    assert len(set(words_of(words).split(" "))) == len(words)


def test_indexes_of_each_kind():
    assert index_of(IndexSpec(), lite=False) == FLAT
    assert index_of(IndexSpec("ivf", "int8", {"nlist": 7}), lite=False).params == {"nlist": 7}
    for spec in (IndexSpec("hnsw", "int8"), IndexSpec("flat", "int8"), IndexSpec("hnsw", params={"m": 1})):
        with pytest.raises(Unsupported):
            index_of(spec, lite=False)


def test_a_row_that_is_not_ours_is_corrupt():
    row = {"id": "a", "modality": "image", "text": "", "uri": ""}
    assert record_of({**row, "payload": '1{"n":1}'}).metadata == {"n": 1}
    for payload in ("", "x", "0x", "0{", "0[1]", "0{} x"):
        for read in (record_of, lambda row: hit_of("a", row, 1.0, exact=True)):
            with pytest.raises(Corrupt, match="not one that Sightline wrote"):
                read({**row, "payload": payload})


# URLs and errors


def test_urls_that_cannot_be_are_refused_without_their_token():
    for url in ("milvus://h?tokn=s3cret", "milvus://u:s3cret@h", "milvus://h/db", "milvus://h?secure=s3cret&token=1"):
        with pytest.raises(ValueError) as caught:
            connect(url)
        assert "s3cret" not in str(caught.value) or "secure" in url
    with pytest.raises(ValueError, match="three slashes"):
        connect("milvus-lite://folder")


def test_a_server_that_is_away_is_named_in_time():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    start_s = time.monotonic()
    with pytest.raises(Unavailable, match=rf"milvus://127\.0\.0\.1:{port}.*engines up milvus") as caught:
        connect(f"milvus://127.0.0.1:{port}?token=root:s3cret&timeout=2")
    assert time.monotonic() - start_s < 10
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message", "error", "says"),
    [
        (100, "collection not found[collection=1]", CollectionNotFound, "'c'"),
        (65535, "can't find collection: c", CollectionNotFound, "'c'"),
        (1100, "auth check failure, please check username and password", Denied, "SIGHTLINE_MILVUS_TOKEN"),
        (65535, "write /data/1: no space left on device", Unavailable, "no room left"),
        (2, "Fail connecting to server on 127.0.0.1:1", Unavailable, "does not answer"),
        (8, "grpc: received message larger than max (70 vs. 64)", TooLarge, "larger"),
        (6, "unexpected token 'auth' at column 9", BackendError, "refuses what was asked"),
        (65535, "cannot parse expression: tag == 'unavailable, deadline, permission'", BackendError, "refuses"),
        (1100, "failed to create query plan: cannot parse expression: a == 'password'", BackendError, "refuses"),
        (65535, "something new\nwith its stack", BackendError, "something new$"),
    ],
)
def test_what_the_client_raises_is_said_in_one_line(lite, code, message, error, says):
    found = lite._connection._translated(MilvusException(code, message), "c")
    assert type(found) is error
    assert "\n" not in str(found)
    with pytest.raises(error, match=says):
        raise found


@pytest.mark.parametrize("what", ["milvus_lite.storage.wal.WAL.write_insert", "pyarrow.parquet.write_table"])
def test_a_full_disk_is_said_and_loses_nothing_that_was_acknowledged(tmp_path, monkeypatch, what):
    url, stored = f"milvus-lite://{tmp_path}", some(LITE_FLUSH_ROWS)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with connect(url) as backend:
        backend.create(CollectionSpec("c", 8))
        backend.upsert("c", stored[:-1])
        with monkeypatch.context() as patch:
            patch.setattr(what, full)
            with pytest.raises(Unavailable, match=r"no room left.*No space left.*open it again"):
                backend.upsert("c", stored[-1:])
    # Lite leaves the log of a failed flush open, which Python would warn of.
    # By `type`, as `isinstance` would ask every object of every library for its class, deprecated ones too.
    for wal in [thing for thing in gc.get_objects() if type(thing) is WAL]:
        for sink in filter(None, (wal._data_sink, wal._delta_sink)):
            sink.close()
    with connect(url) as backend:
        found = {r.id for r in backend.get("c", [r.id for r in stored])}
        assert {r.id for r in stored[:-1]} <= found
        backend.upsert("c", stored)
        assert backend.count("c") == len(stored)


@pytest.mark.parametrize("opened", [False, True])
def test_what_a_killed_creator_left_does_not_keep_the_name(tmp_path, opened):
    left = tmp_path / "store" / "collections" / stored_name("c")
    others = left.with_name("theirs")

    def leave():
        for folder in (left, others):
            (folder / "wal").mkdir(parents=True, exist_ok=True)
            (folder / "schema.json.tmp").write_text("{", encoding="utf-8")

    if not opened:
        leave()
    with connect(f"milvus-lite://{tmp_path}/store") as backend:
        if opened:
            leave()
        else:
            assert not left.exists()
        backend.create(CollectionSpec("c", 4))
        backend.upsert("c", [Record("a", np.ones(4, np.float32))])
        assert backend.count("c") == 1
    assert others.is_dir(), "what is not ours stays"


def test_a_collection_made_anew_by_another_handle_is_the_one_that_is_used(tmp_path):
    url = f"milvus-lite://{tmp_path}/store"
    with connect(url) as one, connect(url) as two:
        one.create(CollectionSpec("c", 4))
        one.upsert("c", [Record("a", np.ones(4, np.float32))])
        pages = one.scan("c", batch=1)
        next(pages)
        two.drop("c")
        two.create(CollectionSpec("c", 6))
        two.upsert("c", [Record("b", np.ones(6, np.float32))])
        with pytest.raises(CollectionNotFound, match=r"'c'.*meanwhile"):
            next(pages)
        one.upsert("c", [Record("d", np.ones(6, np.float32))])
        assert two.count("c") == 2


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable, match="file"):
        connect(f"milvus-lite://{tmp_path}/file")


# Collections of others


def foreign(client, name):
    schema = client.create_schema(description="somebody's own")
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection(name, schema=schema)


def test_collections_of_others_are_not_ours(lite):
    client = raw(lite)
    for name in ("theirs", stored_name("taken")):
        foreign(client, name)
    assert lite.collections() == []
    with pytest.raises(CollectionNotFound, match="not made by Sightline"):
        lite.describe("taken")
    with pytest.raises(CollectionExists):
        lite.create(CollectionSpec("taken", 4))
    lite.drop("taken")
    lite.drop("theirs")
    assert set(client.list_collections()) == {"theirs", stored_name("taken")}


def test_handles_of_one_folder_share_it_and_see_drops(tmp_path):
    url = f"milvus-lite://{tmp_path}"
    with connect(url) as one, connect(url) as two:
        one.create(CollectionSpec("c", 8))
        two.upsert("c", some(5))
        assert one.count("c") == 5
        two.drop("c")
        with pytest.raises(CollectionNotFound, match="'c'"):
            one.count("c")
        two.create(CollectionSpec("c", 4))
        one.upsert("c", some(2, 4))
        one.close()
        assert two.count("c") == 2


@pytest.mark.server("milvus")
def test_a_collection_that_someone_else_dropped_is_missed_and_made_anew_is_seen(server, named):
    name = named[0]
    server.create(CollectionSpec(name, 8))
    server.upsert(name, some(5))
    calls = (
        lambda: server.count(name),
        lambda: server.search(name, vectors(1, 8), 3),
        lambda: server.upsert(name, some(2)),
        lambda: server.get(name, ["r00001"]),
        lambda: list(server.scan(name)),
    )
    with connect(milvus_server.url()) as another:
        for call in calls:
            server.count(name)
            another.drop(name)
            with pytest.raises(CollectionNotFound, match=name):
                call()
            another.create(CollectionSpec(name, 8))
            another.upsert(name, some(3))
            assert server.count(name) == 3


@pytest.mark.server("milvus")
def test_a_collection_whose_creator_was_killed_gets_its_index(server, named):
    spec = CollectionSpec(named[0], 8, index=IndexSpec("hnsw"))
    server.create(spec)
    client = raw(server)
    client.release_collection(stored_name(spec.name))
    client.drop_index(stored_name(spec.name), "vector")
    with connect(milvus_server.url()) as another:
        another.upsert(spec.name, some(5))
        assert len(another.search(spec.name, vectors(1, 8), 3)[0]) == 3
    assert client.list_indexes(stored_name(spec.name)) == ["vector"]


# Records


@pytest.mark.server("milvus")
def test_metadata_beyond_what_milvus_filters_is_refused_before_anything_is_stored(server, named, lite):
    numbers = {f"f{i:04}": -i - 0.1 for i in range(3_200)}
    assert len(json.dumps(numbers)) < 65_535
    records = [*some(3), Record("wide", np.ones(8, np.float32), metadata=numbers)]
    server.create(CollectionSpec(named[0], 8))
    with pytest.raises(Unsupported, match=r"wide.*65536"):
        server.upsert(named[0], records)
    assert server.count(named[0]) == 0
    lite.create(CollectionSpec("c", 8))
    lite.upsert("c", records)
    assert lite.count("c", Compare("f3199", "lt", 0)) == 1


@pytest.mark.server("milvus")
def test_answers_larger_than_a_message_come_in_parts(server, named):
    name, n = named[0], 450
    server.create(CollectionSpec(name, 8))
    rows = vectors(n, 8)
    records = [
        Record(f"r{i:03}", row, "text", f"{i} " + "x" * 65_000, None, {"v": "y" * 60_000}) for i, row in enumerate(rows)
    ]
    server.upsert(name, records)
    assert [r.id for page in server.scan(name) for r in page.records] == [r.id for r in records]
    assert len(server.get(name, [r.id for r in records])) == n
    hits = server.search(name, rows[:2], n)
    assert [len(found) for found in hits] == [n, n]
    assert hits[0][0].id == "r000"
    assert hits[1][0].text == records[1].text


# Indexes


def crowd(backend, name, index, n=6_000):
    spec = CollectionSpec(name, 64, index=index)
    rng = np.random.default_rng(5)
    rows = clustered(n, 64, seed=31)
    near = np.argsort(np.argsort(-(rows @ rows[0]))) / n
    found = Corpus(name, spec, rows, np.ones(n, np.bool_), rng.permutation(n) / n, near)
    backend.create(spec)
    backend.upsert(name, found.records(np.arange(n)))
    return found


def test_no_width_is_tried_where_no_record_has_a_vector(lite):
    lite.create(CollectionSpec("c", 8))
    lite.upsert("c", [Record(f"r{i}", NO_VECTOR, "text", "word") for i in range(3)])
    opened = lite._collections.find("c")
    assert measure(lite, opened, Index("HNSW", {}), rows=1 << 20) is None


def test_a_copy_that_has_grown_too_large_is_given_up(lite, monkeypatch):
    lite.create(CollectionSpec("c", 8))
    lite.upsert("c", some(10))
    lite.search("c", vectors(1, 8), 3)
    (name,) = lite._lite.names.values()
    assert name.mirror
    monkeypatch.setattr("backends.milvus.mirror.MAX_BYTES", 0)
    lite.upsert("c", [Record("late", vectors(1, 8)[0])])
    assert name.mirror is False
    assert lite.search("c", vectors(1, 8), 1)[0][0].id == "late"


@pytest.mark.slow
@pytest.mark.parametrize("index", [IndexSpec("hnsw"), IndexSpec("ivf"), IndexSpec("auto", "int8")])
@pytest.mark.parametrize("engine", ["lite", pytest.param("server", marks=pytest.mark.server("milvus"))])
def test_the_promise_holds_on_every_index(engine, index, request, monkeypatch):
    """With a scan allowed for 3% of the rows, as of large collections; filters beyond it use the index."""
    backend = request.getfixturevalue(engine)
    name = request.getfixturevalue("named")[0] if engine == "server" else "c"
    # Lite by itself, as where its copy in memory would be too large.
    monkeypatch.setattr("backends.milvus.mirror.MAX_BYTES", 0)
    found = crowd(backend, name, index)
    backend.flush(name)
    monkeypatch.setattr("backends.milvus.search.SCAN_BYTES", 180 * 64 * 4)
    check_promise(backend, found)
    assert not backend.search(name, found.rows[:1], 5)[0][0].exact
    assert backend.search(name, found.rows[:1], 5, where=Compare("chance", "lt", 0.01))[0][0].exact


@pytest.mark.server("milvus")
def test_an_auto_collection_that_outgrows_scanning_gets_a_graph(server, named, monkeypatch):
    found = crowd(server, named[0], IndexSpec(), n=2_000)
    with connect(milvus_server.url()) as another:
        assert another.search(named[0], found.rows[:1], 3)[0][0].exact
        server.flush(named[0])
        assert server.search(named[0], found.rows[:1], 3)[0][0].exact
        monkeypatch.setattr("backends.milvus.collections.GRAPH_BYTES", 1 << 10)
        server.flush(named[0])
        monkeypatch.setattr("backends.milvus.search.SCAN_BYTES", 180 * 64 * 4)
        time.sleep(1.0)  # as long as another handle may believe what it was told of the index
        for backend in (server, another):
            assert not backend.search(named[0], found.rows[:1], 3)[0][0].exact
            check_promise(backend, found)
    assert server.describe(named[0]) == found.spec


# A server that dies


@pytest.mark.server("milvus")
def test_a_handle_outlives_the_server(server, named):
    name = named[0]
    server.create(CollectionSpec(name, 8))
    server.upsert(name, some(50))
    server.delete(name, ids=["r00003"])
    milvus_server.kill()
    away = connect_error(name)
    assert "engines up milvus" in away
    milvus_server.url()
    assert server.count(name) == 49
    server.upsert(name, some(60))
    assert len(server.search(name, vectors(1, 8), 100)[0]) == 60
    assert server.count(name, Not(Compare("n", "lt", 10))) == 50


def connect_error(name):
    with pytest.raises(Unavailable) as caught:
        Connection("http://127.0.0.1:19530", "milvus://127.0.0.1:19530", "sightline engines up milvus", timeout_s=1)
    return str(caught.value)


def test_lite_is_one_process_s(lite, tmp_path):
    from milvus_lite import MilvusLite
    from milvus_lite.exceptions import DataDirLockedError

    with pytest.raises(DataDirLockedError):
        MilvusLite(str(tmp_path / "store"))
    assert isinstance(raw(lite), MilvusClient)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_a_fork_starts_no_threads_of_grpc_in_the_child(tmp_path: Path) -> None:
    program = f"""
import os, warnings
import backends
from backends.base import CollectionSpec
warnings.simplefilter("ignore")
with backends.connect("milvus-lite://{tmp_path}/store") as backend:
    backend.create(CollectionSpec("c", 8))
    pid = os.fork()
    if not pid:
        os._exit(len(os.listdir("/proc/self/task")))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "1\n"
