"""The conformance suite over Qdrant's client, and what is particular to it.

No package holds a Qdrant server, so the remote path runs against `FakeQdrant`, over HTTP and over gRPC.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import grpc
import numpy as np
import pytest
from qdrant_client import models

from backends import connect
from backends.base import (
    BackendError,
    Capabilities,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Compare,
    IndexSpec,
    Record,
    Unavailable,
)
from backends.conformance import BackendSuite, Sizes
from backends.errors import Denied
from backends.qdrant.backend import QdrantBackend
from tests.support import fake_qdrant
from tests.support.fake_qdrant import FakeQdrant, Refusal

# Local mode, which the fake answers from, filters in Python, record by record.
SIZES = Sizes(crowd=1_000, hard=1_000, wide=2_000, indexed=800, kills=2)


@pytest.mark.slow
class TestQdrantLocal(BackendSuite):
    url = "qdrant-local://"
    sizes = SIZES


class FakeServer(BackendSuite):
    sizes = SIZES
    prefer_grpc: ClassVar[bool]
    fake: ClassVar[FakeQdrant]

    @classmethod
    def setup_class(cls) -> None:
        cls.fake = FakeQdrant()
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.fake.close()

    @classmethod
    def place(cls, directory: Path) -> str:
        return cls.fake.url(prefer_grpc=cls.prefer_grpc)


@pytest.mark.slow
class TestQdrantOverHttp(FakeServer):
    prefer_grpc = False


@pytest.mark.slow
class TestQdrantOverGrpc(FakeServer):
    prefer_grpc = True


del BackendSuite, FakeServer

KEY = "s3cret-key"
BOTH = pytest.mark.parametrize("prefer_grpc", [False, True])


@pytest.fixture
def fake() -> Iterator[FakeQdrant]:
    server = FakeQdrant()
    yield server
    server.close()


@pytest.fixture
def locked() -> Iterator[FakeQdrant]:
    server = FakeQdrant(KEY)
    yield server
    server.close()


def row(i: int, dim: int = 4) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(i).standard_normal(dim).astype(np.float32)


@BOTH
def test_a_wrong_key_is_refused_and_not_repeated(locked: FakeQdrant, prefer_grpc: bool) -> None:
    with pytest.raises(Unavailable, match=r"refused the API key.*SIGHTLINE_QDRANT_API_KEY") as caught:
        connect(locked.url(prefer_grpc=prefer_grpc) + "&api_key=wrong-one")
    assert "wrong-one" not in str(caught.value)


@BOTH
def test_the_key_comes_from_the_environment(
    locked: FakeQdrant, prefer_grpc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_QDRANT_API_KEY", KEY)
    with connect(locked.url(prefer_grpc=prefer_grpc)) as backend:
        assert backend.collections() == []
        assert KEY not in repr(vars(backend))


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(Unavailable, match=rf"qdrant://127\.0\.0\.1:{port}.*start a Qdrant server"):
        connect(f"qdrant://127.0.0.1:{port}?prefer_grpc=false&api_key={KEY}")


@BOTH
def test_a_server_that_goes_away_is_named(prefer_grpc: bool) -> None:
    fake = FakeQdrant()
    backend = connect(fake.url(prefer_grpc=prefer_grpc))
    backend.create(CollectionSpec("c", 4))
    fake.close()
    with backend, pytest.raises(Unavailable, match="does not answer"):
        backend.upsert("c", [Record("a", row(0))])


@BOTH
@pytest.mark.parametrize(
    ("status", "code", "text", "expected", "message"),
    [
        (
            507,
            grpc.StatusCode.INTERNAL,
            "No space left on device: WAL buffer size exceeds",
            Unavailable,
            "disk is full",
        ),
        (408, grpc.StatusCode.DEADLINE_EXCEEDED, "Timeout: operation timed out", Unavailable, "timeout_s"),
        (429, grpc.StatusCode.RESOURCE_EXHAUSTED, "Rate limiting exceeded", Unavailable, "no more requests"),
        (403, grpc.StatusCode.PERMISSION_DENIED, "Forbidden: read-only", Denied, "refused the API key"),
        (
            404,
            grpc.StatusCode.NOT_FOUND,
            "Not found: Collection `x` doesn't exist!",
            CollectionNotFound,
            "no collection",
        ),
        (400, grpc.StatusCode.INVALID_ARGUMENT, "Vector dimension error: expected 4, got 5", BackendError, "dimension"),
        (422, grpc.StatusCode.INVALID_ARGUMENT, "bad value 'no space left, timed out'", BackendError, "bad value"),
        (500, grpc.StatusCode.INTERNAL, "Service internal error: task panicked", BackendError, "panicked"),
    ],
)
def test_what_the_server_refuses_has_its_own_error(
    fake: FakeQdrant, prefer_grpc: bool, status: int, code: grpc.StatusCode, text: str, expected: type, message: str
) -> None:
    with connect(fake.url(prefer_grpc=prefer_grpc)) as backend:
        backend.create(CollectionSpec("c", 4))
        fake.local.failure = Refusal(status, code, text)
        with pytest.raises(expected, match=message) as caught:
            backend.upsert("c", [Record("a", row(0))])
        assert type(caught.value) is expected
        assert "\n" not in str(caught.value)
        fake.local.failure = None
        backend.upsert("c", [Record("a", row(0))])
        assert backend.count("c") == 1


def test_an_old_server_is_refused(fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_qdrant, "VERSION", "1.9.4")
    with pytest.raises(Unavailable, match=r"runs Qdrant 1\.9\.4.*needs 1\.16"):
        connect(fake.url(prefer_grpc=True))


@BOTH
def test_foreign_collections_are_neither_listed_nor_touched(fake: FakeQdrant, prefer_grpc: bool) -> None:
    mine = models.VectorParams(size=2, distance=models.Distance.COSINE)
    for name in ("photos", "sightline_photos"):
        fake.local.client.create_collection(name, vectors_config=mine)
        fake.local.client.upsert(name, [models.PointStruct(id=1, vector=[1.0, 0.0])])
    with connect(fake.url(prefer_grpc=prefer_grpc)) as backend:
        assert backend.collections() == []
        with pytest.raises(CollectionNotFound):
            backend.describe("photos")
        with pytest.raises(CollectionExists, match="sightline_photos"):
            backend.create(CollectionSpec("photos", 4))
        backend.drop("photos")
    for name in ("photos", "sightline_photos"):
        assert fake.local.client.count(name).count == 1


@BOTH
def test_a_large_upsert_goes_in_requests_of_a_thousand(
    fake: FakeQdrant, prefer_grpc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(fake.url(prefer_grpc=prefer_grpc)) as backend:
        backend.create(CollectionSpec("c", 4))
        sent: list[list[str]] = []
        client = backend._driver._client  # type: ignore[attr-defined]
        monkeypatch.setattr(client, "upsert", lambda name, points, wait: sent.append([str(p.id) for p in points]))
        vector = row(1)
        backend.upsert("c", (Record(f"r{i}", vector) for i in range(20_000)))
        assert [len(ids) for ids in sent] == [1_000] * 20
        assert len({point for ids in sent for point in ids}) == 20_000


@BOTH
def test_a_collection_that_someone_else_made_anew_is_seen(fake: FakeQdrant, prefer_grpc: bool) -> None:
    with connect(fake.url(prefer_grpc=prefer_grpc)) as one, connect(fake.url(prefer_grpc=prefer_grpc)) as two:
        one.create(CollectionSpec("c", 4))
        one.upsert("c", [Record("a", row(0))])
        two.drop("c")
        with pytest.raises(CollectionNotFound):
            one.count("c")
        two.create(CollectionSpec("c", 6))
        with pytest.raises(BackendError, match="holds"):
            one.upsert("c", [Record("a", row(0, 4))])
        one.upsert("c", [Record("a", row(0, 6))])
        assert two.count("c") == 1


@BOTH
def test_a_field_is_indexed_when_a_filter_names_it_and_a_record_has_it(fake: FakeQdrant, prefer_grpc: bool) -> None:
    with connect(fake.url(prefer_grpc=prefer_grpc)) as backend:
        backend.create(CollectionSpec("c", 4))
        backend.upsert("c", [Record("a", row(0), metadata={"n": 1})])
        for name in ("n", *(f"absent{i}" for i in range(40))):
            assert backend.count("c", Compare(name, "gt", 0)) == (name == "n")
        assert set(fake.local.info("sightline_c").payload_schema) == {"has", "order.n-n0", "order.n-n1"}


@BOTH
def test_index_and_search_parameters_reach_the_server(fake: FakeQdrant, prefer_grpc: bool) -> None:
    index = IndexSpec("hnsw", "int8", {"m": 24, "ef_construction": 77})
    with connect(fake.url(prefer_grpc=prefer_grpc)) as backend:
        backend.create(CollectionSpec("c", 4, index=index))
        body = fake.local.created["sightline_c"]
        assert isinstance(body.vectors, dict)
        sent = body.vectors["vector"]
        assert sent.hnsw_config is not None
        assert (sent.hnsw_config.m, sent.hnsw_config.ef_construct) == (24, 77)
        assert sent.distance == models.Distance.DOT
        assert isinstance(sent.quantization_config, models.ScalarQuantization)
        assert body.optimizers_config is not None
        assert body.optimizers_config.indexing_threshold == 1
        backend.upsert("c", [Record(f"r{i}", row(i), metadata={"year": i}) for i in range(9)])
        for effort, where in ((0.25, None), (0.75, Compare("year", "gt", 2)), (1.0, None)):
            backend.search("c", [row(3)], 5, where=where, effort=effort)
        low, high, full = fake.local.params
        assert low.hnsw_ef is not None
        assert high.hnsw_ef is not None
        assert low.hnsw_ef < high.hnsw_ef
        assert low.quantization is not None
        assert low.quantization.rescore is True
        assert not low.acorn
        assert high.acorn is not None
        assert high.acorn.enable is True
        assert full.exact is True
        assert set(fake.local.info("sightline_c").payload_schema) == {"has", "order.year-n0", "order.year-n1"}


@pytest.mark.parametrize(
    "url",
    [
        "qdrant://",
        "qdrant://h:99999",
        "qdrant://h/path",
        "qdrant://user:pw@h",
        "qdrant://h?unknown=1",
        "qdrant://h?https=maybe",
        "qdrant://h?grpc_port=0",
        "qdrant://h?timeout_s=x",
        "qdrant://h?api_key",
    ],
)
def test_malformed_urls_are_refused_without_their_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="qdrant") as caught:
        connect(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("url", ["qdrant-local:///dir", "qdrant-local://:memory:", "qdrant-local://?x=1"])
def test_local_mode_takes_no_place(url: str) -> None:
    with pytest.raises(ValueError, match="qdrant-edge"):
        connect(url)


def test_local_mode_is_declared_for_what_it_is() -> None:
    with connect("qdrant-local://") as backend:
        declared: Capabilities = backend.capabilities
        assert not declared.persistent
        assert not declared.server
        assert not declared.effort
    assert QdrantBackend.capabilities.persistent
