"""LangChain's own standard tests, unmodified, over every engine, asynchronous ones included; and a few of ours.

A server is opened through the module in tests/support that starts it; where there is none, its tests are skipped and
say why.
"""

from __future__ import annotations

import inspect
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests
from PIL import Image

import backends
from backends import Backend, connect
from retrieval.langchain import SightlineEmbeddings, SightlineRetriever, SightlineVectorStore
from retrieval.search.retriever import Retriever
from tests.support.fake_qdrant import FakeQdrant
from tests.support.open_engines import OPEN
from tests.support.toy import PALETTE, ColourEncoder


def mark_coroutines(suite: type) -> None:
    """The suites leave the asyncio plug-in to whoever runs them; ours wants its tests marked."""
    for name, function in inspect.getmembers(suite, inspect.iscoroutinefunction):
        if name.startswith("test_"):
            pytest.mark.asyncio(function)


mark_coroutines(EmbeddingsIntegrationTests)
mark_coroutines(RetrieversIntegrationTests)
mark_coroutines(VectorStoreIntegrationTests)

names = (f"lc_{os.getpid()}_{i}" for i in itertools.count())


METADATA: list[dict[str, Any]] = [
    {},
    {"n": 1, "x": 1.0, "flag": True, "name": "é", "tags": ["a", "b"], "empty": [], "blank": ""},
    {"nested": {"a": [1, None, {"b": "c"}]}, "none": None, "numbers": [1, 2.5], "mixed": ["a", 1]},
    {"modality": "ours", "uri": "u", "score": 3, "id": "x", "_langchain": "{}", "text": "t", "vector": [0.5]},
    {"a name with spaces": 1, "ünïcode": "✓", "1st": 2, "x" * 65: 3, "$op": 4, "": 5, "a.b": 6},
    {"nul": "a\x00b", "huge": 2**70, "nuls": ["\x00"], "infinite": float("inf")},
]


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (8, 8), PALETTE[colour])


class OverEngine(VectorStoreIntegrationTests):
    """One engine is opened for the class; each test has a collection of its own."""

    scheme: str
    backend: Backend
    _stack: ExitStack

    @classmethod
    def setup_class(cls) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True))
            cls.backend = stack.enter_context(connect(cls.url(Path(folder), stack)))
            cls._stack = stack.pop_all()

    @classmethod
    def teardown_class(cls) -> None:
        cls._stack.close()

    @classmethod
    def url(cls, folder: Path, stack: ExitStack) -> str:
        return OPEN[cls.scheme](folder, stack)

    @pytest.fixture
    def vectorstore(self) -> Iterator[SightlineVectorStore]:
        store = SightlineVectorStore(self.backend, self.get_embeddings(), next(names))
        yield store
        self.backend.drop(store.collection)

    # Ours, named apart from the suite's.

    @pytest.fixture
    def pictures(self) -> Iterator[SightlineVectorStore]:
        store = SightlineVectorStore(self.backend, SightlineEmbeddings(ColourEncoder()), next(names))
        yield store
        self.backend.drop(store.collection)

    def test_sightline_any_metadata_comes_back(self, vectorstore: SightlineVectorStore) -> None:
        documents = [Document(f"text {i}", id=f"{i}", metadata=each) for i, each in enumerate(METADATA)]
        vectorstore.add_documents(documents)
        assert vectorstore.get_by_ids([document.id for document in documents]) == documents
        found = vectorstore.similarity_search("text", k=len(documents))
        assert sorted(found, key=lambda document: int(document.id)) == documents
        for document in vectorstore.get_by_ids(["1"]):
            assert {name: type(value) for name, value in document.metadata.items()} == {
                name: type(value) for name, value in METADATA[1].items()
            }

    def test_sightline_filters(self, vectorstore: SightlineVectorStore) -> None:
        vectorstore.add_texts(
            ["a", "b", "c", "d"],
            [{"year": 1990, "tags": ["x"]}, {"year": 2001, "tags": ["x", "y"]}, {"year": 2020, "odd": {"n": 1}}, {}],
            ids=["a", "b", "c", "d"],
        )

        def found(filter: dict[str, Any]) -> set[str | None]:
            return {document.id for document in vectorstore.similarity_search("b", k=4, filter=filter)}

        assert found({"year": {"$gte": 2000}}) == {"b", "c"}
        assert found({"tags": "x", "year": {"$lt": 2000}}) == {"a"}
        assert found({"$not": {"year": {"$in": [1990, 2020]}}}) == {"b", "d"}
        assert [d.id for d, _ in vectorstore.similarity_search_with_score("b", 1, {"year": 2020})] == ["c"]
        assert vectorstore.delete(filter={"year": {"$gte": 2000}})
        assert found({}) == {"a", "d"}
        with pytest.raises(ValueError, match="neither ids nor a filter"):
            vectorstore.delete()
        assert found({}) == {"a", "d"}

    def test_sightline_images_beside_texts(self, pictures: SightlineVectorStore) -> None:
        pictures.add_images(
            [picture("red"), picture("blue")], [{"n": 1}, {"n": None}], captions=["a red wall", None], ids=["r", "b"]
        )
        pictures.add_texts(["red paint", "green paint"], ids=["t", "g"])
        assert [d.id for d in pictures.similarity_search("red", k=1, modality="image")] == ["r"]
        assert [d.id for d in pictures.similarity_search("red", k=1, modality="text")] == ["t"]
        assert {d.id for d in pictures.similarity_search("red", k=2)} == {"r", "t"}
        (nearest,) = pictures.similarity_search_by_image(picture("blue"), k=1, modality="image")
        assert nearest == Document("", id="b", metadata={"n": None, "modality": "image"})
        assert pictures.get_by_ids(["r"])[0].page_content == "a red wall"

    def test_sightline_diversity(self, pictures: SightlineVectorStore) -> None:
        pictures.add_texts(["red red red", "red red", "red green", "blue"], ids=["r3", "r2", "rg", "b"])
        nearest = pictures.max_marginal_relevance_search("red", k=2, lambda_mult=1.0, modality="text")
        assert {d.id for d in nearest} == {"r3", "r2"}
        diverse = pictures.max_marginal_relevance_search("red", k=2, lambda_mult=0.5, modality="text")
        assert [d.id for d in diverse][1] not in {"r3", "r2"}


