"""What is particular to Chroma in process: its folder, its filters, its merging upserts, its graph."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import chromadb
import numpy as np
import pytest
from chromadb.errors import InternalError

import backends
from backends import connect
from backends.base import (
    NO_VECTOR,
    And,
    Backend,
    BackendError,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    Corrupt,
    DimensionMismatch,
    IndexSpec,
    Not,
    Or,
    Record,
    Unavailable,
    Unsupported,
    matches,
)
from backends.chroma import connection, filters
from backends.chroma.records import BARE, HAS, number_key
from backends.conformance.oracle import Twin
from backends.conformance.samples import some, vectors
from backends.errors import Locked
from backends.kit import again
from backends.redaction import shown
from tests.support.repository import ROOT
from tests.support.stopped_clock import StoppedClock

NUMBERS = (0, -0.0, 1, 1.5, -1.5, 2, 2**53 - 1, 2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**63 - 1, -(2**63))
NUMBERS += (9.3e18, 1e308, -1e308, 5e-324, 0.1 + 0.2, 0.3, float(2**63), 2**63 - 512)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with connect(f"chroma:///{tmp_path}/store") as opened:
        yield opened


def raw(backend: Backend, name: str):
    """Chroma's own collection."""
    return backend._collections.find(name).stored  # type: ignore[attr-defined]


# URLs and the folder


def test_a_chroma_url_without_a_host_is_a_folder(tmp_path: Path) -> None:
    url = f"chroma://{tmp_path}/store"
    with connect(url) as backend:
        backend.create(CollectionSpec("c", 8))
        assert not backend.capabilities.server
        assert shown(url) == url
        place = backend.place
    with connect(f"chroma-embedded://{tmp_path}/store") as backend:
        assert backend.collections() == ["c"]
        assert backend.place == place
    assert backends.registry.canonical("chroma://host:8000") == "chroma://host:8000"
    assert backends.registry.canonical("chroma://./a") == "chroma-embedded://./a"
    assert shown("chroma://:secret@host:8000/a?tenant=t&x=secret") == "chroma://host:8000/…?tenant=t"


@pytest.mark.parametrize(
    "bad", ["chroma://", "chroma:///", "chroma:///a?b=c", "chroma:///a#b", "chroma-embedded://a/b"]
)
def test_urls_name_a_folder_or_a_server(bad: str) -> None:
    with pytest.raises(ValueError, match=r"write chroma|takes no options|is written"):
        connect(bad)


OTHER_PROCESS = """
import sys
from backends import connect
from backends.errors import Locked

try:
    connect(sys.argv[1]).close()
except Locked as error:
    print(error)
"""


def test_a_folder_belongs_to_one_process_until_its_last_store_there_is_closed(backend: Backend, tmp_path: Path) -> None:
    def said() -> str:
        command = [sys.executable, "-c", OTHER_PROCESS, f"chroma-embedded://{tmp_path}/store"]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    other = connect(f"chroma-embedded://{tmp_path}/store")
    other.close()
    other.close()
    assert f"process {os.getpid()}" in said()
    backend.close()
    assert said() == ""


def test_a_store_that_fails_to_open_lets_go_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: object) -> int:
        raise InternalError("out of luck")

    monkeypatch.setattr("chromadb.api.client.Client.get_max_batch_size", failing)
    with pytest.raises(BackendError, match="out of luck") as caught:
        connect(f"chroma://{tmp_path}")
    monkeypatch.undo()
    # While the error, and with it what failed, is still held.
    connect(f"chroma://{tmp_path}").close()
    assert str(tmp_path) in str(caught.value)


def test_another_client_of_the_same_process_is_named(tmp_path: Path) -> None:
    settings = chromadb.config.Settings(anonymized_telemetry=False, allow_reset=True)
    client = chromadb.PersistentClient(str(tmp_path), settings=settings)
    with pytest.raises(Locked, match="another client of Chroma"):
        connect(f"chroma://{tmp_path}")
    client.create_collection("theirs", embedding_function=None)
    client.close()
    connect(f"chroma://{tmp_path}").close()


def test_damage_is_named(tmp_path: Path) -> None:
    with connect(f"chroma://{tmp_path}") as backend:
        backend.create(CollectionSpec("c", 8))
    (tmp_path / connection.DATABASE_FILE).write_bytes(b"no database" * 500)
    for path in tmp_path.glob(f"{connection.DATABASE_FILE}-*"):
        path.unlink()
    with pytest.raises(Corrupt, match=connection.DATABASE_FILE):
        connect(f"chroma://{tmp_path}")
    (tmp_path / connection.DATABASE_FILE).unlink()
    connect(f"chroma://{tmp_path}").close()


