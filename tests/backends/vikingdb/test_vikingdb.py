"""What is particular to VikingDB: keys and signatures, the index that lags behind, rows of bounded size, slots."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from app.core import server_probe
from backends import connect
from backends.base import (
    NO_VECTOR,
    And,
    Backend,
    BackendError,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    DimensionMismatch,
    Not,
    Or,
    Record,
    Unavailable,
    Unsupported,
    Where,
    matches,
)
from backends.errors import Denied, KeyMissing
from backends.kit.http_json import Answer
from backends.urls import parse_server_url
from backends.vikingdb import connection, records, rows, schema
from backends.vikingdb.backend import VikingBackend
from backends.vikingdb.filters import Translator, sharing_double
from backends.vikingdb.rows import Rows
from backends.vikingdb.schema import given_name, stored_name
from backends.vikingdb.signing import AccessKey
from tests.support import vikingdb_server
from tests.support.vikingdb_server import API_KEY, SECRET_KEY, Shim

# A sample that the vendor published with its examples, and which opens nothing.
PUBLISHED_SECRET = "TnpCak5XWXpZV1U0WkRaaE5ERmxaR0ZpTmpjeVkyUXlZek0wTWpJMU1qWQ=="
AXES = np.eye(8, dtype=np.float32)


def spec(name: str, dim: int = 8) -> CollectionSpec:
    return CollectionSpec(name, dim, "cosine", "test")


def numbers_of(count: int, **more: Any) -> dict[str, Any]:
    return {f"n{i}": i for i in range(count)} | more


@pytest.fixture
def shim() -> Shim:
    return vikingdb_server.server()


@pytest.fixture
def backend(shim: Shim) -> Iterator[Backend]:
    with connect(shim.url) as opened:
        yield opened
        for name in opened.collections():
            opened.drop(name)


def test_a_signature_is_the_one_that_the_vendor_published() -> None:
    key = AccessKey("AKLTexample", PUBLISHED_SECRET, "cn-north-1", "iam")
    query = {"Version": "2018-01-01", "Action": "ListUsers", "Offset": "0", "Limit": "10"}
    headers = key.sign(
        "GET",
        "iam.volcengineapi.com",
        "/",
        query,
        b"",
        content_type="application/x-www-form-urlencoded; charset=utf-8",
        now=datetime(2020, 12, 30, 8, 18, 5, tzinfo=UTC),
    )
    assert headers["X-Date"] == "20201230T081805Z"
    assert headers["X-Content-Sha256"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert headers["Authorization"] == (
        "HMAC-SHA256 Credential=AKLTexample/20201230/cn-north-1/iam/request, "
        "SignedHeaders=content-type;host;x-content-sha256;x-date, "
        "Signature=28eeabbbd726b87002e0fe58ad8c1c768e619b06e2646f35b6ad7ed029a6d8a7"
    )
    assert PUBLISHED_SECRET not in repr(key)


@pytest.mark.parametrize("name", ["a", "A_b", "a-b", "a_-b", "a-_b", "a_h-u_", "a" + "-" * 62, "a" * 63])
def test_names_of_collections_are_read_back(name: str) -> None:
    assert given_name(stored_name(name)) == name
    assert len(stored_name(name)) <= 128
    assert stored_name(name).replace("_", "").isalnum()


def test_names_of_collections_do_not_meet() -> None:
    names = ["a-b", "a_hb", "a_b", "a-_b", "a_-b", "a--b", "a__b", "h_a", "A-b"]
    assert len({stored_name(name) for name in names}) == len(names)
    assert given_name("somebody_elses") is None


def fulfils(condition: Any, row: dict[str, Any]) -> bool:
    """What VikingDB's filters mean, as its documentation says."""
    op = condition["op"]
    if op in ("and", "or"):
        return (all if op == "and" else any)(fulfils(inner, row) for inner in condition["conds"])
    value = row.get(condition["field"], 0)
    if op == "range":
        bounds: dict[str, Callable[[Any], bool]] = {
            "gt": lambda x: value > x,
            "gte": lambda x: value >= x,
            "lt": lambda x: value < x,
            "lte": lambda x: value <= x,
        }
        return all(bounds[bound](x) for bound, x in condition.items() if bound in bounds)
    held = value if isinstance(value, list) else [value]
    return any(x in held for x in condition["conds"]) is (op == "must")


