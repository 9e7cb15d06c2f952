"""LangChain: texts that the encoder cannot read are stored for keyword search alone, and refused as queries."""

from __future__ import annotations

import logging

import pytest
from langchain_core.embeddings import Embeddings

from backends import connect
from retrieval.langchain.embeddings import SightlineEmbeddings
from retrieval.langchain.retriever import SightlineRetriever
from retrieval.langchain.store import SightlineVectorStore
from retrieval.search.query import UnreadableQuery
from retrieval.search.retriever import EncoderMismatch, Retriever
from tests.support.readers import LatinReader

CAPTION = "一架 飞机 停在 跑道"


def test_such_texts_are_stored_and_such_queries_refused() -> None:
    store = SightlineVectorStore(connect("exact://"), SightlineEmbeddings(LatinReader()), "c")
    store.add_texts([CAPTION, "a red square"], ids=["zh", "en"])
    assert [document.id for document in store.similarity_search("red", k=9)] == ["en"]
    assert [document.id for document in store.max_marginal_relevance_search("red", k=9)] == ["en"]
    assert [document.page_content for document in store.get_by_ids(["zh"])] == [CAPTION]
    for search in (store.similarity_search, store.similarity_search_with_score, store.max_marginal_relevance_search):
        with pytest.raises(UnreadableQuery, match="latin cannot read this query"):
            search("飞机")


def test_a_first_text_that_cannot_be_read_makes_a_collection_of_the_right_length() -> None:
    store = SightlineVectorStore(connect("exact://"), SightlineEmbeddings(LatinReader()), "c")
    store.add_texts([CAPTION], ids=["zh"])
    assert store.backend.describe("c").dim == LatinReader().dim
    store.add_texts(["a red square"], ids=["en"])
    assert [document.id for document in store.similarity_search("red", k=9)] == ["en"]


def test_the_retriever_refuses_and_finds_words() -> None:
    backend = connect("exact://")
    SightlineVectorStore(backend, SightlineEmbeddings(LatinReader()), "c").add_texts([CAPTION], ids=["zh"])
    retriever = SightlineRetriever(retriever=Retriever(backend, LatinReader(), "c"))
    with pytest.raises(UnreadableQuery):
        retriever.invoke("飞机")
    assert [document.id for document in retriever.invoke("飞机", mode="hybrid")] == ["zh"]


def test_zeros_of_other_embeddings_are_refused_as_before() -> None:
    class Zeros(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[0.0, 0.0] for _ in texts]

        def embed_query(self, text: str) -> list[float]:
            return [0.0, 0.0]

    store = SightlineVectorStore(connect("exact://"), Zeros(), "c")
    with pytest.raises(ValueError, match="zero"):
        store.add_texts(["a"])


def test_a_collection_of_an_earlier_text_side_is_used_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    backend = connect("exact://")
    SightlineVectorStore(backend, SightlineEmbeddings(LatinReader()), "c").add_texts(["red"], ids=["a"])
    with caplog.at_level(logging.WARNING):
        later = SightlineVectorStore(backend, SightlineEmbeddings(LatinReader(side="new")), "c")
    assert "encoded by an earlier version of latin" in caplog.text
    assert [document.id for document in later.similarity_search("red")] == ["a"]
    with pytest.raises(EncoderMismatch):
        SightlineVectorStore(backend, SightlineEmbeddings(LatinReader()), "c", fingerprint="other:1")
