"""Sightline in LangChain: what the standard tests do not ask."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores.utils import maximal_marginal_relevance as reference_mmr
from langgraph.graph import END, START, StateGraph
from PIL import Image

from backends import Backend, connect
from backends.base import CollectionNotFound, CollectionSpec, Compare, DimensionMismatch, Record
from retrieval.images.decode import ImageError
from retrieval.langchain import (
    SightlineEmbeddings,
    SightlineRetriever,
    SightlineVectorStore,
    embeddings_fingerprint,
    portable_metadata,
)
from retrieval.langchain.documents import original_metadata
from retrieval.search.diversity import diverse_neighbours
from retrieval.search.results import Result
from retrieval.search.retriever import EncoderMismatch, Retriever, SearchError
from tests.support.documents import FENCE
from tests.support.repository import ROOT
from tests.support.toy import PALETTE, ColourEncoder


class NamedEmbeddings(Embeddings):
    """Embeddings with the fields of an integration, which count how they are called."""

    def __init__(self, model: str = "small", dim: int = 4, api_key: str = "secret") -> None:
        self.model, self.dim, self.api_key = model, dim, api_key
        self.calls: list[str] = []

    def _vector(self, text: str) -> list[float]:
        return np.random.default_rng(list(text.encode())).standard_normal(self.dim).tolist()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append("documents")
        return [self._vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.calls.append("query")
        return self._vector(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append("async documents")
        return [self._vector(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        self.calls.append("async query")
        return self._vector(text)


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (8, 8), PALETTE[colour])


def encoded(colour: str) -> bytes:
    buffer = io.BytesIO()
    picture(colour).save(buffer, "PNG")
    return buffer.getvalue()


def ids(documents: Sequence[Document]) -> list[str | None]:
    return [document.id for document in documents]


@pytest.fixture
def backend() -> Backend:
    return connect("exact://")


@pytest.fixture
def store(backend: Backend) -> SightlineVectorStore:
    return SightlineVectorStore(backend, NamedEmbeddings(), "c")


@pytest.fixture
def gallery(backend: Backend) -> SightlineVectorStore:
    return SightlineVectorStore(backend, SightlineEmbeddings(ColourEncoder()), "g")


# Metadata

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.text(max_size=8) | st.sampled_from(["year", "tags", "modality", "_langchain", "uri"])


@settings(deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_any_json_is_stored_and_comes_back(metadata: dict[str, Any]) -> None:
    record = Record("a", None, metadata=portable_metadata(metadata))
    back = original_metadata(record.metadata)
    assert repr(sorted(back.items())) == repr(sorted(metadata.items()))


def test_what_is_portable_stays_a_field() -> None:
    assert portable_metadata({"year": 1990, "tags": ("a",), "size": np.float32(0.5), "none": None}) == {
        "year": 1990,
        "tags": ["a"],
        "size": 0.5,
        "_langchain": '{"none": null}',
    }


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"when": {"at": {1, 2}}}, r"metadata\['when'\]\['at'\] is a set"),
        ({"rows": [1, object()]}, r"metadata\['rows'\]\[1\] is a object"),
        ({1: "a"}, "metadata key 1 is a int"),
        ({"inner": {1: "a"}}, r"metadata\['inner'\] has the key 1"),
        ({"big": "x" * 70_000}, "the limit is 65535"),
    ],
)
def test_metadata_that_would_be_lost_is_refused(
    store: SightlineVectorStore, metadata: dict[Any, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        store.add_texts(["fine", "not"], [{}, metadata])
    assert store.embeddings.calls == [], "nothing is paid for before all is checked"
    assert store.backend.collections() == []


def test_a_circle_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    with pytest.raises(ValueError, match="nested deeper than 64"):
        portable_metadata(circle)


def test_a_field_of_the_reserved_name_that_is_none_of_ours_is_left_alone() -> None:
    for value in ("no json", "[1]", ["a"], 3):
        assert original_metadata({"_langchain": value}) == {"_langchain": value}


# Which embeddings


def test_fingerprints_tell_models_apart_and_hold_no_secret() -> None:
    named = embeddings_fingerprint(NamedEmbeddings())
    assert named == 'langchain:tests.retrieval.langchain.test_langchain.NamedEmbeddings{"model": "small"}'
    assert embeddings_fingerprint(NamedEmbeddings(api_key="other")) == named
    assert embeddings_fingerprint(NamedEmbeddings("large")) != named
    six, seven = DeterministicFakeEmbedding(size=6), DeterministicFakeEmbedding(size=7)
    assert embeddings_fingerprint(six) != embeddings_fingerprint(seven)
    assert embeddings_fingerprint(SightlineEmbeddings(ColourEncoder())) == "toy:1"
    cached = NamedEmbeddings("a cache")
    cached.underlying_embeddings = NamedEmbeddings()  # type: ignore[attr-defined]
    assert embeddings_fingerprint(cached) == named


def test_other_embeddings_are_refused(backend: Backend, store: SightlineVectorStore) -> None:
    early = SightlineVectorStore(backend, NamedEmbeddings("large"), "c")
    store.add_texts(["a"])
    with pytest.raises(EncoderMismatch, match=r"small.*large"):
        SightlineVectorStore(backend, NamedEmbeddings("large"), "c")
    for use in (
        lambda: early.add_texts(["b"]),
        lambda: early.similarity_search("a"),
        lambda: early.get_by_ids(["a"]),
        lambda: early.delete(["a"]),
        lambda: early.max_marginal_relevance_search("a"),
    ):
        with pytest.raises(EncoderMismatch):
            use()
    assert backend.count("c") == 1
    known = SightlineVectorStore(backend, NamedEmbeddings("large"), "c", fingerprint=store.fingerprint)
    assert len(known.similarity_search("a")) == 1


def test_a_collection_made_anew_by_others_is_not_written_to(backend: Backend, store: SightlineVectorStore) -> None:
    store.add_texts(["a"])
    backend.drop("c")
    SightlineVectorStore(backend, NamedEmbeddings("large"), "c").add_texts(["b"])
    with pytest.raises(EncoderMismatch):
        store.add_texts(["c"])
    assert backend.count("c") == 1


def test_vectors_no_engine_holds_are_refused(backend: Backend) -> None:
    class Wild(NamedEmbeddings):
        def _vector(self, text: str) -> list[float]:
            return {"huge": [1e300, 1], "zero": [0, 0], "nan": [float("nan"), 1]}.get(text, [1.0, 2])

    store = SightlineVectorStore(backend, Wild(), "w")
    store.add_texts(["fine"])
    for text in ("huge", "zero", "nan"):
        with pytest.raises(ValueError):
            store.add_texts(["fine too", text])
        with pytest.raises(ValueError):
            store.similarity_search(text)
    assert backend.count("w") == 1


def test_vectors_of_another_length_are_refused(backend: Backend, store: SightlineVectorStore) -> None:
    store.add_texts(["a"])
    longer = SightlineVectorStore(backend, NamedEmbeddings(dim=5), "c")
    with pytest.raises(DimensionMismatch):
        longer.add_texts(["b"])
    with pytest.raises(DimensionMismatch):
        longer.similarity_search("b")
    assert backend.count("c") == 1


def test_embeddings_that_miscount_store_nothing(backend: Backend) -> None:
    class Short(NamedEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return super().embed_documents(texts)[1:]

    with pytest.raises(ValueError, match="1 vectors for 2 items"):
        SightlineVectorStore(backend, Short(), "c").add_texts(["a", "b"])
    assert backend.collections() == []


# The store


def test_two_stores_on_one_backend(backend: Backend, store: SightlineVectorStore) -> None:
    other = SightlineVectorStore(backend, NamedEmbeddings("large", 7), "d")
    store.add_texts(["a"], ids=["1"])
    other.add_texts(["b"], ids=["1"])
    assert [d.page_content for d in store.similarity_search("x")] == ["a"]
    assert [d.page_content for d in other.similarity_search("x")] == ["b"]
    again = SightlineVectorStore(backend, NamedEmbeddings(), "c")
    again.add_texts(["c"], ids=["2"])
    assert ids(store.get_by_ids(["2", "1", "2", "3"])) == ["2", "1"]


def test_a_collection_dropped_by_another_is_made_again(backend: Backend, store: SightlineVectorStore) -> None:
    store.add_texts(["a"], ids=["1"])
    backend.drop("c")
    assert store.similarity_search("a") == []
    store.add_texts(["b"], ids=["2"])
    backend.drop("c")
    store.add_texts(["c"], ids=["3"])
    assert ids(store.similarity_search("x")) == ["3"]
    backend.drop("c")
    assert store.get_by_ids(["3"]) == []
    assert store.delete(["3"])


def test_the_engine_indexes_what_was_added_once_it_is_much(
    store: SightlineVectorStore, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.langchain.store.INDEX_AFTER", 10)
    asked: list[int] = []
    flush = backend.flush

    def counted(name: str) -> None:
        asked.append(backend.count(name))
        flush(name)

    monkeypatch.setattr(backend, "flush", counted)
    for start in range(0, 126, 9):
        store.add_texts([f"text {i}" for i in range(start, start + 9)])
    # After 10, and then after a quarter of what is there.
    assert asked == [18, 36, 54, 72, 90, 117]
    backend.drop(store.collection)
    store.add_texts([f"text {i}" for i in range(40)])
    assert backend.count(store.collection) == 40


def test_a_collection_made_meanwhile_is_used_or_refused(store: SightlineVectorStore, backend: Backend) -> None:
    class Racing(NamedEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            backend.create(CollectionSpec("r", 4, encoder=self.rival))
            store._known = None
            return super().embed_documents(texts)

    racing = Racing()
    racing.rival = embeddings_fingerprint(racing)
    mine = SightlineVectorStore(backend, racing, "r")
    assert len(mine.add_texts(["a"])) == 1
    backend.drop("r")
    racing.rival = "another"
    with pytest.raises(EncoderMismatch):
        SightlineVectorStore(backend, racing, "r").add_texts(["a"])
    assert backend.count("r") == 0


def test_ids_are_given_random_or_replaced(store: SightlineVectorStore) -> None:
    first, second = store.add_texts(["a", "b"], ids=[None, "mine"])
    assert second == "mine"
    assert len(first) == 36
    assert store.add_texts(["c"], ids=["mine"]) == ["mine"]
    assert store.get_by_ids(["mine"])[0].page_content == "c"
    assert store.add_documents([Document("d", id="own")], ids=["given"]) == ["given"]
    assert store.get_by_ids(["own"]) == []
    assert store.add_texts([]) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.add_texts("one string"),
        lambda store: store.add_texts(["a"], ids=["1", "2"]),
        lambda store: store.add_texts(["a"], ids="1"),
        lambda store: store.add_texts(["a"], [{}, {}]),
        lambda store: store.add_texts(["a"], []),
        lambda store: store.add_texts(["a"], batch_size=0),
        lambda store: store.similarity_search("a", filter={"year": {"$near": 3}}),
        lambda store: store.similarity_search("a", modality="sound"),
        lambda store: store.max_marginal_relevance_search("a", lambda_mult=2),
        lambda store: store.delete(["a"], filter={"year": 1}),
        lambda store: store.delete(filter={}),
    ],
)
def test_bad_arguments_are_refused(store: SightlineVectorStore, call: Any) -> None:
    store.add_texts(["kept"])
    with pytest.raises(ValueError):
        call(store)
    assert store.backend.count("c") == 1


def test_an_id_given_twice_is_refused_before_anything_is_embedded(
    store: SightlineVectorStore, gallery: SightlineVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(store.embeddings), "embed_documents", lambda *_: pytest.fail("embedded"))
    for call in (
        lambda: store.add_texts(["a", "b", "c"], ids=["x", None, "x"]),
        lambda: asyncio.run(store.aadd_texts(["a", "b"], ids=["x", "x"])),
        lambda: store.add_documents([Document("a", id="x"), Document("b", id="x")]),
        lambda: gallery.add_images([picture("red"), picture("blue")], ids=["x", "x"]),
    ):
        with pytest.raises(ValueError, match="the id 'x' is given twice"):
            call()
    assert store.get_by_ids(["x"]) == []


def test_nothing_is_silently_ignored(store: SightlineVectorStore) -> None:
    for call in (
        lambda: store.similarity_search("a", fliter={}),
        lambda: store.similarity_search("a", filter=lambda document: True),
        lambda: store.add_texts(["a"], batches=3),
        lambda: store.delete(["a"], namespace="x"),
    ):
        with pytest.raises(TypeError):
            call()


def test_scores_are_the_engines_and_relevance_is_in_range(backend: Backend) -> None:
    texts = [f"text {i}" for i in range(30)]
    for metric in ("cosine", "l2", "dot"):
        store = SightlineVectorStore(backend, NamedEmbeddings(), f"m-{metric}", metric=metric)
        assert store.similarity_search_with_relevance_scores("text 3") == []
        store.add_texts(texts)
        scored = store.similarity_search_with_score("text 3", k=30)
        relevant = store.similarity_search_with_relevance_scores("text 3", k=30)
        scores, relevances = [s for _, s in scored], [r for _, r in relevant]
        assert scores == sorted(scores, reverse=True)
        assert relevances == sorted(relevances, reverse=True)
        assert all(0 <= r <= 1 for r in relevances)
        if metric != "dot":
            assert relevances[0] == pytest.approx(1, abs=1e-3)
            assert scored[0][0].page_content == "text 3"
    kept = store.similarity_search_with_relevance_scores("text 3", k=30, score_threshold=relevances[4])
    assert len(kept) == 5
    halved = SightlineVectorStore(backend, NamedEmbeddings(), "m-cosine", relevance_score_fn=lambda score: 0.25)
    assert halved.similarity_search_with_relevance_scores("text 3", k=1)[0][1] == 0.25


def test_filters_may_be_trees(store: SightlineVectorStore) -> None:
    store.add_texts(["a", "b"], [{"n": 1}, {"n": 2}], ids=["a", "b"])
    assert ids(store.similarity_search("a", filter=Compare("n", "eq", 2))) == ["b"]
    as_retriever = store.as_retriever(search_kwargs={"k": 5, "filter": {"n": 1}})
    assert ids(as_retriever.invoke("b")) == ["a"]


def test_a_store_from_texts_alone_is_in_memory() -> None:
    store = SightlineVectorStore.from_texts(["a", "b"], NamedEmbeddings(), ids=["1", "2"])
    assert ids(store.similarity_search("b", k=1)) == ["2"]
    there = SightlineVectorStore.from_documents(
        [Document("c", id="3")], NamedEmbeddings(), backend=store.backend, collection="d", metric="l2"
    )
    assert store.backend.describe("d").metric == "l2"
    assert ids(there.get_by_ids(["3"])) == ["3"]
    later = asyncio.run(SightlineVectorStore.afrom_texts(["e"], NamedEmbeddings(), [{"n": 1}], ids=["5"]))
    assert later.get_by_ids(["5"])[0].metadata == {"n": 1}


def test_diversity_is_what_langchain_computes() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((40, 6)).astype(np.float32)
    query = rng.standard_normal(6)
    for lambda_mult in (0.0, 0.3, 0.7, 1.0):
        for k in (1, 5, 40, 60):
            ours = diverse_neighbours(query, vectors, k=k, lambda_mult=lambda_mult)
            assert ours == reference_mmr(query, vectors.tolist(), lambda_mult, k)


@pytest.mark.asyncio
async def test_the_asynchronous_side_of_the_embeddings_is_used(store: SightlineVectorStore) -> None:
    await store.aadd_documents([Document("a", id="1"), Document("b", id="2")])
    assert ids(await store.asimilarity_search("a", k=1)) == ["1"]
    assert (await store.asimilarity_search_with_score("a", k=1))[0][1] == pytest.approx(1)
    assert ids(await store.amax_marginal_relevance_search("b", k=1)) == ["2"]
    assert (await store.asimilarity_search_with_relevance_scores("b", k=1))[0][1] == pytest.approx(1)
    assert ids(await store.as_retriever(search_type="mmr").ainvoke("a"))[0] == "1"
    assert set(store.embeddings.calls) == {"async documents", "async query"}
    vector = store.embeddings.embed_query("b")
    assert ids(await store.asimilarity_search_by_vector(vector, k=1)) == ["2"]
    assert await store.adelete(["1"])
    assert await store.aget_by_ids(["1"]) == []


# Pictures


def test_images_of_every_kind(gallery: SightlineVectorStore, tmp_path: Path) -> None:
    file = tmp_path / "a green 100% one.png"
    picture("green").save(file)
    added = gallery.add_images(
        [picture("red"), encoded("blue"), file, str(file), file.as_uri()],
        captions=["red", "blue", "green", None, "by uri"],
        uris=None,
        ids=["r", "b", "path", "name", "uri"],
    )
    assert added == ["r", "b", "path", "name", "uri"]
    by_id = {document.id: document for document in gallery.get_by_ids(added)}
    assert by_id["r"] == Document("red", id="r", metadata={"modality": "image"})
    for each in ("path", "name", "uri"):
        assert by_id[each].metadata == {"modality": "image", "uri": file.as_uri()}
    # What a document says is where its image is can be searched by.
    found = gallery.similarity_search_by_image(by_id["path"].metadata["uri"], k=3)
    assert set(ids(found)) == {"path", "name", "uri"}
    assert ids(gallery.similarity_search_by_image(encoded("blue"), k=1)) == ["b"]
    assert ids(gallery.similarity_search("something red", k=1)) == ["r"]
    gallery.add_images([encoded("black")], [{"uri": "its own"}], uris=["s3://bucket/key"], ids=["k"])
    assert gallery.get_by_ids(["k"])[0].metadata == {"modality": "image", "uri": "its own"}
    assert gallery.backend.get("g", ["k"])[0].uri == "s3://bucket/key"


@pytest.mark.asyncio
async def test_images_asynchronously(gallery: SightlineVectorStore) -> None:
    (added,) = await gallery.aadd_images([picture("red")], captions=["a red one"])
    assert ids(await gallery.asimilarity_search_by_image(picture("red"), k=1)) == [added]


def test_images_that_cannot_be_are_refused_whole(
    gallery: SightlineVectorStore, store: SightlineVectorStore, tmp_path: Path
) -> None:
    for bad in (b"no image", tmp_path / "missing.png", "https://example.org/a.png", "file://host/a.png"):
        with pytest.raises(ImageError):
            gallery.add_images([picture("red"), bad])
    with pytest.raises(ImageError, match="not fetched"):
        gallery.similarity_search_by_image("https://example.org/a.png")
    with pytest.raises(ValueError, match="captions must be a list of 1"):
        gallery.add_images([picture("red")], captions=["a", "b"])
    with pytest.raises(ValueError, match="not one image"):
        gallery.add_images("a.png")
    with pytest.raises(TypeError, match="NamedEmbeddings has no embed_images"):
        store.add_images([picture("red")])
    assert gallery.add_images([]) == []
    assert gallery.backend.collections() == []


def test_images_and_texts_are_merged_by_rank(gallery: SightlineVectorStore) -> None:
    gallery.add_texts(["red red red", "red", "a red day"], ids=["t1", "t2", "t3"])
    gallery.add_images([picture("orange"), picture("red")], ids=["i1", "i2"])
    assert set(ids(gallery.similarity_search("red", k=2))) & {"i1", "i2"} == {"i2"}
    assert set(ids(gallery.similarity_search("red", k=5))) == {"t1", "t2", "t3", "i1", "i2"}
    assert len(gallery.max_marginal_relevance_search("red", k=4)) == 4
    retriever = gallery.as_retriever(search_kwargs={"modality": "image", "k": 1})
    assert ids(retriever.invoke("red")) == ["i2"]


def test_many_images_go_through_in_batches(backend: Backend) -> None:
    encoder = ColourEncoder()
    sizes: list[int] = []
    original = encoder.encode_images
    encoder.encode_images = lambda images: sizes.append(len(images)) or original(images)
    vectors = SightlineEmbeddings(encoder).embed_images([picture("red")] * 130)
    assert sizes == [64, 64, 2]
    assert len(vectors) == 130
    assert SightlineEmbeddings(encoder).embed_image(picture("red")) == vectors[0]


# The retriever


@pytest.fixture
def retriever(gallery: SightlineVectorStore) -> SightlineRetriever:
    gallery.add_images(
        [picture("red"), picture("blue")], [{"year": 1990}, {"score": 5, "item_score": 6}], ids=["r", "b"]
    )
    gallery.add_texts(["red paint"], [{"nested": {"a": None}}], ids=["t"])
    encoder = gallery.embeddings.encoder
    return SightlineRetriever(retriever=Retriever(gallery.backend, encoder, "g"))


def test_the_retriever_says_how_each_was_found(retriever: SightlineRetriever, tmp_path: Path) -> None:
    first, *_ = retriever.invoke("red", modality="image")
    assert (first.id, first.page_content) == ("r", "")
    assert first.metadata["year"] == 1990
    assert first.metadata["modality"] == "image"
    assert first.metadata["score"] > 0.9
    assert set(ids(retriever.invoke("red"))) == {"r", "b", "t"}
    (text,) = retriever.invoke("red", modality="text")
    assert text.metadata["nested"] == {"a": None}
    assert ids(retriever.invoke("red", filter={"year": {"$gte": 1990}})) == ["r"]
    (blue,) = retriever.invoke("blue", k=1, modality="image")
    assert blue.metadata["score"] > 0.9
    assert (blue.metadata["item_item_score"], blue.metadata["item_score"]) == (5, 6)


def test_the_retriever_takes_pictures_and_further_arguments(retriever: SightlineRetriever, tmp_path: Path) -> None:
    file = tmp_path / "query.png"
    picture("blue").save(file)
    for query in (file, encoded("blue"), picture("blue")):
        assert ids(retriever.invoke(query, k=1, modality="image")) == ["b"]
    narrow = SightlineRetriever(
        retriever=retriever.retriever, k=1, filter={"year": 1990}, search_kwargs={"modality": "image", "offset": 1}
    )
    assert narrow.invoke("red") == []
    assert ids(asyncio.run(narrow.ainvoke("red", offset=0))) == ["r"]
    with pytest.raises(TypeError):
        narrow.invoke("red", depth=3)
    with pytest.raises(SearchError):
        narrow.invoke("red", k=0)


def test_the_retriever_passes_relevance_and_duplicates_on(
    retriever: SightlineRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = Result("r", 0.3, "image", None, "file:///r.jpg", {}, True, relevance=0.75, duplicates=("s",))
    monkeypatch.setattr(retriever.retriever, "search", lambda query, **options: [judged])
    (document,) = retriever.invoke("red")
    assert document.metadata == {
        "score": 0.3,
        "modality": "image",
        "uri": "file:///r.jpg",
        "relevance": 0.75,
        "duplicates": ["s"],
    }


def test_a_store_and_sightline_search_the_same_collection(backend: Backend, gallery: SightlineVectorStore) -> None:
    with pytest.raises(CollectionNotFound):
        Retriever(backend, ColourEncoder(), "g")
    gallery.add_images([picture("red")], [{"odd": {"a": 1}}], ids=["r"])
    (hit,) = Retriever(backend, ColourEncoder(), "g").search("red", 1)
    assert hit.id == "r"
    # And what Sightline indexed is found by the store.
    encoder = ColourEncoder()
    backend.upsert("g", [Record("p", encoder.encode_texts(["blue"])[0], "text", "blue", "file:///p.txt", {"page": 3})])
    assert gallery.similarity_search("blue", k=1, modality="text") == [
        Document("blue", id="p", metadata={"page": 3, "uri": "file:///p.txt"})
    ]


def test_in_a_chain(retriever: SightlineRetriever) -> None:
    def as_text(documents: list[Document]) -> str:
        return "\n".join(f"[{i}] {document.page_content or document.id}" for i, document in enumerate(documents, 1))

    prompt = ChatPromptTemplate.from_template("Sources:\n{context}\n\nQuestion: {question}")
    asked: list[str] = []

    def note(value: Any) -> Any:
        asked.append(value.to_string())
        return value

    model = FakeListChatModel(responses=["red, as [1] says"])
    chain = {"context": retriever | as_text, "question": RunnablePassthrough()} | prompt | note | model
    assert (chain | StrOutputParser()).invoke("red") == "red, as [1] says"
    assert "red paint" in asked[0]
    assert asked[0].endswith("Question: red")
    assert asyncio.run((chain | StrOutputParser()).ainvoke("red")) == "red, as [1] says"
    assert len(retriever.batch(["red", "blue"])) == 2


def test_in_a_graph_and_as_a_tool(retriever: SightlineRetriever) -> None:
    class State(TypedDict, total=False):
        question: str
        context: list[Document]
        answer: str

    graph = StateGraph(State)
    graph.add_node("retrieve", lambda state: {"context": retriever.invoke(state["question"], modality="text")})
    graph.add_node("answer", lambda state: {"answer": state["context"][0].page_content})
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "answer")
    graph.add_edge("answer", END)
    assert graph.compile().invoke({"question": "red"})["answer"] == "red paint"
    tool = create_retriever_tool(retriever, "collection", "Searches the collection.")
    assert "red paint" in tool.invoke({"query": "red"})


@pytest.mark.parametrize("asynchronous", [False, True])
def test_langchains_indexing(store: SightlineVectorStore, asynchronous: bool) -> None:
    manager = InMemoryRecordManager("sightline")
    manager.create_schema()

    def run(*texts: str) -> tuple[int, int, int]:
        documents = [Document(text, metadata={"source": text[0], "page": None}) for text in texts]
        options: dict[str, Any] = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
        if asynchronous:
            done = asyncio.run(aindex(documents, manager, store, batch_size=2, **options))
        else:
            done = index(documents, manager, store, batch_size=2, **options)
        return done["num_added"], done["num_skipped"], done["num_deleted"]

    assert run("a 1", "b 1", "c 1") == (3, 0, 0)
    assert run("a 1", "b 2", "c 1") == (1, 2, 1)
    assert {d.page_content for d in store.similarity_search("a", k=9)} == {"a 1", "b 2", "c 1"}


def test_texts_are_embedded_in_batches(store: SightlineVectorStore) -> None:
    added = store.add_texts(["a", "b", "c", "d", "e"], batch_size=2)
    assert store.embeddings.calls == ["documents"] * 3
    assert [d.page_content for d in store.get_by_ids(added)] == ["a", "b", "c", "d", "e"]
    asyncio.run(store.aadd_texts(["f", "g", "h"], batch_size=2))
    assert store.embeddings.calls[3:] == ["async documents"] * 2


@pytest.mark.parametrize("scheme", ["exact", "faiss", "qdrant-edge", "milvus-lite"])
def test_many_who_add_to_a_collection_that_is_not_there_yet_all_store(scheme: str, tmp_path: Path) -> None:
    async def add(backend: Backend) -> None:
        stores = [SightlineVectorStore(backend, NamedEmbeddings(), collection="new") for _ in range(8)]
        await asyncio.gather(*(store.aadd_texts([f"{i} a", f"{i} b"]) for i, store in enumerate(stores)))

    with connect("exact://" if scheme == "exact" else f"{scheme}://{tmp_path}/store") as backend:
        asyncio.run(add(backend))
        texts = {record.text for page in backend.scan("new") for record in page.records}
    assert texts == {f"{i} {letter}" for i in range(8) for letter in "ab"}


# Installation and documents


def test_without_langchain_the_extra_is_named() -> None:
    code = "import sys; sys.modules['langchain_core'] = None\nimport retrieval\nimport retrieval.langchain"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: retrieval.langchain needs the package 'langchain_core")
    assert last.endswith("pip install 'sightline[chat]'")


def test_the_documents_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for colour in PALETTE:
        picture(colour).save(tmp_path / "photos" / f"{colour}.jpg")
    monkeypatch.setattr("retrieval.load_encoder", lambda name: ColourEncoder(name))
    text = (ROOT / "docs" / "langchain.md").read_text(encoding="utf-8")
    blocks = [match["code"] for match in FENCE.finditer(text) if match["info"].strip() == "python"]
    assert len(blocks) >= 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/langchain.md", "exec"), names)
