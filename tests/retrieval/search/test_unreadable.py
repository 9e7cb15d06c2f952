"""Queries and texts that the encoder cannot read: no vector, but words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backends import connect
from backends.base import NO_VECTOR, Backend, CollectionSpec, Record
from backends.wrappers.keywords import with_keywords
from retrieval.relevance.background import background_texts
from retrieval.relevance.sample import SampleCache, is_current, take_sample
from retrieval.search.query import SearchError, Term, UnreadableQuery
from retrieval.search.retriever import ItemWithoutVector, Retriever
from tests.support.readers import LatinReader
from tests.support.toy import PALETTE

AEROPLANE = "飞机"


@pytest.fixture(params=["exact", "faiss"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A store, with keyword search whatever the engine."""
    store = connect("exact://" if request.param == "exact" else f"faiss://{tmp_path}/store")
    with store if store.capabilities.keyword else with_keywords(store, tmp_path / "words") as opened:
        yield opened


@pytest.fixture
def retriever(backend: Backend) -> Retriever:
    """Pictures of each colour with an English and a Chinese caption, of which the encoder reads the first."""
    encoder = LatinReader()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    for number, (colour, rgb) in enumerate(PALETTE.items()):
        vector = encoder.encode_images([Image.new("RGB", (8, 8), rgb)])[0]
        words, chinese = f"a {colour} square", f"一架 飞机 停在 {number} 号 跑道"
        uri = f"file:///{colour}.png"
        about = {"image": f"img-{colour}", "n": number}
        backend.upsert(
            "c",
            [
                Record(f"img-{colour}", vector, "image", f"{words}\n{chinese}", uri, {"n": number}),
                Record(f"cap-{colour}", encoder.encode_texts([words])[0], "text", words, uri, about),
                Record(f"zh-{colour}", NO_VECTOR, "text", chinese, uri, about),
            ],
        )
    return Retriever(backend, encoder, "c")


@pytest.mark.parametrize("text", [AEROPLANE, "✈️", "หมา", "ჩემი კატა"])
def test_a_query_that_cannot_be_read_is_refused_with_what_to_do(retriever: Retriever, text: str) -> None:
    with pytest.raises(UnreadableQuery) as caught:
        retriever.search(text, mode="vector")
    assert str(caught.value) == (
        "latin cannot read this query; use --mode keyword, or an encoder for its language (sightline encoders)"
    )
    assert (caught.value.encoder, caught.value.text) == ("latin", text)
    assert isinstance(caught.value, SearchError)
    with pytest.raises(UnreadableQuery):
        retriever.facets(["n"], text, mode="vector")


@pytest.mark.parametrize("weight", [1.0, -0.5])
@pytest.mark.parametrize("mode", ["vector", "hybrid"])
def test_one_of_several_terms_is_refused_by_name(retriever: Retriever, mode: str, weight: float) -> None:
    with pytest.raises(UnreadableQuery, match=f"latin cannot read the term '{AEROPLANE}'; leave it out, use"):
        retriever.search([Term("red"), Term(AEROPLANE, weight)], mode=mode)  # type: ignore[arg-type]


def test_its_words_are_found_by_keywords(retriever: Retriever) -> None:
    found = retriever.search(AEROPLANE, 50, mode="keyword")
    assert {hit.id for hit in found} == {f"{kind}-{colour}" for kind in ("img", "zh") for colour in PALETTE}
    assert found.notices == ()
    assert not found.words_only
    assert len(retriever.search([Term(AEROPLANE), Term("red", -1)], 50, mode="keyword")) == len(found)


@pytest.mark.parametrize("min_relevance", [None, 0.8])
def test_hybrid_searches_words_alone_and_says_so(retriever: Retriever, min_relevance: float | None) -> None:
    found = retriever.search(AEROPLANE, 50, mode="hybrid", min_relevance=min_relevance)
    assert found == retriever.search(AEROPLANE, 50, mode="keyword")
    assert found.notices == ("latin cannot read this query: only its words were searched",)
    assert found.words_only
    assert {hit.relevance for hit in found} == {None}
    counted = retriever.facets(["modality"], AEROPLANE, mode="hybrid")["modality"]
    assert dict(counted.counts) == {"image": len(PALETTE), "text": len(PALETTE)}
    # There is no word in it either.
    with pytest.raises(UnreadableQuery):
        retriever.search("？！", mode="hybrid")


def test_what_is_judged_by_keywords_has_no_relevance_where_it_has_no_vector(retriever: Retriever) -> None:
    # Latin letters are there, so that the query has a vector; what only has its other words has none.
    found = retriever.search(f"red {AEROPLANE}", 50, mode="hybrid", min_relevance=0.1)
    by_id = {hit.id: hit for hit in found}
    assert by_id["zh-red"].relevance is None
    assert by_id["cap-red"].relevance is not None
    assert not found.words_only