NUMBERS: tuple[Any, ...] = (
    0,
    1,
    -1,
    1.5,
    -1.5,
    1e-300,
    1e300,
    -1e300,
    2**53,
    2**53 + 1,
    2**60 + 1,
    2**63 - 1,
    -(2**63),
    -(2**63) + 1,
    float(2**60),
    float(2**63),
)


@pytest.mark.parametrize("op", ["gt", "gte", "lt", "lte"])
def test_numbers_are_ordered_exactly_though_no_column_holds_more_than_32_bits(op: Any) -> None:
    made = [
        records.row_of(Record("r", AXES[0], metadata={"x": n}), AXES[0], 8, records.new_stamp())[-1] for n in NUMBERS
    ]
    assert all(abs(value) < 2**53 for row in made for value in row.values() if isinstance(value, int))
    for value in NUMBERS:
        where: Where = Compare("x", op, value)
        for tree in (where, Not(where), And((where, Compare("x", "exists", True))), Not(Or((where, Not(where))))):
            condition = Translator(lambda _: False).condition(tree)
            for number, row in zip(NUMBERS, made, strict=True):
                wanted = matches(tree, {"x": number}, "image")
                found = condition if isinstance(condition, bool) else fulfils(condition, row)
                assert found == wanted, f"{number} {op} {value} in {tree}"


def test_numbers_that_share_a_double_are_listed() -> None:
    assert sharing_double(5, "gt") == []
    assert sharing_double(5, "gte") == [5]
    assert sharing_double(2**53 + 1, "gt") == []
    assert sharing_double(2**53 + 1, "lt") == [2**53]
    assert len(sharing_double(2**63 - 1, "lte")) == 1024


def test_a_field_without_a_slot_is_told_and_others_keep_theirs() -> None:
    fields = [f"f{i}" for i in range(200)]
    placed = records.place(fields)
    slots = [slot for slot in placed.values() if slot != records.UNPLACED]
    assert len(slots) == len(set(slots)) == records.SLOTS
    assert all(slot in records.slots_of(field) for field, slot in placed.items() if slot != records.UNPLACED)
    for count in (1, 8, 16):
        assert records.UNPLACED not in records.place(fields[:count]).values()


@pytest.mark.parametrize(
    "url", ["vikingdb://h?nope=1", "vikingdb://h/db", "vikingdb://h?project=a%20b", "vikingdb://h?console=a:b"]
)
def test_urls_that_are_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.API_KEY, API_KEY)
    with pytest.raises(ValueError, match="vikingdb"):
        connect(url)


def test_without_a_key_it_says_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (connection.API_KEY, connection.ACCESS_KEY, connection.SECRET_KEY):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(KeyMissing, match=f"{connection.API_KEY}.*{connection.SECRET_KEY}"):
        connect("vikingdb://127.0.0.1:1?https=false")
    asked = server_probe.Answer("vikingdb://127.0.0.1:1", "vikingdb://127.0.0.1:1", "setting backend")
    server_probe.ask([asked])
    assert asked.state == server_probe.NO_KEY
    assert connection.API_KEY in str(asked.error)
    monkeypatch.setenv(connection.ACCESS_KEY, "AKLTonly")
    with pytest.raises(ValueError, match="set both"):
        connect("vikingdb://127.0.0.1:1?https=false")


def test_a_server_that_is_away_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.API_KEY, API_KEY)
    with pytest.raises(Unavailable, match=r"VikingDB at vikingdb://127.0.0.1:1 does not answer.*check host"):
        connect("vikingdb://127.0.0.1:1?https=false")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> connection.VikingServer:
    """A connection that has asked nothing yet."""
    monkeypatch.setenv(connection.ACCESS_KEY, "AKLTexample")
    monkeypatch.setenv(connection.SECRET_KEY, SECRET_KEY)
    url = parse_server_url("vikingdb://127.0.0.1:1?https=false", "vikingdb", port=443, known=("https",), keyed=True)
    return connection.VikingServer(url)


def test_closing_in_the_midst_of_calls_is_told(nowhere: connection.VikingServer) -> None:
    backend = VikingBackend(nowhere)

    class Closing(list[int]):
        def __iter__(self) -> Iterator[int]:
            backend.close()
            return super().__iter__()

    with pytest.raises(BackendError, match="closed: connect again"):
        backend._each(lambda item: item, Closing([1, 2]))