FILL = """
import sys
from pathlib import Path
from backends import connect
from backends.base import CollectionSpec, Unavailable
from backends.conformance.samples import some

folder = Path(sys.argv[1])
fill = folder / "fill"
with connect(f"chroma://{folder}/store") as backend:
    backend.create(CollectionSpec("c", 64))
    backend.upsert("c", some(50, 64, prefix="first"))
    fill.write_bytes(bytes(30 << 20))
    more = some(50, 64, prefix="no")
    for refused in (lambda: backend.upsert("c", more), lambda: backend.create(CollectionSpec("d", 8))):
        try:
            refused()
        except Unavailable as error:
            assert "is full: " in str(error) and "make room" in str(error), error
        else:
            raise SystemExit("written to a disk that is full")
    assert backend.count("c") == len(backend.search("c", [[1.0] * 64], 100)[0]) == 50
    assert backend.delete("c", ids=["first00000"]) == 1
    fill.unlink()
    backend.upsert("c", some(50, 64, prefix="last"))
with connect(f"chroma://{folder}/store") as backend:
    assert backend.collections() == ["c"]
    assert backend.count("c") == sum(len(page.records) for page in backend.scan("c")) == 99
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_is_named_before_it_is_full_and_what_was_acknowledged_is_there(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    small = tmp_path / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=90m none {small} && exec "$0" -c "$1" {small}'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, FILL],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_chroma_raises_is_one_line_that_names_the_place() -> None:
    for error, kind in (
        (InternalError("database or disk is full"), Unavailable),
        (InternalError("file is not a database"), Corrupt),
        (InternalError("something\nelse"), BackendError),
    ):
        said = connection.as_backend_error(error, "/data/x", name="c")
        assert type(said) is kind
        assert "/data/x" in str(said)
        assert "\n" not in str(said)


def test_nothing_is_told_and_nothing_is_embedded_by_chroma(backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    assert backend._connection.client.get_settings().anonymized_telemetry is False  # type: ignore[attr-defined]
    assert raw(backend, "c")._embedding_function is None


# Collections


def test_collections_of_others_are_left_alone(backend: Backend) -> None:
    client: chromadb.ClientAPI = backend._connection.client  # type: ignore[attr-defined]
    for name in ("photos", "sightline-photos-c"):
        client.create_collection(name, embedding_function=None)
    assert backend.collections() == []
    with pytest.raises(CollectionNotFound):
        backend.describe("photos")
    backend.drop("photos")
    assert {stored.name for stored in client.list_collections()} == {"photos", "sightline-photos-c"}


def test_index_parameters_reach_chroma(backend: Backend) -> None:
    backend.create(CollectionSpec("a", 8))
    backend.create(CollectionSpec("b", 8, "l2", index=IndexSpec("hnsw", params={"m": 7, "ef_construction": 33})))
    found = [raw(backend, name)._model.configuration_json["hnsw"] for name in "ab"]
    wanted = ("space", "max_neighbors", "ef_construction", "ef_search")
    assert [[about[key] for key in wanted] for about in found] == [["ip", 32, 200, 400], ["l2", 7, 33, 400]]
    with pytest.raises(Unsupported, match="m from 2 to 512"):
        backend.create(CollectionSpec("c", 8, index=IndexSpec("hnsw", params={"m": 1})))


def test_a_vector_of_another_length_is_refused(backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    backend.upsert("c", some(3))
    with pytest.raises(DimensionMismatch, match="another encoder"):
        backend.upsert("c", [*some(2), Record("x", np.ones(9, np.float32))])
    with pytest.raises(DimensionMismatch):
        backend.search("c", vectors(1, 7), 3)
    assert backend.count("c") == 3


def test_an_effort_is_refused(backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    with pytest.raises(Unsupported, match="no effort"):
        backend.search("c", vectors(1, 8), 3, effort=0.5)


# Filters


@pytest.mark.parametrize("x", NUMBERS)
def test_number_keys_compare_as_numbers(x: float) -> None:
    for y in NUMBERS:
        left, right = number_key(x), number_key(y)
        assert ((left > right), (left == right)) == ((x > y), (x == y)), (x, y)
        assert -(2**63) <= left[0] < 2**63


def test_numbers_are_compared_by_value(backend: Backend) -> None:
    twin = Twin(backend, CollectionSpec("c", 8))
    rows = vectors(len(NUMBERS) + 3, 8)
    values = [*NUMBERS, "1", True, ["1"]]
    twin.upsert(Record(f"r{i:02}", rows[i], metadata={"n": value}) for i, value in enumerate(values))
    twin.upsert([Record("none", vectors(1, 8)[0])])
    for operand in NUMBERS:
        for op in ("eq", "ne", "gt", "gte", "lt", "lte"):
            where = Compare("n", op, operand)  # type: ignore[arg-type]
            twin.same_count(where)
            twin.same_count(Not(where))
    twin.same_count(Compare("n", "in", NUMBERS[3:12]))
    twin.same_count(Not(Compare("n", "nin", NUMBERS[3:12])))


def test_upserting_leaves_no_key_of_what_was_there(backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    row = vectors(1, 8)[0]
    backend.upsert("c", [Record("a", row, "text", "t", "u", {"s": "x", "n": 2**60, "l": ["y"], "b": True})])
    backend.upsert("c", [Record("a", row, metadata={"s": 1})])
    (found,) = raw(backend, "c").get(ids=["a"])["metadatas"]
    assert set(found) == {"record", "has", "<s"}
    assert backend.get("c", ["a"]) == [Record("a", None, metadata={"s": 1})]


def test_a_key_that_another_writer_s_upsert_left_does_not_count(backend: Backend) -> None:
    twin = Twin(backend, CollectionSpec("c", 8))
    row = vectors(1, 8)[0]
    before, after = {"s": "x", "n": 5, "t": "same"}, {"s": ["x"], "n": "5"}
    twin.upsert([Record("a", row, metadata=after), Record("other", row, metadata=before)])
    # What Chroma makes of an upsert, where the keys of `before` were written after ours had been looked up.
    (stored,) = raw(backend, "c").get(ids=["other"])["metadatas"]
    left = {key: value for key, value in stored.items() if key[0] in "=<+"}
    assert set(left) == {"=s", "<n", "=t"}
    raw(backend, "c").update(ids=["a"], metadatas=[left])
    for where in (
        Compare("s", "eq", "x"),
        Compare("s", "in", ("x", "z")),
        Compare("t", "eq", "same"),
        Compare("t", "exists", True),
        Compare("n", "eq", 5),
        Compare("n", "gt", 1),
        Compare("n", "lte", 5),
    ):
        twin.same_count(where)
        twin.same_count(Not(where))


def test_what_another_writer_changes_before_it_is_deleted_by_a_filter_stays(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.create(CollectionSpec("c", 8))
    old, new = {"state": "old"}, {"state": "new"}
    rows = vectors(2, 8)
    backend.upsert("c", [Record("a", rows[0], metadata=old), Record("b", rows[1], metadata=old)])
    look = backend.ids  # type: ignore[attr-defined]

    def changing(*given: object, **options: object) -> list[str]:
        found: list[str] = look(*given, **options)
        monkeypatch.undo()
        backend.upsert("c", [Record("b", rows[1], metadata=new)])
        return found

    monkeypatch.setattr(backend, "ids", changing)
    backend.delete("c", where=Compare("state", "eq", "old"))
    assert backend.get("c", ["a", "b"]) == [Record("b", None, metadata=new)]


def test_filters_that_are_too_large_for_chroma_are_answered_from_the_metadata(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = Twin(backend, CollectionSpec("c", 8))
    twin.upsert(some(60))
    twin.upsert([Record("bare", NO_VECTOR, metadata={"n": 1, "tags": ["t1"]})])
    monkeypatch.setattr(filters, "MAX_CONDITIONS", 2)
    asked = []
    evaluate = backend._evaluate  # type: ignore[attr-defined]
    monkeypatch.setattr(backend, "_evaluate", lambda *given: asked.append(given) or evaluate(*given))
    large = Or((And((Compare("n", "gt", 3), Compare("lang", "eq", "en"))), Compare("n", "eq", 1)))
    for where in (large, Not(large), Or((large, Compare("tags", "in", ("t1", "t2"))))):
        twin.same_count(where)
        for hits in twin.same_hits(vectors(2, 8), 5, where):
            assert hits[0].exact
    assert len(asked) == 6
    twin.delete(where=large)
    twin.same_records()


def test_long_lists_of_values_are_answered_by_chroma_as_far_as_it_can(backend: Backend) -> None:
    translator = filters.Translator(lambda field: False)
    values = tuple(f"v{i}" for i in range(15_000))
    condition = translator.translate(Compare("s", "in", values))
    assert filters.size(condition) == (2, 15_001)  # type: ignore[arg-type]
    twin = Twin(backend, CollectionSpec("c", 8))
    rows = vectors(40, 8)
    twin.upsert(Record(f"r{i}", row, metadata={"s": f"v{i * 1000}", "n": i * 1000}) for i, row in enumerate(rows))
    for op in ("in", "nin"):
        for n in (15_000, 65_000):
            twin.same_count(Compare("s", op, tuple(f"v{i}" for i in range(n))))  # type: ignore[arg-type]
            twin.same_count(Compare("n", op, tuple(range(n))))  # type: ignore[arg-type]
    several = Or((Compare("s", "in", values), Compare("n", "in", tuple(range(15_000, 30_000)))))
    assert twin.same_count(several) == 30
    twin.same_hits(rows[:1], 40, several)
    with pytest.raises(filters.TooLarge):
        translator.translate(several)


def test_a_filter_s_opposite_is_its_complement() -> None:
    lists = filters.Translator(lambda field: True)
    where = And((Compare("s", "eq", "x"), Or((Compare("n", "gt", 1.5), Compare("b", "exists", True)))))
    condition = lists.translate(where)
    assert filters.opposite(filters.opposite(condition)) == condition  # type: ignore[arg-type]
    assert lists.translate(Not(where)) == filters.opposite(condition)  # type: ignore[arg-type]
    assert not matches(where, {}, "image")


# Errors in passing


@pytest.mark.parametrize("call", ["get", "query", "count"])
def test_a_read_that_fails_in_passing_is_made_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    twin = Twin(backend, CollectionSpec("c", 8))
    twin.upsert(some(20))
    stored = raw(backend, "c")
    answer = getattr(stored, call)
    failures = 0

    def failing_first(**asked: object) -> object:
        nonlocal failures
        if not failures:
            failures += 1
            raise InternalError("Error executing plan: Internal error: Error finding id")
        return answer(**asked)

    monkeypatch.setattr(stored, call, failing_first)
    for read in (
        twin.same_count,
        twin.same_records,
        lambda: twin.same_hits(vectors(2, 8), 5, Compare("lang", "eq", "en")),
        lambda: twin.upsert(some(20, seed=5)),
        lambda: twin.delete(ids=["r00003"]),
    ):
        failures = 0
        read()
    twin.same_records()


def test_a_read_that_always_fails_says_so_in_seconds(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.create(CollectionSpec("c", 8))
    clock = StoppedClock()
    monkeypatch.setattr(again, "time", clock)
    monkeypatch.setattr("backends.chroma.schema.time", clock)

    def failing(**asked: object) -> None:
        raise InternalError("Error executing plan: Internal error: Error finding id")

    monkeypatch.setattr(raw(backend, "c"), "query", failing)
    with pytest.raises(BackendError, match="Error finding id"):
        backend.search("c", vectors(1, 8), 3)
    assert 3 < clock.now < 10


# Search


def test_neighbours_without_a_vector_do_not_crowd_out_the_others(backend: Backend) -> None:
    twin = Twin(backend, CollectionSpec("c", 2))
    rows = vectors(20, 2)
    twin.upsert(Record(f"v{i:02}", row) for i, row in enumerate(rows))
    twin.upsert(Record(f"b{i:03}", NO_VECTOR) for i in range(500))
    for k in (1, 10, 20, 30):
        twin.same_hits(rows[:5], k)
    assert all(BARE in row[HAS] for row in raw(backend, "c").get(ids=["b000", "b499"])["metadatas"])


def test_vectors_come_back_bit_for_bit(backend: Backend) -> None:
    for metric in ("cosine", "dot", "l2"):
        twin = Twin(backend, CollectionSpec(metric, 24, metric))  # type: ignore[arg-type]
        # More than Chroma holds back before it writes its graph.
        twin.upsert(Record(f"r{i:04}", row) for i, row in enumerate(vectors(1500, 24)))
        for found, wanted in zip(
            twin.same_records(),
            twin.oracle.get(metric, [f"r{i:04}" for i in range(1500)], with_vectors=True),
            strict=True,
        ):
            assert found.vector is not None
            assert found.vector.tobytes() == wanted.vector.tobytes()  # type: ignore[union-attr]


def test_a_closed_store_says_so_while_it_is_used(backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    backend.upsert("c", some(3))
    scan = backend.scan("c", batch=1)
    next(scan)
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        next(scan)
    with pytest.raises(BackendError, match="closed"):
        backend.search_text("c", "x", 1)