class Speechless(LatinReader):
    """Is not to be asked anything about texts."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError(f"encoded {texts}")

    def text_language(self, text: str) -> str:
        raise AssertionError(f"was asked for the language of {text!r}")


@pytest.mark.parametrize("query", ["a red square", AEROPLANE, [Term("red"), Term("green", -1)]])
def test_a_keyword_search_asks_the_encoder_nothing(retriever: Retriever, query: str | list[Term]) -> None:
    silent = Retriever(retriever.backend, Speechless(), "c")
    assert silent.search(query, mode="keyword") == retriever.search(query, mode="keyword") != []
    with pytest.raises(AssertionError):
        silent.search("red", mode="keyword", min_relevance=0.5)


def test_a_keyword_search_that_cannot_judge_says_that(retriever: Retriever) -> None:
    found = retriever.search(AEROPLANE, 50, mode="keyword", min_relevance=0.8)
    assert found == retriever.search(AEROPLANE, 50, mode="keyword")
    assert found.notices == ("latin cannot read this query: its relevance is not known",)


def test_pictures_and_readable_words_never_meet_it(retriever: Retriever, tmp_path: Path) -> None:
    picture = tmp_path / "red.png"
    Image.new("RGB", (8, 8), PALETTE["red"]).save(picture)
    assert retriever.search(picture, 1, modality="image", mode="vector")[0].id == "img-red"
    assert next(hit.id for hit in retriever.lookup(picture, 50)) == "cap-red"
    found = {hit.id for hit in (*retriever.lookup(picture, 50), *retriever.search("a red square", 50, mode="vector"))}
    assert not {name for name in found if name.startswith("zh-")}
    assert len(retriever.search("red", 50, diversity=0.5, group_duplicates=0.95, mode="hybrid")) > 0
    mixed = retriever.search(f"red {AEROPLANE}", 50, diversity=0.5, group_duplicates=0.99, mode="hybrid")
    # An item without a vector is like no other.
    assert all(not hit.duplicates for hit in mixed if hit.id.startswith("zh-"))


def test_an_item_without_a_vector_is_like_nothing(retriever: Retriever) -> None:
    with pytest.raises(ItemWithoutVector, match="item 'zh-red' has no vector, as latin could not read its text"):
        retriever.similar("zh-red")
    with pytest.raises(ItemWithoutVector):
        retriever.stored(["img-red", "zh-red"])
    assert retriever.get("zh-red").id == "zh-red"
    assert not [hit.id for hit in retriever.similar("cap-red", 50) if hit.id.startswith("zh-")]


def test_relevance_is_as_if_they_were_not_there(retriever: Retriever, tmp_path: Path) -> None:
    with_them = {hit.id: hit.relevance for hit in retriever.search("a red square", 50, mode="vector")}
    sample = take_sample(retriever.backend, "c").samples["text"]
    assert (sample.population, sample.without, sample.searchable) == (2 * len(PALETTE), len(PALETTE), len(PALETTE))
    assert np.linalg.norm(sample.vectors, axis=1) == pytest.approx(1, abs=1e-5)
    retriever.backend.delete("c", ids=[f"zh-{colour}" for colour in PALETTE])
    without = {
        hit.id: hit.relevance
        for hit in Retriever(retriever.backend, LatinReader(), "c").search("a red square", 50, mode="vector")
    }
    assert with_them == pytest.approx(without)


def test_a_kept_sample_knows_of_them_and_notices_a_vector_that_comes(retriever: Retriever, tmp_path: Path) -> None:
    cache = SampleCache(retriever.backend, "c", tmp_path / "samples")
    taken = cache.current()
    (again,) = (SampleCache(retriever.backend, "c", tmp_path / "samples"),)
    assert again.current().samples["text"].without == len(PALETTE)
    assert is_current(taken, retriever.backend, "c")
    record = retriever.get("cap-red")
    retriever.backend.upsert("c", [Record(record.id, NO_VECTOR, "text", record.text, record.uri, record.metadata)])
    assert not is_current(taken, retriever.backend, "c")


def test_a_collection_of_such_texts_alone_can_be_used(backend: Backend) -> None:
    encoder = LatinReader()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    backend.upsert("c", [Record(f"zh-{n}", NO_VECTOR, "text", f"第 {n} 架 飞机") for n in range(30)])
    retriever = Retriever(backend, encoder, "c")
    assert retriever.search("red") == []
    assert retriever.search("red", min_relevance=0.5, mode="hybrid") == []
    assert len(retriever.search(AEROPLANE, 50, mode="hybrid")) == 30


def test_background_queries_that_cannot_be_read_count_for_nothing(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {hit.id: hit.relevance for hit in retriever.search("a red square", 50, mode="vector")}

    class Partial(LatinReader):
        """Reads no text that a comma stands in, and what has none as ever."""

        def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
            rows = super().encode_texts(texts)
            rows[[row for row, text in enumerate(texts) if "," in text]] = 0
            return rows

    known = background_texts()
    monkeypatch.setattr("retrieval.relevance.background.background_texts", lambda *_: known + ["a, b"] * len(known))
    found = Retriever(retriever.backend, Partial(), "c").search("a red square", 50, mode="vector")
    assert {hit.id: hit.relevance for hit in found} == pytest.approx(wanted)