def test_an_error_of_the_control_plane_counts_whatever_the_status(
    nowhere: connection.VikingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"Code": "AlreadyExists.VikingdbCollection", "Message": "there is one"}
    answer = Answer(200, {"ResponseMetadata": {"RequestId": "1", "Error": error}})
    monkeypatch.setattr(nowhere._console, "request", lambda *_, **__: answer)
    with pytest.raises(CollectionExists, match="photos"):
        schema.create(nowhere, spec("photos"))


def test_a_cosine_is_never_over_1(nowhere: connection.VikingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (score, {"body": records.row_of(Record(name, AXES[0]), AXES[0], 8, records.new_stamp())[-1]["body"]})
        for name, score in (("b", 1.0000001), ("a", 1.0), ("c", 0.5))
    ]
    monkeypatch.setattr(Rows, "nearest", lambda self, vector, condition, limit: found[:limit])
    stored = schema.Stored(spec("photos"), Rows(nowhere, "photos", "sl_photos", "i_1"))
    (hits,) = VikingBackend(nowhere)._search(stored, AXES[:1], 1, {})
    assert [(hit.id, hit.score) for hit in hits] == [("a", 1.0)]


def test_a_vector_of_an_earlier_write_is_not_put_to_a_row(
    nowhere: connection.VikingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is behind at first: it has an earlier write of a row, and lacks another."""
    earlier, later = ({"stamp": stamp, "vector": [x]} for stamp, x in (("1", 1.0), ("2", 2.0)))
    stored = {"a": later, "b": later}
    answers = iter([{"a": earlier}, {"a": earlier}, stored])
    latest: dict[str, Any] = {}

    def data(call: str, body: dict[str, Any]) -> Any:
        if call == "fetch_in_collection":
            fetched = [{"id": key, "fields": {"stamp": "2", "parts": 0, "body": key}} for key in body["ids"]]
            return {"fetch": fetched}
        latest.update(next(answers, {}))
        shown = [(key, latest[key]) for key in body["ids"] if key in latest]
        return {
            "fetch": [{"id": k, "fields": {"stamp": row["stamp"]}, "dense_vector": row["vector"]} for k, row in shown]
        }

    monkeypatch.setattr(nowhere, "data", data)
    rows = Rows(nowhere, "photos", "sl_photos", "i_1")
    found = rows.with_vectors(rows.fetch(["a", "b"]))
    assert [(row["id"], row["vector"]) for row in found] == [("a", [2.0]), ("b", [2.0])]


@pytest.mark.server
class TestKeys:
    @pytest.mark.parametrize("wrong", ["api", "secret"])
    def test_a_wrong_key_is_refused_and_not_shown(
        self, shim: Shim, wrong: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if wrong == "api":
            monkeypatch.setenv(connection.API_KEY, "not-the-key-4711")
        else:
            monkeypatch.delenv(connection.API_KEY)
            monkeypatch.setenv(connection.SECRET_KEY, "not-the-key-4711")
        with pytest.raises(Denied, match=connection.API_KEY) as refused:
            connect(shim.url)
        assert "4711" not in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_a_signature_is_enough_for_everything(
        self, shim: Shim, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(connection.API_KEY)
        with connect(shim.url) as signed:
            signed.create(spec("signed-1"))
            signed.upsert("signed-1", [Record("a", AXES[0], text="größe 😀")])
            assert signed.get("signed-1", ["a"])[0].text == "größe 😀"
            assert signed.collections() == ["signed-1"]

    def test_an_api_key_reads_and_writes_but_makes_no_collections(
        self, shim: Shim, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend.create(spec("shared"))
        monkeypatch.delenv(connection.ACCESS_KEY)
        monkeypatch.delenv(connection.SECRET_KEY)
        with connect(shim.url) as keyed:
            keyed.upsert("shared", [Record("a", AXES[0])])
            assert [hit.id for hit in keyed.search("shared", AXES[:1], 3)[0]] == ["a"]
            assert keyed.describe("shared") == spec("shared")
            calls: tuple[Callable[[], Any], ...] = (
                keyed.collections,
                lambda: keyed.create(spec("other")),
                lambda: keyed.drop("shared"),
            )
            for call in calls:
                with pytest.raises(Denied, match=connection.ACCESS_KEY):
                    call()
        assert SECRET_KEY not in repr(keyed.__dict__)


@pytest.mark.server
class TestFaults:
    def test_the_same_client_works_again_when_the_server_is_back(self, shim: Shim, backend: Backend) -> None:
        backend.create(spec("back"))
        backend.upsert("back", [Record("a", AXES[0])])
        shim.kill()
        shim.start()
        assert [hit.id for hit in backend.search("back", AXES[:1], 3)[0]] == ["a"]
        backend.upsert("back", [Record("b", AXES[1])])
        assert backend.count("back") == 2

    def test_a_server_that_stays_away_is_told(
        self, shim: Shim, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend.create(spec("away"))
        monkeypatch.setattr(connection.VikingServer.data, "__kwdefaults__", {"timeout_s": 9.0, "patience_s": 0.1})
        shim.kill()
        try:
            with pytest.raises(Unavailable, match="does not answer"):
                backend.count("away")
        finally:
            shim.start()
        assert backend.count("away") == 0

    def test_a_wrong_dimension_is_refused_before_anything_is_stored(self, backend: Backend) -> None:
        backend.create(spec("dims"))
        with pytest.raises(DimensionMismatch):
            backend.upsert("dims", [Record("a", AXES[0]), Record("b", np.ones(7, np.float32))])
        assert backend.count("dims") == 0
        with pytest.raises(Unsupported, match="4,096"):
            backend.create(spec("wide", 4097))
        assert backend.collections() == ["dims"]

    def test_others_drop_a_collection_and_make_it_anew(self, shim: Shim, backend: Backend) -> None:
        backend.create(spec("gone"))
        backend.upsert("gone", [Record("a", AXES[0])])
        assert backend.count("gone") == 1
        with connect(shim.url) as other:
            other.drop("gone")
            calls: tuple[Callable[[], Any], ...] = (
                lambda: backend.count("gone"),
                lambda: backend.search("gone", AXES[:1], 1),
                lambda: backend.upsert("gone", [Record("a", AXES[0])]),
                lambda: list(backend.scan("gone")),
            )
            for call in calls:
                with pytest.raises(CollectionNotFound, match="gone"):
                    call()
            other.create(spec("gone", 7))
            assert backend.count("gone") == 0
            with pytest.raises(DimensionMismatch):
                backend.search("gone", AXES[:1], 1)
            with pytest.raises(CollectionExists):
                backend.create(spec("gone"))

    def test_what_others_make_anew_meanwhile_is_what_is_written_to(
        self, shim: Shim, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend.create(spec("anew"))
        stale = backend._read("anew")  # type: ignore[attr-defined]
        change, upsert = schema.set_encoder, Rows.upsert

        def make_anew(dim: int) -> None:
            monkeypatch.undo()
            with connect(shim.url) as other:
                other.drop("anew")
                other.create(CollectionSpec("anew", dim, encoder="first"))

        def late_change(stored: schema.Stored, fingerprint: str) -> None:
            make_anew(7)
            change(stored, fingerprint)

        def late_upsert(rows: Rows, given: Any) -> None:
            make_anew(8)
            upsert(rows, given)

        monkeypatch.setattr(schema, "set_encoder", late_change)
        backend.set_encoder("anew", "second")
        assert (backend.describe("anew").dim, backend.describe("anew").encoder) == (7, "second")
        backend.drop("anew")
        backend.create(spec("anew"))
        monkeypatch.setattr(Rows, "upsert", late_upsert)
        backend.upsert("anew", [Record("a", AXES[0])])
        assert backend.count("anew") == len(backend.search("anew", AXES[:1], 3)[0]) == 1
        # What belongs to a collection of long ago says nothing of this one.
        schema.set_encoder(stale, "stale")
        assert backend.describe("anew").encoder == "first"

    def test_two_writers_at_once_wait_for_what_is_theirs(self, shim: Shim, backend: Backend) -> None:
        backend.create(spec("both"))
        with connect(shim.url) as other:
            for i in range(10):
                backend.upsert("both", [Record("shared", AXES[0], text=f"one {i}"), Record(f"one{i}", AXES[0])])
                other.upsert("both", [Record("shared", AXES[1], text=f"two {i}"), Record(f"two{i}", AXES[0])])
                assert backend.count("both") == 2 * i + 3
                assert backend.get("both", ["shared"])[0].text == f"two {i}"

    def test_a_row_that_another_replaced_is_not_waited_for(self, backend: Backend) -> None:
        backend.create(spec("replaced"))
        backend.upsert("replaced", [Record("a", AXES[0])])
        stored = schema.read(backend._server, "replaced")  # type: ignore[attr-defined]
        stored.rows.wait_visible({records.key_of("a"): "an earlier stamp", records.key_of("never"): "a stamp"})

    def test_an_index_that_never_shows_a_row_is_told(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        backend.create(spec("hidden"))
        monkeypatch.setattr(rows, "VISIBLE_S", 0.2)
        monkeypatch.setattr(Rows, "fetch_in_index", lambda self, keys: {})
        with pytest.raises(Unavailable, match=r"1 records are stored in collection 'hidden'.*does not show them"):
            backend.upsert("hidden", [Record("a", AXES[0])])


@pytest.mark.server
@pytest.mark.slow
def test_what_is_written_is_seen_though_the_index_is_half_a_second_late() -> None:
    late = Shim(delay_s=0.5)
    try:
        with connect(late.url) as backend:
            backend.create(spec("late"))
            for i in range(4):
                backend.upsert("late", [Record(f"{i}-{j}", AXES[j % 8], metadata={"i": i}) for j in range(150)])
                assert backend.count("late", Compare("i", "eq", i)) == 150
                assert len(backend.search("late", AXES[:1], 1000)[0]) == 150 * (i + 1)
            assert backend.delete("late", where=Compare("i", "gte", 2)) == 300
            assert backend.count("late") == 300
            backend.upsert("late", [Record("0-0", AXES[3], metadata={"i": 9})])
            assert backend.count("late", Compare("i", "eq", 9)) == 1
            backend.drop("late")
    finally:
        late.close()


@pytest.mark.server
class TestRows:
    def test_a_record_larger_than_a_row_is_kept_in_parts_that_go_with_it(self, shim: Shim, backend: Backend) -> None:
        backend.create(spec("large"))
        texts = ['"\\\n\x01é😀' * 5_000, "x" * 65_535, "é" * 32_000]
        for text in texts:
            backend.upsert("large", [Record("a", AXES[0], text=text, uri="u" * 8_000, metadata={"v": "w" * 60_000})])
            (found,) = backend.get("large", ["a"], with_vectors=True)
            (hit,) = backend.search("large", AXES[:1], 5)[0]
            ((scanned,),) = [page.records for page in backend.scan("large", with_vectors=False)]
            assert found.text == hit.text == scanned.text == text
            assert backend.count("large") == 1
        stored = schema.read(backend._server, "large")  # type: ignore[attr-defined]
        parts = stored.rows.count({"op": "must", "field": "has", "conds": ["p"]})
        assert parts > 2
        assert backend.delete("large", ids=["a"]) == 1
        left = self._settled(stored.rows, 1)
        assert 0 < left < parts, "the parts of the last write went with it, those of replaced ones stay for a while"
        backend.flush("large")
        assert self._settled(stored.rows, 1) == left, "another writer may be about to use them"

    def _settled(self, stored: Rows, least: int) -> int:
        """How many parts the index shows once it no longer changes."""
        deadline, seen = time.monotonic() + 60, -1
        while time.monotonic() < deadline:
            found = stored.count({"op": "must", "field": "has", "conds": ["p"]})
            if found == seen and found >= least:
                return found
            seen = found
            time.sleep(0.3)
        raise AssertionError("the index does not come to rest")

    def test_flush_removes_what_interrupted_writes_have_left(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend.create(spec("parts"))
        backend.upsert("parts", [Record("kept", AXES[0], text="k" * 65_000, metadata={"v": "w" * 60_000})])
        stored = schema.read(backend._server, "parts")  # type: ignore[attr-defined]
        body, stamp = json.dumps("lost" * 40_000), records.new_stamp()
        args = ([records.RECORD], {}, AXES[0], 8, stamp, "record 'lost'")
        lost = records.rows_of(records.key_of("lost"), body, *args)[:-1]  # type: ignore[arg-type]
        stored.rows.upsert(lost)
        stored.rows.wait_visible({row["id"]: stamp for row in lost})
        monkeypatch.setattr("backends.vikingdb.backend.ABANDONED_NS", 0)
        backend.flush("parts")
        stored.rows.wait_visible({row["id"]: None for row in lost})
        assert stored.rows.fetch([row["id"] for row in lost]) == []
        assert backend.get("parts", ["kept"])[0].text == "k" * 65_000

    def test_too_many_keywords_are_refused_and_nothing_is_stored(self, backend: Backend) -> None:
        backend.create(spec("lists"))
        tags = [f"{i}" for i in range(5_500)]
        with pytest.raises(Unsupported, match=r"record 'b' has 5,50\d keywords.*65,535 bytes"):
            backend.upsert("lists", [Record("a", AXES[0]), Record("b", AXES[0], metadata={"tags": tags})])
        assert backend.count("lists") == 0

    def test_an_order_that_cannot_be_decided_is_unsupported(self, backend: Backend) -> None:
        backend.create(spec("slots"))
        backend.upsert("slots", [Record("a", AXES[0], metadata=numbers_of(20))])
        assert [backend.count("slots", Compare(f"n{i}", "gte", i)) for i in range(20)] == [1] * 20
        backend.upsert("slots", [Record("b", AXES[0], metadata=numbers_of(200))])
        refused = 0
        for i in range(200):
            assert backend.count("slots", Compare(f"n{i}", "eq", i)) == (2 if i < 20 else 1)
            try:
                assert backend.count("slots", Compare(f"n{i}", "gte", i)) == (2 if i < 20 else 1)
            except Unsupported:
                refused += 1
        assert refused == 200 - records.SLOTS
        assert backend.count("slots", Compare("elsewhere", "gte", 0)) == 0

    def test_a_cursor_of_any_key_goes_on_from_there(self, backend: Backend) -> None:
        backend.create(spec("pages"))
        backend.upsert("pages", [Record(f"r{i}", AXES[i % 8]) for i in range(30)])
        pages = list(backend.scan("pages", batch=4))
        assert [len(page.records) for page in pages] == [4] * 7 + [2]
        backend.delete("pages", ids=[pages[2].records[-1].id])
        rest = [r.id for page in backend.scan("pages", cursor=pages[2].cursor, batch=7) for r in page.records]
        assert rest == [r.id for page in pages[3:] for r in page.records]

    def test_vectors_are_read_from_the_index_where_rows_come_without_them(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetch = Rows.fetch

        def without(self: Rows, keys: Any) -> Any:
            return [{name: value for name, value in row.items() if name != "vector"} for row in fetch(self, keys)]

        monkeypatch.setattr(Rows, "fetch", without)
        backend.create(spec("bare"))
        stored = [Record(f"r{i}", AXES[i]) for i in range(3)]
        backend.upsert("bare", [*stored, Record("none", NO_VECTOR)])
        found = backend.get("bare", ["r2", "none", "r0"], with_vectors=True)
        assert found == [stored[2], Record("none", NO_VECTOR), stored[0]]
        scanned = [record for page in backend.scan("bare", batch=2) for record in page.records]
        assert sorted(record.id for record in scanned if record.has_vector) == ["r0", "r1", "r2"]

    def test_collections_of_others_are_left_alone(self, backend: Backend) -> None:
        server = backend._server  # type: ignore[attr-defined]
        fields = [
            {"FieldName": "id", "FieldType": "string", "IsPrimaryKey": True},
            {"FieldName": "vector", "FieldType": "vector", "Dim": 8},
        ]
        server.control("CreateVikingdbCollection", {"CollectionName": "theirs", "Fields": fields})
        try:
            assert backend.collections() == []
            with pytest.raises(BackendError):
                backend.describe("theirs")
        finally:
            server.control("DeleteVikingdbCollection", {"CollectionName": "theirs"})

    def test_making_that_was_interrupted_is_told_and_can_be_dropped(self, backend: Backend) -> None:
        server = backend._server  # type: ignore[attr-defined]
        made = {"CollectionName": stored_name("half"), "Fields": schema._fields(8)}
        server.control("CreateVikingdbCollection", made)
        with pytest.raises(CollectionNotFound, match="half"):
            backend.describe("half")
        with pytest.raises(CollectionExists, match="drop it first"):
            backend.create(spec("half"))
        backend.drop("half")
        backend.create(spec("half"))
        assert backend.count("half") == 0

    def test_a_collection_without_an_index_is_not_left_behind(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        control = connection.VikingServer.control

        def refusing(server: Any, action: str, body: Any) -> Any:
            if action == "CreateVikingdbIndex":
                raise connection.Refused("VikingDB refuses: QuotaExceeded: 200 indexes", "QuotaExceeded")
            return control(server, action, body)

        monkeypatch.setattr(connection.VikingServer, "control", refusing)
        with pytest.raises(BackendError, match="QuotaExceeded"):
            backend.create(spec("full"))
        assert backend.collections() == []
