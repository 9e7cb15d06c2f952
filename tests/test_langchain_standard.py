"""LangChain's own standard tests, unmodified, over every engine; asynchronous ones included.

A server is opened through the module in tests/ that starts it; where there is none its tests are skipped with the reason.
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

import backends
from backends import Backend, connect
from retrieval.langchain import SightlineEmbeddings, SightlineRetriever, SightlineVectorStore
from retrieval.search import Retriever
from tests.fake_qdrant import FakeQdrant
from tests.test_copy_matrix import OPEN
from tests.toy import ColourEncoder


def mark_coroutines(suite: type) -> None:
    """The suites leave the asyncio plug-in to whoever runs them; ours wants its tests marked."""
    for name, function in inspect.getmembers(suite, inspect.iscoroutinefunction):
        if name.startswith("test_"):
            pytest.mark.asyncio(function)


mark_coroutines(EmbeddingsIntegrationTests)
mark_coroutines(RetrieversIntegrationTests)
mark_coroutines(VectorStoreIntegrationTests)

names = (f"lc_{os.getpid()}_{i}" for i in itertools.count())


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


class TestExact(OverEngine):
    scheme = "exact"


class TestFaiss(OverEngine):
    scheme = "faiss"


class TestPgvectorEmbedded(OverEngine):
    scheme = "pgvector-embedded"


class TestPostgresql(OverEngine):
    scheme = "postgresql"


class TestQdrant(OverEngine):
    scheme = "qdrant"

    @classmethod
    def url(cls, folder: Path, stack: ExitStack) -> str:
        fake = FakeQdrant()
        stack.callback(fake.close)
        return fake.url()


class TestQdrantEdge(OverEngine):
    scheme = "qdrant-edge"


class TestQdrantLocal(OverEngine):
    scheme = "qdrant-local"


class TestMilvus(OverEngine):
    scheme = "milvus"


class TestMilvusLite(OverEngine):
    scheme = "milvus-lite"


class TestWeaviate(OverEngine):
    scheme = "weaviate"


def test_every_scheme_takes_part() -> None:
    assert sorted(cls.scheme for cls in OverEngine.__subclasses__()) == sorted(backends.SCHEMES)


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
