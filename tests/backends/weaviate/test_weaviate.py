"""What is particular to weaviate://, on a real server."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from backends import connect
from backends.base import (
    BackendError,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    IndexSpec,
    Not,
    Record,
    Unavailable,
    Unsupported,
    matches,
)
from backends.conformance.filters import CORNERS, VALUES
from backends.conformance.oracle import Twin
from backends.conformance.samples import some, vectors
from backends.kit.number_keys import double_below
from backends.weaviate import repair as weaviate_mend
from backends.weaviate import schema as weaviate_schema
from backends.weaviate.connection import KEY_VARIABLE
from backends.weaviate.records import number_digits, number_property, spelled_string, token
from tests.support import weaviate_server

LONG = "the same first forty-eight bytes of a long text: "


@pytest.fixture
def url():
    return weaviate_server.server().url


@pytest.fixture
def backend(url):
    with connect(url) as backend:
        yield backend
        for name in backend.collections():
            backend.drop(name)


@pytest.fixture
def filled(backend):
    backend.create(CollectionSpec("filled", 8))
    backend.upsert("filled", some(20))
    return backend


def rest(backend, method, path, body=None):
    return backend._server.rest(method, path, body)


class TestConnecting:
    @pytest.mark.parametrize(
        "bad",
        [
            "weaviate://",
            "weaviate://host/path",
            "weaviate://host?speed=1",
            "weaviate://host?grpc=0",
            "weaviate://host?https=perhaps",
            "weaviate://host:8080?timeout=-1",
        ],
    )
    def test_malformed_urls_are_refused(self, bad):
        with pytest.raises(ValueError, match="weaviate"):
            connect(bad)

    def test_a_server_that_is_not_there_is_named_with_the_remedy(self):
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"weaviate://127.0.0.1:9.*start it"):
            connect("weaviate://:secret-key@127.0.0.1:9")
        assert time.monotonic() - started < 5

    @pytest.mark.server("weaviate")
    def test_a_wrong_grpc_port_is_named(self, url):
        with pytest.raises(Unavailable, match="grpc port"):
            connect(url.replace("grpc=50051", "grpc=9&timeout=1"))

    @pytest.mark.server("weaviate")
    def test_a_wrong_key_is_refused_and_not_shown(self, url, monkeypatch):
        monkeypatch.setenv(KEY_VARIABLE, "wrong-secret")
        with pytest.raises(Unavailable, match=KEY_VARIABLE) as caught:
            connect(url)
        assert "wrong-secret" not in str(caught.value)
        monkeypatch.delenv(KEY_VARIABLE)
        with pytest.raises(Unavailable, match=KEY_VARIABLE):
            connect(url)

    @pytest.mark.server("weaviate")
    def test_the_key_may_stand_in_the_url(self, url, monkeypatch):
        key = weaviate_server.server().environment[KEY_VARIABLE]
        monkeypatch.delenv(KEY_VARIABLE)
        with connect(url.replace("://", f"://:{key}@")) as backend:
            assert backend.collections() == []
            assert key not in repr(backend._server.url)
            with pytest.raises(CollectionNotFound) as caught:
                backend.count("nowhere")
            assert key not in str(caught.value)


class TestSharing:
    @pytest.mark.server("weaviate")
    def test_classes_of_others_are_left_alone(self, backend):
        for name in ("Foreign", "Sightline_theirs"):
            rest(backend, "POST", "/schema", {"class": name, "description": "mine", "vectorizer": "none"})
        try:
            assert backend.collections() == []
            with pytest.raises(CollectionNotFound):
                backend.count("theirs")
            with pytest.raises(CollectionExists):
                backend.create(CollectionSpec("theirs", 4))
            backend.drop("theirs")
            assert rest(backend, "GET", "/schema/Sightline_theirs") is not None
        finally:
            for name in ("Foreign", "Sightline_theirs"):
                rest(backend, "DELETE", f"/schema/{name}")

    @pytest.mark.server("weaviate")
    def test_a_collection_that_someone_else_dropped_is_missed_and_not_made_again(self, filled, url):
        assert len(filled.search("filled", vectors(1, 8), 3)[0]) == 3
        with connect(url) as other:
            other.drop("filled")
        for call in (
            lambda: filled.search("filled", vectors(1, 8), 3),
            lambda: filled.upsert("filled", some(2)),
            lambda: filled.count("filled", Compare("n", "gt", 1)),
            lambda: filled.delete("filled", ids=["r00001"]),
            lambda: list(filled.scan("filled")),
        ):
            with pytest.raises(CollectionNotFound, match="filled"):
                call()
        assert rest(filled, "GET", "/schema/Sightline_filled") is None

    @pytest.mark.server("weaviate")
    def test_a_collection_that_someone_else_made_anew_is_seen(self, filled, url):
        filled.search("filled", vectors(1, 8), 3)
        with connect(url) as other:
            other.drop("filled")
            other.create(CollectionSpec("filled", 4, "l2"))
            other.upsert("filled", some(5, 4))
        (hits,) = filled.search("filled", np.zeros((1, 4)), 9)
        assert len(hits) == 5
        assert all(hit.score <= 0 for hit in hits)
        assert filled.count("filled", Compare("n", "gte", 2)) == 3


class TestSettings:
    @pytest.mark.server("weaviate")
    def test_records_that_come_after_a_drop_leave_nothing_behind(self, backend, filled, url, monkeypatch):
        stored = filled._read("filled")
        with connect(url) as late:
            # It looked just before the drop; for what comes after, the server makes up a class of its own.
            monkeypatch.setattr(late, "_read", lambda _: stored)
            backend.drop("filled")
            with pytest.raises(CollectionNotFound, match="filled"):
                late.upsert("filled", some(3))
        made_up = {"class": stored.class_name, "description": "generated by Weaviate's auto-schema feature on Monday"}
        rest(backend, "POST", "/schema", made_up)
        backend.drop("filled")
        assert rest(backend, "GET", f"/schema/{stored.class_name}") is None
        rest(backend, "POST", "/schema", made_up)
        backend.create(CollectionSpec("filled", 8))
        backend.upsert("filled", some(3))
        assert backend.count("filled") == 3

    @pytest.mark.server("weaviate")
    def test_index_parameters_reach_the_server(self, backend):
        def made(index):
            backend.drop("settings")
            backend.create(CollectionSpec("settings", 8, "dot", index=index))
            found = rest(backend, "GET", "/schema/Sightline_settings")["vectorConfig"]
            return next(vector for name, vector in found.items() if name.startswith("dot_8_"))

        hnsw = made(IndexSpec("hnsw", params={"m": 12, "ef_construction": 77}))
        assert hnsw["vectorIndexType"] == "hnsw"
        config = hnsw["vectorIndexConfig"]
        assert (config["maxConnections"], config["efConstruction"], config["distance"]) == (12, 77, "dot")
        assert not config["rq"]["enabled"]
        assert made(IndexSpec("flat"))["vectorIndexType"] == "flat"
        assert made(IndexSpec("auto", "int8"))["vectorIndexConfig"]["rq"]["enabled"]
        assert made(IndexSpec("flat", "binary"))["vectorIndexConfig"]["bq"]["enabled"]

    @pytest.mark.server("weaviate")
    @pytest.mark.parametrize("params", [{"m": 3}, {"m": 2048}, {"ef_construction": 3}])
    def test_parameters_out_of_range_are_refused(self, backend, params):
        with pytest.raises(Unsupported, match=str(next(iter(params.values())))):
            backend.create(CollectionSpec("settings", 8, index=IndexSpec("hnsw", params=params)))
        assert backend.collections() == []

    @pytest.mark.server("weaviate")
    def test_quantized_flat_indexes_find(self, backend):
        for quantization in ("int8", "binary"):
            twin = Twin(backend, CollectionSpec(f"flat_{quantization}", 64, index=IndexSpec("flat", quantization)))
            twin.upsert(some(300, 64))
            assert not twin.same_hits(vectors(5, 64, seed=4), 10, recall=0.9)[0][0].exact


class TestFilters:
    def test_numbers_spell_in_order(self):
        numbers = sorted([v for v in VALUES if isinstance(v, (int, float)) and not isinstance(v, bool)])
        numbers += [2**53 + i for i in range(2, 9)] + [2**62 + i for i in range(0, 900, 111)] + [2**63 - 2]
        numbers += [-x for x in numbers if x < 2**63] + [5e-324, -5e-324, 1.7e308]
        for x in numbers:
            assert number_digits(x) == number_digits(float(x)) or float(x) != x
            for y in numbers:
                assert (number_digits(x) < number_digits(y)) == (x < y), (x, y)
            assert double_below(x) <= x

    def test_long_strings_keep_their_first_bytes_and_differ(self):
        a, b = LONG + "a", LONG + "b"
        assert spelled_string(a) != spelled_string(b)
        assert spelled_string(a)[:192] == spelled_string(b)[:192]
        assert len(token("f", "s", "é" * 30_000)) < 300

    def test_fields_that_differ_by_case_have_properties_that_do_not(self):
        names = [number_property(field) for field in ("ab", "Ab", "aB", "a_b", "_ab", "A_b", "a__b")]
        assert len({name.lower() for name in names}) == len(names)

    @pytest.mark.server("weaviate")
    def test_numbers_without_a_property_of_their_own_compare_the_same(self, backend, monkeypatch):
        monkeypatch.setattr(weaviate_schema, "MAX_NUMBERS", 0)
        twin = Twin(backend, CollectionSpec("untyped", 8))
        twin.upsert(some(len(CORNERS), metadata=CORNERS))
        assert backend._read("untyped").numbers == frozenset()
        for op in ("gt", "gte", "lt", "lte"):
            for value in VALUES:
                if not isinstance(value, (bool, str)):
                    twin.same_count(Compare("v", op, value))
                    twin.same_count(Not(Compare("v", op, value)))

    @pytest.mark.server("weaviate")
    def test_only_so_many_fields_get_a_property(self, backend, monkeypatch):
        monkeypatch.setattr(weaviate_schema, "MAX_NUMBERS", 3)
        twin = Twin(backend, CollectionSpec("wide", 8))
        twin.upsert(some(10, metadata=[{f"f{i}": i for i in range(6)}]))
        assert len(backend._read("wide").numbers) == 3
        for i in range(6):
            assert twin.same_count(Compare(f"f{i}", "gte", i)) == 10
            assert twin.same_count(Compare(f"f{i}", "gt", i)) == 0

    @pytest.mark.server("weaviate")
    def test_long_strings_are_ordered(self, backend):
        texts = [LONG[:48], LONG, LONG + "a", LONG + "b", LONG + "é", LONG[:47], LONG[:47] + "z", "", "z"]
        metadata = [{"s": text} for text in texts] + [{"s": 1}, {}]
        twin = Twin(backend, CollectionSpec("long", 8))
        twin.upsert(some(len(metadata), metadata=metadata))
        for op in ("gt", "gte", "lt", "lte"):
            for text in texts:
                where = Compare("s", op, text)
                expected = sum(matches(where, fields, "image") for fields in metadata)
                assert twin.same_count(where) == expected

    @pytest.mark.server("weaviate")
    def test_one_call_deletes_more_than_the_server_does(self, backend):
        n = 10_500
        backend.create(CollectionSpec("many", 2, index=IndexSpec("flat")))
        row = np.ones(2, np.float32)
        backend.upsert("many", (Record(f"{i}", row, metadata={"a": True}) for i in range(n)))
        assert backend.delete("many", where=Compare("a", "eq", True)) == n
        assert backend.count("many") == 0


class TestTrouble:
    @pytest.mark.server("weaviate")
    def test_a_full_disk_is_named_and_nothing_is_claimed(self, filled):
        # What Weaviate does to its shards when the disk is nine tenths full.
        path = "/schema/Sightline_filled/shards"
        (shard,) = rest(filled, "GET", path)
        rest(filled, "PUT", f"{path}/{shard['name']}", {"status": "READONLY"})
        with pytest.raises(BackendError, match=r"disk.*free space"):
            filled.upsert("filled", some(3, prefix="new"))
        with pytest.raises(BackendError, match=r"disk.*free space"):
            filled.delete("filled", ids=["r00001"])
        assert filled.count("filled") == 20
        rest(filled, "PUT", f"{path}/{shard['name']}", {"status": "READY"})
        filled.upsert("filled", some(3, prefix="new"))
        assert filled.count("filled") == 23

    @pytest.mark.server("weaviate")
    def test_a_server_that_went_away_is_named_within_the_time_out(self, url):
        with connect(url + "&timeout=1") as backend:
            backend.create(CollectionSpec("away", 8))
            backend.upsert("away", some(3))
            weaviate_server.kill()
            for call in (
                lambda: backend.search("away", vectors(1, 8), 3),
                lambda: backend.upsert("away", some(3)),
                lambda: backend.delete("away", ids=["r00001"]),
                backend.collections,
            ):
                started = time.monotonic()
                with pytest.raises(Unavailable, match=r"127\.0\.0\.1:8080 does not answer.*start it"):
                    call()
                assert time.monotonic() - started < 5
            # The same handle works again once the server is back, and calls wait for it meanwhile.
            weaviate_server.server()
            assert backend.count("away") == 3
            assert backend.delete("away", ids=["r00001"]) == 1
            backend.drop("away")

    @pytest.mark.server("weaviate")
    def test_calls_wait_for_a_server_that_starts_again(self, backend):
        backend.create(CollectionSpec("waits", 8))
        backend.upsert("waits", some(60))
        weaviate_server.kill()
        thread = threading.Thread(target=weaviate_server.server)
        thread.start()
        backend.upsert("waits", some(40, seed=2))
        thread.join()
        assert backend.count("waits") == 60
        for i, hits in enumerate(backend.search("waits", vectors(40, 8, seed=2), 1)):
            assert hits[0].id == f"r{i:05}"

    @pytest.mark.server("weaviate")
    def test_an_upsert_is_sent_again_when_its_server_is_killed_before_the_index_is_written(self, backend, monkeypatch):
        records = [Record(f"k{i:02}", row) for i, row in enumerate(vectors(30, 8))]
        backend.create(CollectionSpec("killed", 8))
        backend.upsert("killed", some(30, seed=1))
        persist = weaviate_mend.persist_index_log
        restarts = []

        def after_a_crash(*arguments):
            if not restarts:
                weaviate_server.kill()
                restarts.append(threading.Thread(target=weaviate_server.server))
                restarts[0].start()
            persist(*arguments)

        monkeypatch.setattr(weaviate_mend, "persist_index_log", after_a_crash)
        backend.upsert("killed", records)
        restarts[0].join()
        for record, hits in zip(records, backend.search("killed", vectors(30, 8), 1), strict=True):
            assert hits[0].id == record.id

    @pytest.mark.server("weaviate")
    def test_flush_indexes_what_a_crash_left_out(self, backend, monkeypatch):
        # Without `persist_index_log` Weaviate loses the index's part of the last batch, as in the middle of one.
        rows = vectors(50, 8)
        backend.create(CollectionSpec("left", 8, "dot"))
        backend.upsert("left", [Record(f"a{i:02}", row) for i, row in enumerate(rows[:25])])
        with monkeypatch.context() as patch:
            patch.setattr(weaviate_mend, "persist_index_log", lambda *_: None)
            backend.upsert("left", [Record(f"b{i:02}", row) for i, row in enumerate(rows[25:])])
        weaviate_server.kill()
        weaviate_server.server()
        stored = backend._read("left")
        everyone = weaviate_mend.ids(backend._server, stored, True, 100)
        assert len(everyone) == 50
        assert weaviate_mend._missing(backend._server, stored, everyone), "Weaviate has learnt it: settle can go"
        backend.flush("left")
        assert not weaviate_mend._missing(backend._server, stored, everyone)
        assert [len(hits) for hits in backend.search("left", rows[:3], 60)] == [50] * 3
        assert {record.id for page in backend.scan("left") for record in page.records} == {
            f"{prefix}{i:02}" for prefix in "ab" for i in range(25)
        }

    @pytest.mark.server("weaviate")
    def test_an_upsert_of_the_same_records_indexes_what_a_crash_left_out(self, backend, monkeypatch):
        records = [Record(f"s{i:02}", row) for i, row in enumerate(vectors(30, 8))]
        backend.create(CollectionSpec("same", 8))
        with monkeypatch.context() as patch:
            patch.setattr(weaviate_mend, "persist_index_log", lambda *_: None)
            backend.upsert("same", records)
        weaviate_server.kill()
        weaviate_server.server()
        stored = backend._read("same")
        assert weaviate_mend._missing(backend._server, stored, weaviate_mend.ids(backend._server, stored, True, 100))
        backend.upsert("same", records)
        for record, hits in zip(records, backend.search("same", vectors(30, 8), 1), strict=True):
            assert hits[0].id == record.id
