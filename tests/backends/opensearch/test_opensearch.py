"""What is special to OpenSearch and Elasticsearch: URLs, faults, indexes as others see them; on both real servers."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import numpy as np
import pytest

from backends import connect
from backends.base import (
    And,
    Backend,
    BackendError,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    DimensionMismatch,
    IndexSpec,
    Not,
    Or,
    Record,
    Unavailable,
    Unsupported,
)
from backends.conformance.oracle import Twin
from backends.conformance.samples import some, vectors
from backends.errors import Denied
from backends.opensearch import schema
from backends.opensearch.filters import MAX_CLAUSES, Translator
from backends.opensearch.local_server import _launch, _missing
from backends.opensearch.records import CHUNK, tokens
from tests.support import elasticsearch_server, opensearch_server
from tests.support.tiers import tiered

SERVERS: dict[str, ModuleType] = {"opensearch": opensearch_server, "elasticsearch": elasticsearch_server}
SECRET = "a-secret-that-is-wrong"


@pytest.fixture(params=tiered(SERVERS))
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(scheme: str) -> str:
    return str(SERVERS[scheme].server().url)


@pytest.fixture
def backend(url: str) -> Iterator[Backend]:
    with connect(url) as opened:
        opened.drop("c")
        yield opened
        opened.drop("c")


@contextmanager
def guarded(url: str, allowed: str) -> Iterator[str]:
    """The address of a proxy that asks for this header, as the servers' security does, which no package has."""
    port = int(url.rpartition(":")[2])

    class Guard(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != allowed:
                self.reply(401, b"Unauthorized", "text/plain")
                return
            kept = {k: v for k, v in self.headers.items() if k in ("Accept", "Content-Type")}
            address = f"http://127.0.0.1:{port}{self.path}"
            request = urllib.request.Request(address, data=body or None, headers=kept, method=self.command)
            try:
                with urllib.request.urlopen(request) as found:
                    self.reply(found.status, found.read(), found.headers["Content-Type"])
            except urllib.error.HTTPError as error:
                self.reply(error.code, error.read(), error.headers["Content-Type"])

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def reply(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Guard) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_wrong_password_or_key_is_refused_and_not_shown(
    scheme: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # user:password in base64.
    with guarded(url, "Basic bWU6cmlnaHQ6b25l") as address:
        for wrong in ("", f"me:{SECRET}@", f":me%3A{SECRET}@"):
            with pytest.raises(Denied) as caught:
                connect(f"{scheme}://{wrong}{address}")
            assert SECRET not in str(caught.value)
            assert "credentials" in str(caught.value)
        with connect(f"{scheme}://me:right%3Aone@{address}") as backend:
            assert isinstance(backend.collections(), list)
        name = {"opensearch": "SIGHTLINE_OPENSEARCH_PASSWORD", "elasticsearch": "SIGHTLINE_ELASTICSEARCH_API_KEY"}
        monkeypatch.setenv(name[scheme], "me:right:one")
        connect(f"{scheme}://{address}").close()


def test_an_api_key_is_sent_to_elasticsearch_alone() -> None:
    with pytest.raises(ValueError, match="user:password"):
        connect("opensearch://:onlyakey@127.0.0.1:1")
    with pytest.raises(Unavailable) as caught:
        connect(f"elasticsearch://:{SECRET}@127.0.0.1:1?timeout=1")
    assert SECRET not in str(caught.value)
    assert "engines up elasticsearch" in str(caught.value)


@pytest.mark.server("elasticsearch")
def test_an_api_key_opens_elasticsearch() -> None:
    with guarded(elasticsearch_server.server().url, "ApiKey YWJjOmRlZg==") as address:
        connect(f"elasticsearch://:YWJjOmRlZg%3D%3D@{address}").close()


def test_the_other_product_is_named(scheme: str, url: str) -> None:
    other = {"opensearch": "elasticsearch", "elasticsearch": "opensearch"}[scheme]
    with pytest.raises(Unavailable, match=f"write {scheme}://"):
        connect(url.replace(scheme, other))


@pytest.mark.parametrize("option", ["replicas=x", "shards=0", "https=perhaps", "nonsense=1"])
def test_options_that_cannot_be_are_refused(option: str, scheme: str, url: str) -> None:
    with pytest.raises(ValueError, match="option"), connect(f"{url}?{option}") as backend:
        backend.create(CollectionSpec("c", 4))


def test_shards_and_replicas_are_as_asked_for(url: str, backend: Backend) -> None:
    with connect(f"{url}?shards=3&replicas=1") as wide:
        wide.create(CollectionSpec("c", 8))
        wide.upsert("c", some(90))
        index = backend._server.call("GET", f"/{schema.index_name('c')}/_settings")[schema.index_name("c")]
        assert (index["settings"]["index"]["number_of_shards"], index["settings"]["index"]["number_of_replicas"]) == (
            "3",
            "1",
        )
        assert len(wide.search("c", vectors(2, 8), 90)[1]) == 90
        assert backend.search_text("c", "picture 7", 1)[0].id == "r00007"
        assert [r.id for page in backend.scan("c", batch=20) for r in page.records] == [f"r{i:05}" for i in range(90)]
        assert backend.delete("c", where=Compare("n", "lt", 50)) == 50


def test_the_same_client_works_when_the_server_is_back(scheme: str, url: str, backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    backend.upsert("c", some(20))
    SERVERS[scheme].kill()
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(backend.count("c")))
    thread.start()
    SERVERS[scheme].server()
    thread.join()
    assert found == [20]
    backend.upsert("c", some(5, prefix="s"))
    assert len(backend.search("c", vectors(1, 8), 50)[0]) == 25


def test_a_server_that_stays_away_is_named(scheme: str, url: str) -> None:
    with connect(f"{url}?timeout=1") as backend:
        backend._server._client.close()
        backend._server._client = _Gone()
        with pytest.raises(Unavailable, match=f"engines up {scheme}"):
            backend.collections()


class _Gone:
    """A client whose server is gone."""

    def send(self, *_: object) -> tuple[int, bytes]:
        raise ConnectionError("refused")

    def close(self) -> None:
        """Nothing is open."""


def test_a_full_disk_is_said(backend: Backend) -> None:
    """By the block that the servers put on an index when their disk is nearly full."""
    backend.create(CollectionSpec("c", 8))
    backend.upsert("c", some(3))
    path = f"/{schema.index_name('c')}/_settings"
    backend._server.call("PUT", path, {"index.blocks.read_only_allow_delete": True})
    with pytest.raises(BackendError, match="disk is nearly full"):
        backend.upsert("c", some(3, prefix="s"))
    assert backend.count("c") == 3
    backend._server.call("PUT", path, {"index.blocks.read_only_allow_delete": None})
    backend.upsert("c", some(3, prefix="s"))
    assert backend.count("c") == 6


def test_a_wrong_dimension_is_refused_before_it_is_sent(backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    with pytest.raises(DimensionMismatch):
        backend.upsert("c", some(3, 9))
    with pytest.raises(DimensionMismatch):
        backend.search("c", vectors(1, 7), 3)
    with pytest.raises(Unsupported, match="dimensions"):
        backend.create(CollectionSpec("d", 16_384))


def test_what_others_drop_is_gone_and_no_write_brings_it_back(url: str, backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    backend.upsert("c", some(3))
    with connect(url) as other:
        other.drop("c")
        ways: list[Callable[[], object]] = [
            lambda: backend.upsert("c", some(3)),
            lambda: backend.search("c", vectors(1, 8), 3),
            lambda: backend.get("c", ["r00000"]),
            lambda: backend.count("c"),
            lambda: backend.delete("c", ids=["r00000"]),
        ]
        for way in ways:
            with pytest.raises(CollectionNotFound):
                way()
        assert "c" not in other.collections()
        other.create(CollectionSpec("c", 4, "l2"))
        other.upsert("c", some(2, 4))
        assert backend.count("c") == 2
        assert backend.search("c", vectors(1, 4), 1)[0][0].score == 0.0


def test_a_write_to_an_index_that_has_just_gone_makes_none(url: str, backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    stored = backend._read("c")
    with connect(url) as other:
        other.drop("c")
    with pytest.raises(BackendError) as caught:
        backend._server.bulk(stored.alias, [b'{"index": {"_id": "a"}}\n{"id": "a"}\n'])
    assert caught.value.gone
    assert "c" not in backend.collections()


def test_two_writers_at_once(url: str, backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))

    def write(prefix: str) -> None:
        with connect(url) as mine:
            for start in range(3):
                mine.upsert("c", some(20, prefix=prefix, seed=start))
                assert mine.count("c", Compare("n", "gte", 0)) >= 20

    threads = [threading.Thread(target=write, args=(prefix,)) for prefix in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backend.count("c") == 40
    assert len(backend.search("c", vectors(1, 8), 100)[0]) == 40


def test_a_record_that_is_replaced_while_it_is_deleted_stays(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.create(CollectionSpec("c", 8))
    backend.upsert("c", some(4))
    real = backend._delete

    def late(stored, actions):
        monkeypatch.setattr(backend, "_delete", real)
        backend.upsert("c", [Record("r00001", vectors(1, 8)[0], metadata={"n": 100})])
        return real(stored, actions)

    monkeypatch.setattr(backend, "_delete", late)
    assert backend.delete("c", where=Compare("n", "lt", 3)) == 2
    assert [r.id for page in backend.scan("c") for r in page.records] == ["r00001", "r00003"]


def test_long_strings_have_an_order_and_deep_filters_an_answer(backend: Backend) -> None:
    twin = Twin(backend, CollectionSpec("c", 8))
    words = ["a" * n + tail for n in (CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK) for tail in ("", "b", "é")]
    twin.upsert(some(len(words), metadata=[{"w": word, "n": i} for i, word in enumerate(words)]))
    for word in words:
        for op in ("lt", "lte", "gt", "gte", "eq", "ne"):
            twin.same_count(Compare("w", op, word))
    deep = Compare("n", "gte", 4)
    for level in range(24):
        deep = Or((And((Not(deep), Compare("n", "lt", 11))), Compare("n", "eq", level)))
    twin.same_count(deep)


def test_more_comparisons_than_a_server_takes_are_asked_piece_by_piece(backend: Backend) -> None:
    twin = Twin(backend, CollectionSpec("c", 8))
    twin.upsert(some(40, metadata=[{"n": i, f"f{i % 7}": i} for i in range(40)]))
    # Each a range and a term of its own, which no list can stand for.
    each = tuple(And((Compare(f"f{i}", "gte", i % 40), Not(Compare("n", "eq", i % 40)))) for i in range(1_100))
    for where in (Or(each), Not(Or(each)), And(tuple(Not(clause) for clause in each))):
        twin.same_count(where)
    twin.same_hits(vectors(1, 8), 40, Or(each))


def test_distances_that_are_nearly_nothing_are_told_apart(backend: Backend) -> None:
    twin = Twin(backend, CollectionSpec("c", 4, "l2"))
    rows = np.ones((30, 4), np.float32) + np.arange(30, dtype=np.float32)[:, None] * 3e-5
    twin.upsert(Record(f"{i:02}", row) for i, row in enumerate(rows))
    for where in (None, Compare("modality", "eq", "image")):
        (hits,) = backend.search("c", rows[:1], 5, where=where)
        assert [hit.id for hit in hits] == ["00", "01", "02", "03", "04"]


def test_a_quantized_index_is_compared_by_the_vectors_themselves(backend: Backend) -> None:
    twin = Twin(backend, CollectionSpec("c", 16, index=IndexSpec("hnsw", "int8")))
    twin.upsert(some(200, 16))
    for hits in twin.same_hits(vectors(5, 16, seed=4), 10, recall=0.99):
        assert not any(hit.exact for hit in hits)
    assert twin.same_hits(vectors(1, 16), 1)[0][0].score == pytest.approx(1.0, abs=1e-6)


def test_capitals_in_names_are_kept_apart(backend: Backend) -> None:
    assert schema.index_name("Ab_c-D") == "sightline-.ab_c-.d"
    for name in ("c", "C"):
        backend.drop(name)
        backend.create(CollectionSpec(name, 4))
    try:
        assert {"c", "C"} <= set(backend.collections())
    finally:
        backend.drop("C")
    assert "c" in backend.collections()


def test_an_index_of_others_is_left_alone(backend: Backend) -> None:
    server = backend._server
    server.call("PUT", "/sightline-others", {"mappings": {"_meta": {"sightline": {"spec": "{"}}}})
    try:
        assert "others" not in backend.collections()
        backend.drop("others")
        assert server.call("GET", "/sightline-others/_mapping", missing_ok=True) is not None
    finally:
        server.call("DELETE", "/sightline-others")


def test_a_query_of_too_many_words_is_refused(backend: Backend) -> None:
    backend.create(CollectionSpec("c", 8))
    with pytest.raises(Unsupported, match="words"):
        backend.search_text("c", " ".join(f"w{i}" for i in range(2_000)), 3)


def test_a_part_that_matches_too_many_is_refused_not_cut() -> None:
    def too_many(_: object) -> list[str]:
        raise Unsupported("too many")

    each = tuple(And((Compare(f"f{i}", "gte", i), Not(Compare("n", "eq", i)))) for i in range(MAX_CLAUSES))
    with pytest.raises(Unsupported):
        Translator(too_many).query(Or(each))


def test_keywords_of_one_field_are_never_those_of_another() -> None:
    found = tokens("text", {"a": "x", "a_b": 1, "l": ["x"], "t": True}, has_vector=True)
    assert len(set(found)) == len(found) == 2 + 2 * 4


def test_what_is_missing_for_a_local_server_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from backends.opensearch import local_server

    monkeypatch.setattr(local_server, "SHARE", tmp_path)
    for name in SERVERS:
        assert "make engines" in str(_missing(name))
    monkeypatch.setattr(local_server, "_java", lambda: "/usr/bin/java")
    launch = _launch("opensearch", tmp_path)
    assert "OpenSearchServer" in launch.argv
    assert "127.0.0.1" in (tmp_path / "home" / "config" / "opensearch.yml").read_text("utf-8")
