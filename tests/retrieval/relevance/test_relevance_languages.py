"""Relevance by language: each is compared with background queries of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backends import connect
from retrieval import Retriever
from retrieval.relevance.background import BACKGROUND_LANGUAGES, background_texts, background_vectors
from retrieval.relevance.nulls import fit_null
from retrieval.relevance.scorer import query_kind
from retrieval.search.query import Term
from tests.support.topics import TopicEncoder, fill


class TwoLanguages(TopicEncoder):
    """Places all that is in Chinese nearer to everything than what is in English, as another tower may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def text_language(self, text: str) -> str:
        return "en" if text.isascii() else "zh"

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        vectors = super().encode_texts([text.replace("题 ", "topic ") for text in texts])
        nearer = np.array([not text.isascii() for text in texts])[:, None] * 0.5
        together = vectors + nearer * self.encode_middle()
        return (together / np.linalg.norm(together, axis=1, keepdims=True)).astype(np.float32)

    def encode_middle(self) -> np.ndarray:
        return super().encode_texts([f"topic {number}" for number in range(100)]).mean(axis=0) * 10


@pytest.fixture
def encoder() -> TwoLanguages:
    return TwoLanguages()


@pytest.fixture
def retriever(encoder: TwoLanguages, tmp_path: Path) -> Retriever:
    store = connect("exact://")
    fill(store, encoder, 100, texts=True)
    encoder.asked.clear()
    return Retriever(store, encoder, "c", samples=tmp_path)


def best(retriever: Retriever, query: str) -> float:
    (hit,) = retriever.search(query, 1, modality="image")
    assert hit.relevance is not None
    return hit.relevance


def test_a_kind_says_the_language_where_the_encoder_does(encoder: TwoLanguages) -> None:
    terms = [Term("a cat"), Term("猫", -0.5), Term(b"")]
    assert query_kind(terms, encoder) == (("words", 1.0), ("words:zh", -0.5), ("image", 1.0))
    assert query_kind(terms) == query_kind(terms, TopicEncoder()) == (("words", 1.0), ("words", -0.5), ("image", 1.0))


def test_absent_things_are_irrelevant_in_either_language(retriever: Retriever) -> None:
    absent = {
        language: np.array([best(retriever, f"{word} {number}") for number in range(1000, 3000, 20)])
        for language, word in (("en", "topic"), ("zh", "题"))
    }
    for values in absent.values():
        assert np.mean(values >= 0.9) < 0.2
    assert best(retriever, "topic 5") > 0.95
    assert best(retriever, "题 5") > 0.95


def test_the_null_is_that_of_the_languages_own_queries(retriever: Retriever, encoder: TwoLanguages) -> None:
    calibrator = retriever.calibrator
    assert calibrator is not None
    sample = calibrator.sample()
    nulls = [calibrator.null(sample, ((kind, 1.0),), "image") for kind in ("words", "words:zh")]
    for null, language in zip(nulls, ("en", "zh"), strict=True):
        vectors = encoder.encode_texts(background_texts(language))
        expected = fit_null(calibrator.items(sample, "image").similarities(vectors), sample.samples["image"].population)
        assert null is not None
        assert expected is not None
        assert (null.location, null.scale) == (expected.location, expected.scale)
        assert len(null.background) == len(vectors)
    assert nulls[0].scale != nulls[1].scale


def test_queries_of_a_language_are_encoded_when_it_is_first_asked_for(
    retriever: Retriever, encoder: TwoLanguages, tmp_path: Path
) -> None:
    retriever.search("topic 5", 1)
    assert set(background_texts()) <= set(encoder.asked)
    assert not set(background_texts("zh")) & set(encoder.asked)
    encoder.asked.clear()
    retriever.search("题 5", 1)
    assert sorted(encoder.asked) == sorted([*background_texts("zh"), "题 5"])
    # Both are kept for the next process.
    encoder.asked.clear()
    fresh = Retriever(retriever.backend, encoder, "c", samples=tmp_path)
    fresh.search("题 6", 1)
    fresh.search("topic 6", 1)
    assert encoder.asked == ["题 6", "topic 6"]


def test_terms_in_two_languages_are_judged_together(retriever: Retriever) -> None:
    (hit,) = retriever.search([Term("topic 5"), Term("题 5")], 1, modality="image")
    assert hit.id.startswith("image-5-")
    assert hit.relevance is not None
    assert hit.relevance > 0.95


def test_what_is_taken_for_english_stands_for_no_other_language(encoder: TwoLanguages) -> None:
    german = background_texts("de")
    ascii_only = sum(text.isascii() for text in german)
    assert len(background_vectors(encoder, None, "de")) == len(german) - ascii_only
    assert len(background_vectors(encoder, None)) == len(background_texts())


def test_the_built_in_queries() -> None:
    every = [background_texts(language) for language in BACKGROUND_LANGUAGES]
    # The nth is about the same thing in each language, so that no language has easier ones.
    assert {len(texts) for texts in every} == {96}
    assert all(text.strip() == text and text for texts in every for text in texts)
    assert background_texts("sv") == background_texts("en") == background_texts()
    mixed = background_texts("und")
    assert len(mixed) == 8 * 24
    assert len({background_texts(language)[0] for language in BACKGROUND_LANGUAGES}) == len(BACKGROUND_LANGUAGES)