class TestChromaEmbedded(OverEngine):
    scheme = "chroma-embedded"


@pytest.mark.server("chroma")
class TestChroma(OverEngine):
    scheme = "chroma"


class TestExact(OverEngine):
    scheme = "exact"


class TestFaiss(OverEngine):
    scheme = "faiss"


class TestChdb(OverEngine):
    scheme = "chdb"


@pytest.mark.server
class TestClickHouse(OverEngine):
    scheme = "clickhouse"


@pytest.mark.server
class TestMyScale(OverEngine):
    scheme = "myscale"


@pytest.mark.server
class TestPgvectorEmbedded(OverEngine):
    scheme = "pgvector-embedded"


@pytest.mark.server
class TestPostgresql(OverEngine):
    scheme = "postgresql"


@pytest.mark.server
class TestAnalyticdb(OverEngine):
    scheme = "analyticdb"


class TestCouchbase(OverEngine):
    scheme = "couchbase"


class TestQdrant(OverEngine):
    scheme = "qdrant"

    prefer_grpc = False

    @classmethod
    def url(cls, folder: Path, stack: ExitStack) -> str:
        fake = FakeQdrant()
        stack.callback(fake.close)
        return fake.url(prefer_grpc=cls.prefer_grpc)


class TestQdrantGrpc(TestQdrant):
    prefer_grpc = True


class TestQdrantEdge(OverEngine):
    scheme = "qdrant-edge"


class TestQdrantLocal(OverEngine):
    scheme = "qdrant-local"


@pytest.mark.server("milvus")
class TestMilvus(OverEngine):
    scheme = "milvus"


@pytest.mark.slow
class TestMilvusLite(OverEngine):
    scheme = "milvus-lite"


@pytest.mark.server("weaviate")
class TestWeaviate(OverEngine):
    scheme = "weaviate"


@pytest.mark.server
class TestVikingDB(OverEngine):
    scheme = "vikingdb"


@pytest.mark.server("tidb")
class TestTidb(OverEngine):
    scheme = "tidb"


@pytest.mark.server("opensearch")
class TestOpenSearch(OverEngine):
    scheme = "opensearch"


@pytest.mark.server("elasticsearch")
class TestElasticsearch(OverEngine):
    scheme = "elasticsearch"


def test_every_scheme_takes_part() -> None:
    assert {cls.scheme for cls in OverEngine.__subclasses__()} == set(backends.engines())


class OfEmbeddings:
    """How the embeddings under test are made."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return SightlineEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": ColourEncoder()}


class TestEmbeddings(OfEmbeddings, EmbeddingsIntegrationTests):
    pass


class TestEmbeddingsUnit(OfEmbeddings, EmbeddingsUnitTests):
    pass


class OfRetriever(RetrieversIntegrationTests):
    """What the retrievers under test are asked."""

    retriever_query_example = "a red house"

    @pytest.fixture(autouse=True)
    def filled(self) -> None:
        encoder, backend = ColourEncoder(), connect("exact://")
        self.store = SightlineVectorStore(backend, SightlineEmbeddings(encoder), "c")
        self.store.add_documents([Document(f"{word} house") for word in ("red", "green", "blue", "black")])
        self.retrieves = Retriever(backend, encoder, "c")


class TestRetriever(OfRetriever):
    @property
    def retriever_constructor(self) -> type[SightlineRetriever]:
        return SightlineRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retriever": self.retrieves}
