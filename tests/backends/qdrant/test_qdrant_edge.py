"""The conformance suite over qdrant-edge://, and what is particular to it and to its filters."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import qdrant_edge as qe
from hypothesis import given
from hypothesis import strategies as st

from backends import Backend, connect
from backends.base import (
    BackendError,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    Corrupt,
    IndexSpec,
    Not,
    Record,
    Unavailable,
)
from backends.conformance import BackendSuite, Sizes, Twin
from backends.conformance.races import at_once
from backends.conformance.samples import clustered, some, vectors
from backends.conformance.threads import together
from backends.qdrant import store as qdrant_store
from backends.qdrant.edge_payload import unpacked
from backends.qdrant.payload import (
    AVERAGE_WORDS,
    DENSE,
    number_key,
    payload_of,
    point_id,
    string_key,
    token,
    word_weights,
)

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
NEAR = st.integers(2**53 - 4, 2**53 + 4) | st.integers(2**62 - 4, 2**62 + 4)


@pytest.mark.slow
class TestQdrantEdge(BackendSuite):
    url = "qdrant-edge:///{dir}"
    sizes = Sizes()


del BackendSuite


def url_of(folder: Path) -> str:
    return f"qdrant-edge://{folder}"


@given(NUMBERS | NEAR, NUMBERS | NEAR)
def test_number_keys_order_as_numbers(left: float, right: float) -> None:
    assert (number_key(left) < number_key(right)) == (left < right)
    assert (number_key(left) == number_key(right)) == (left == right)
    assert (token("f", "n", left) == token("f", "n", right)) == (left == right)
    assert all(0 <= part < 2**53 for part in number_key(left))


@given(st.text(max_size=30), st.text(max_size=30))
def test_string_keys_order_as_strings(left: str, right: str) -> None:
    if "\0" in left + right or max(len(left.encode()), len(right.encode())) > 48:
        return
    assert (string_key(left) < string_key(right)) == (left < right)
    assert all(0 <= part < 2**53 for part in string_key(left))


def test_keywords_of_different_values_differ() -> None:
    values = [
        ("s", "1"),
        ("n", 1),
        ("b", True),
        ("l", "1"),
        ("s", "#1"),
        ("s", "x" * 300),
        ("l", "x" * 300),
        ("n", 1e300),
    ]
    assert len({token("f", kind, value) for kind, value in values}) == len(values)
    assert max(len(token("f", kind, value)) for kind, value in values) < 250


def test_strings_beyond_the_stored_order_are_compared_whole(tmp_path: Path) -> None:
    stem = "/very/long/common/prefix/of/many/paths/in/a/folder/"
    names = [stem + tail for tail in ("", "a", "b", "ba", "ä", "😀")] + [stem[:48], stem[:47], stem[:49], "z", ""]
    with connect(url_of(tmp_path)) as backend:
        twin = Twin(backend, CollectionSpec("c", 8))
        twin.upsert(
            Record(f"r{i}", row, metadata={"path": name})
            for i, (row, name) in enumerate(zip(vectors(11, 8), names, strict=True))
        )
        for name in (*names, stem + "zzz", stem[:48] + "\x01"):
            for op in ("gt", "gte", "lt", "lte"):
                where = Compare("path", op, name)  # type: ignore[arg-type]
                twin.same_count(where)
                twin.same_hits(vectors(1, 8, seed=3), 20, Not(where))


def test_doubles_come_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = [struct.unpack("d", rng.bytes(8))[0] for _ in range(400)]
    values = [value for value in values if np.isfinite(value)]
    with connect(url_of(tmp_path)) as backend:
        twin = Twin(backend, CollectionSpec("c", 8))
        rows = vectors(len(values), 8)
        twin.upsert(Record(f"r{i:03}", rows[i], metadata={"x": value}) for i, value in enumerate(values))
        backend.flush("c")
        twin.same_records()
        for value in values[:40]:
            assert twin.same_count(Compare("x", "eq", value)) == 1
            twin.same_count(Compare("x", "lte", value))


@pytest.mark.slow
def test_flush_builds_the_graph_and_searches_stay_true(tmp_path: Path) -> None:
    rows = clustered(6_000, 512, 5)
    queries = rows[::600] + 0.01
    with connect(url_of(tmp_path)) as backend:
        for quantization in ("none", "int8", "binary"):
            name = f"c-{quantization}"
            twin = Twin(backend, CollectionSpec(name, 512, index=IndexSpec("hnsw", quantization, {"m": 16})))  # type: ignore[arg-type]
            twin.upsert(Record(f"r{i:05}", row, metadata={"i": i}) for i, row in enumerate(rows))
            backend.flush(name)
            graphs = list((tmp_path / name).rglob("graph.bin")) + list((tmp_path / name).rglob("links*.bin"))
            assert graphs, "flush must build a graph"
            found = twin.same_hits(queries, 10, recall=0.9)
            assert not found[0][0].exact
            whole = twin.same_hits(queries, 10, effort=1.0, recall=1.0)
            assert whole[0][0].exact
            assert twin.same_hits(queries, 10, Compare("i", "lt", 30), recall=1.0)[0][0].exact
            backend.drop(name)


def test_on_a_real_graph_effort_moves_recall_and_filters_keep_their_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The conformance crowd is too small for a graph: Qdrant builds none, and walks none, below 10,000 KB of vectors.
    rows = clustered(6_000, 512, 5)
    queries = np.concatenate([rows[::600], -rows[::600]]) + np.float32(0.01)
    with connect(url_of(tmp_path)) as backend:
        twin = Twin(backend, CollectionSpec("c", 512, index=IndexSpec("hnsw")))
        twin.upsert(Record(f"r{i:05}", row, metadata={"i": i}) for i, row in enumerate(rows))
        backend.flush("c")
        truth = [{hit.id for hit in hits} for hits in twin.oracle.search("c", queries, 10)]
        recalls = []
        for effort in (0.01, 0.4, 0.7, 1.0):
            answers = backend.search("c", queries, 10, effort=effort)
            recalls.append(
                np.mean([len(t & {h.id for h in hits}) / 10 for t, hits in zip(truth, answers, strict=True)])
            )
        assert recalls == sorted(recalls)
        assert recalls[0] < 0.97, "too easy to show anything"
        assert recalls[-1] == 1.0
        monkeypatch.setattr(qdrant_store, "FILTERED_SCAN_BYTES", 0)
        for share in (0.95, 0.5, 0.01, 0.001):
            found = twin.same_hits(queries, 10, Compare("i", "lt", int(6_000 * share)))
            assert share < 0.01 or not found[0][0].exact


def test_stores_of_one_folder_share_its_collections(tmp_path: Path) -> None:
    one, other = connect(url_of(tmp_path)), connect(url_of(tmp_path))
    one.create(CollectionSpec("c", 8))
    together([partial(store.upsert, "c", some(40, seed=seed)) for seed, store in enumerate((one, other) * 3)])
    assert one.count("c") == other.count("c") == 40
    other.drop("c")
    with pytest.raises(CollectionNotFound):
        one.count("c")
    one.create(CollectionSpec("c", 4))
    assert other.describe("c").dim == 4
    one.close()
    one.close()
    assert other.collections() == ["c"]
    other.close()


def test_damage_is_named(tmp_path: Path) -> None:
    with connect(url_of(tmp_path)) as backend:
        backend.create(CollectionSpec("c", 4))
        backend.create(CollectionSpec("d", 4))
    (tmp_path / "c" / "collection.json").write_text("{", encoding="utf-8")
    for path in sorted((tmp_path / "d" / "shard").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "d" / "shard").rmdir()
    with connect(url_of(tmp_path)) as backend:
        with pytest.raises(Corrupt):
            backend.count("c")
        with pytest.raises(Corrupt, match="shard"):
            backend.count("d")


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    for name in (".new-1", ".dropped-1"):
        (tmp_path / name / "shard").mkdir(parents=True)
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with connect(url_of(tmp_path)) as backend:
        assert backend.collections() == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".new-", ".dropped-"))]
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "keep"


def test_a_full_disk_is_named_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a disk that is really full the engine's mapped files end the process, so there is nothing to catch.
    with connect(url_of(tmp_path)) as backend:
        backend.create(CollectionSpec("c", 4))
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=127 << 20))
            for write in (
                lambda: backend.upsert("c", [Record("a", np.ones(4, np.float32))]),
                lambda: backend.create(CollectionSpec("d", 4)),
                lambda: backend.flush("c"),
            ):
                with pytest.raises(Unavailable, match=r"disk of .* is full: 127 MiB are left"):
                    write()
            assert backend.count("c") == 0
            assert backend.collections() == ["c"]
        backend.upsert("c", [Record("a", np.ones(4, np.float32))])
        assert backend.count("c") == 1


def test_what_the_engine_raises_is_one_line_that_names_the_folder(tmp_path: Path) -> None:
    class Broken:
        def update(self, _: object) -> None:
            raise Exception("Service runtime error: IO Error:\nNo space left on device (os error 28)")

        def count(self, _: object) -> None:
            raise Exception("Service runtime error: something\nunforeseen")

    with connect(url_of(tmp_path)) as backend:
        backend.create(CollectionSpec("c", 4))
        assert backend.count("c") == 0
        collection = backend._driver.find("c")  # type: ignore[attr-defined]
        whole, collection.shard = collection.shard, Broken()
        with pytest.raises(Unavailable, match=r"disk of .* is full"):
            backend.upsert("c", [Record("a", np.ones(4, np.float32))])
        with pytest.raises(BackendError, match=rf"{tmp_path}.*something unforeseen"):
            backend.count("c")
        collection.shard = whole


def test_a_scan_s_cursor_is_checked(tmp_path: Path) -> None:
    with connect(url_of(tmp_path)) as backend:
        backend.create(CollectionSpec("c", 4))
        with pytest.raises(ValueError, match="no cursor"):
            next(iter(backend.scan("c", cursor="r1")))
        last = "ffffffff-ffff-ffff-ffff-ffffffffffff"
        assert list(backend.scan("c", cursor=last)) == []


def test_urls_name_a_folder(tmp_path: Path) -> None:
    for url in ("qdrant-edge://dir", "qdrant-edge://", "qdrant-edge:///", "qdrant-edge:///d?x=1", "qdrant-edge:///d#x"):
        with pytest.raises(ValueError, match="qdrant-edge"):
            connect(url)
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    with pytest.raises(BackendError, match="cannot use the folder"):
        connect(url_of(file))


def indexed(backend: Backend) -> set[str]:
    return set(backend._driver.find("c").shard.info().payload_schema)  # type: ignore[attr-defined]


def test_a_field_is_indexed_when_a_filter_names_it_and_a_record_has_it(tmp_path: Path) -> None:
    with connect(url_of(tmp_path)) as backend:
        twin = Twin(backend, CollectionSpec("c", 4))
        twin.upsert(Record(f"r{i}", row, metadata={"n": i}) for i, row in enumerate(vectors(20, 4)))
        none = indexed(backend)
        for i in range(40):
            for where in (Compare(f"absent{i}", "gt", 5), Compare(f"absent{i}", "lte", "x"), Compare("n", "eq", i)):
                twin.same_hits(vectors(1, 4, seed=3), 5, where)
            twin.same_count(Not(Compare(f"absent{i}", "lt", 5)))
        assert indexed(backend) == none, "no record has these fields"
        twin.same_count(Compare("n", "gt", 5))
        assert indexed(backend) - none == {"order.n-n0", "order.n-n1"}
        twin.upsert([Record("late", vectors(1, 4)[0], metadata={"absent0": 7})])
        twin.same_hits(vectors(1, 4, seed=3), 5, Compare("absent0", "gt", 5))
        assert indexed(backend) - none >= {"order.absent0-n0"}


def test_fields_beyond_so_many_are_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant_store, "MAX_INDEXED", 5)
    with connect(url_of(tmp_path)) as backend:
        twin = Twin(backend, CollectionSpec("c", 4))
        twin.upsert(
            Record(f"r{i}", row, metadata={f"f{j}": (i * j) % 7 for j in range(8)})
            for i, row in enumerate(vectors(20, 4))
        )
        for j in range(8):
            twin.same_hits(vectors(1, 4, seed=3), 20, Compare(f"f{j}", "gt", 3))
        assert len(indexed(backend)) == 5
    with connect(url_of(tmp_path)) as backend:
        twin.backend = backend
        twin.same_count(Compare("f7", "gt", 3))
        assert len(indexed(backend)) == 5, "what is indexed is known again when the store is opened"


def test_a_collection_can_be_dropped_while_it_is_flushed_and_written(tmp_path: Path) -> None:
    rows = clustered(4_000, 128, 5)
    records = [Record(f"r{i:05}", row, metadata={"i": i}) for i, row in enumerate(rows)]
    with connect(url_of(tmp_path)) as backend:
        for _ in range(3):
            backend.create(CollectionSpec("c", 128, index=IndexSpec("hnsw")))
            backend.upsert("c", records[:3_000])
            calls = (
                lambda: backend.flush("c"),
                lambda: backend.upsert("c", records),
                lambda: backend.count("c", Compare("i", "gt", 5)),
                lambda: backend.drop("c"),
            )
            raised = [error for error in at_once(list(calls), 120) if error]
            assert [error for error in raised if not isinstance(error, CollectionNotFound)] == []
            backend.drop("c")
            assert backend.collections() == []
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".dropped-")]


def test_closing_waits_for_a_write_and_tells_who_comes_later(tmp_path: Path) -> None:
    records = [Record(f"r{i:05}", row) for i, row in enumerate(vectors(3_000, 64))]
    backend = connect(url_of(tmp_path))
    backend.create(CollectionSpec("c", 64))
    calls = [lambda: backend.upsert("c", records), backend.close, lambda: backend.drop("c"), lambda: backend.count("c")]
    raised = [error for error in at_once(calls, 120) if error]
    assert all(isinstance(error, CollectionNotFound) or "closed" in str(error) for error in raised), raised
    with connect(url_of(tmp_path)) as again:
        assert again.collections() in ([], ["c"])


def test_words_weigh_as_in_bm25() -> None:
    text = " ".join(["red"] * 2 + ["w"] * (AVERAGE_WORDS - 2))
    assert max(word_weights("red")) < 2**32
    assert sorted(word_weights(text).values())[0] == pytest.approx(2 * 2.2 / (2 + 1.2))
    assert word_weights("") == {}


def test_points_with_each_field_by_itself_are_read_too(tmp_path: Path) -> None:
    """What was stored before a record's fields became one string."""
    record = Record("a'\"é", np.ones(8, np.float32), "text", "some words", None, {"n": 1.5, "tags": ["x"]})
    with connect(url_of(tmp_path)) as backend:
        backend.create(CollectionSpec("c", 8))
        shard = backend._driver.find("c").shard
        vector = np.asarray(record.vector)
        point = qe.Point(point_id(record.id), {DENSE: (vector / np.linalg.norm(vector)).tolist()}, payload_of(record))
        shard.update(qe.UpdateOperation.upsert_points([point]))
        (old,) = backend.get("c", [record.id])
        assert replace(old, vector=record.vector) == record
        backend.upsert("c", [replace(record, id="new")])
        (hits,) = backend.search("c", np.ones((1, 8)), 5)
        assert [(hit.id, hit.text, dict(hit.metadata)) for hit in hits] == [
            (record_id, record.text, record.metadata) for record_id in sorted((record.id, "new"))
        ]
        assert backend.count("c", Compare("tags", "contains", "x")) == 2


def test_a_payload_that_is_not_ours_is_corrupt() -> None:
    for text in ("{", '["a", "image"]', "7"):
        with pytest.raises(Corrupt, match="not one that Sightline wrote"):
            unpacked({"record": text})


@pytest.mark.parametrize(
    "change",
    [{"metadata": "{"}, {"metadata": "[1]"}, {"id": None}, {"record": '["a","text",null,null,[1]]'}],
)
def test_a_point_that_is_not_ours_is_corrupt(tmp_path: Path, change: dict[str, str | None]) -> None:
    with connect(url_of(tmp_path)) as backend:
        backend.create(CollectionSpec("c", 8))
        payload = payload_of(Record("a", None, "text", "some words")) | change
        payload = {key: value for key, value in payload.items() if value is not None}
        point = qe.Point(point_id("a"), {DENSE: [1.0] + [0.0] * 7}, payload)
        backend._driver.find("c").shard.update(qe.UpdateOperation.upsert_points([point]))
        with pytest.raises(Corrupt, match="not one that Sightline wrote"):
            backend.get("c", ["a"])
        with pytest.raises(Corrupt, match="not one that Sightline wrote"):
            backend.search("c", np.ones((1, 8)), 1)
