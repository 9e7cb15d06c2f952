"""Retriever: composition, modalities, paging and refusals, over the exact oracle and a small test encoder."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from backends import connect
from backends.base import Backend, CollectionNotFound, CollectionSpec, Record
from retrieval.search.query import Term, parse_terms, query_vector
from retrieval.search.retriever import EncoderMismatch, ItemNotFound, Retriever, SearchError, reciprocal_rank_fusion
from tests.support.three_colours import ColourEncoder, picture


@pytest.fixture
def retriever() -> Retriever:
    backend: Backend = connect("exact://")
    encoder = ColourEncoder()
    backend.create(CollectionSpec("c", 3, encoder=encoder.fingerprint))
    images = {"red": (255, 0, 0), "crimson": (220, 20, 60), "green": (0, 255, 0), "blue": (0, 0, 255)}
    records = [
        Record(
            f"img-{name}", encoder.encode_images([picture(*colour)])[0], "image", name, None, {"warm": colour[0] > 0}
        )
        for name, colour in images.items()
    ]
    texts = ["red", "red green", "blue"]
    records += [Record(f"txt-{t}", v, "text", t) for t, v in zip(texts, encoder.encode_texts(texts), strict=True)]
    backend.upsert("c", records)
    return Retriever(backend, encoder, "c")


def ids(hits) -> list[str]:
    return [hit.id for hit in hits]


def test_text_to_image(retriever):
    assert ids(retriever.search("red", 2, modality="image")) == ["img-red", "img-crimson"]


def test_image_to_text_and_image_to_image(retriever):
    assert ids(retriever.lookup(picture(250, 5, 5), 1)) == ["txt-red"]
    assert ids(retriever.search(picture(0, 200, 10), 1, modality="image")) == ["img-green"]


def test_image_from_path_and_bytes(retriever, tmp_path: Path):
    path = tmp_path / "blue.png"
    picture(0, 0, 255).save(path)
    for source in (path, path.read_bytes()):
        assert ids(retriever.search(source, 1, modality="image")) == ["img-blue"]


def test_weighted_terms_add_and_steer_away(retriever):
    both = [Term("red"), Term("blue", 3.0)]
    assert ids(retriever.search(both, 1, modality="image")) == ["img-blue"]
    away = [Term("red"), Term("blue", -0.5)]
    assert ids(retriever.search(away, 4, modality="image"))[-1] == "img-blue"
    mixed = query_vector([Term(picture(255, 0, 0)), Term("green", 2.0)], retriever.encoder)
    np.testing.assert_allclose(mixed, np.array([1, 2, 0]) / 5**0.5, atol=1e-4)


def test_parse_terms():
    terms = parse_terms(["a beach", "-people", "sunset^0.5", "image:dog.jpg", "-image:x y.png^2", "e=mc^2"])
    assert [(t.value, t.weight) for t in terms] == [
        ("a beach", 1.0),
        ("people", -1.0),
        ("sunset", 0.5),
        (Path("dog.jpg"), 1.0),
        (Path("x y.png"), -2.0),
        ("e=mc", 2.0),
    ]


@pytest.mark.parametrize("bad", ["", "-", "  ", "image:", "x^0"])
def test_terms_that_say_nothing_are_refused(bad):
    with pytest.raises(SearchError):
        parse_terms([bad])


@pytest.mark.parametrize("query", ["", "   ", [], [Term("red"), Term("red", -1.0)], ["red"], "x" * 10_001])
def test_queries_without_meaning_are_refused(retriever, query):
    with pytest.raises(SearchError):
        retriever.search(query)


def test_where_in_both_forms_and_a_bad_one(retriever):
    assert ids(retriever.search("blue", 9, where={"warm": True})) == ["img-crimson", "img-red"]
    with pytest.raises(SearchError, match=r"\$gtt"):
        retriever.search("blue", where={"warm": {"$gtt": 1}})
    with pytest.raises(SearchError, match="a filter is a Where or its JSON form"):
        retriever.search("blue", where="warm")  # type: ignore[arg-type]


def test_both_modalities_are_merged_by_rank_not_score(retriever):
    merged = retriever.search("red", 7)
    images, texts = (retriever.search("red", 7, modality=m) for m in ("image", "text"))
    assert merged == reciprocal_rank_fusion([images, texts])
    assert ids(merged)[:2] == ["img-red", "txt-red"]


def test_fusion_adds_over_lists(retriever):
    a, b, c = retriever.search("red", 3, modality="image")
    assert ids(reciprocal_rank_fusion([[a, b], [b, c]])) == [b.id, a.id, c.id]


@pytest.mark.parametrize("modality", [None, "image", "text"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_pages_fit_together(retriever, modality, k):
    whole = ids(retriever.search("red blue", 7, modality=modality))
    pages = [ids(retriever.search("red blue", k, modality=modality, offset=o)) for o in range(0, 8, k)]
    assert list(chain.from_iterable(pages)) == whole


def test_pages_stay_stable_over_an_index_that_finds_more_when_it_looks_deeper(retriever, monkeypatch):
    exact = retriever.backend.search

    def forgetful(name, vectors, k, **options):
        found = exact(name, vectors, 100, **options)
        return [[hit for rank, hit in enumerate(hits) if k > 2 or rank != 1][:k] for hits in found]

    monkeypatch.setattr(retriever.backend, "search", forgetful)
    pages = [ids(retriever.search("red", 2, modality="image", offset=o)) for o in (0, 2)]
    assert sorted(chain.from_iterable(pages)) == ["img-blue", "img-crimson", "img-green", "img-red"]


def test_similar_leaves_itself_out(retriever):
    assert ids(retriever.similar("img-red", 2)) == ["img-crimson", "img-blue"]
    assert ids(retriever.similar("img-red", 1, offset=1)) == ["img-blue"]
    assert ids(retriever.similar("img-red", 1, modality="text")) == ["txt-red"]
    with pytest.raises(ItemNotFound, match="nothing-here"):
        retriever.similar("nothing-here")


def test_another_encoder_is_refused_with_both_fingerprints(retriever):
    other = ColourEncoder()
    other.fingerprint = "colours:2"
    with pytest.raises(EncoderMismatch, match=r"colours:1.*colours:2"):
        Retriever(retriever.backend, other, "c")


def test_a_collection_filled_anew_by_another_encoder_is_noticed(retriever, monkeypatch):
    retriever.search("red")
    retriever.backend.drop("c")
    retriever.backend.create(CollectionSpec("c", 3, encoder="colours:3"))
    monkeypatch.setattr("retrieval.search.retriever.DESCRIBE_EVERY_S", 0.0)
    with pytest.raises(EncoderMismatch):
        retriever.search("red")
    retriever.backend.drop("c")
    with pytest.raises(CollectionNotFound):
        retriever.search("red")


@pytest.mark.parametrize(("k", "offset"), [(0, 0), (-1, 0), (1, -1), (1.5, 0), (True, 0), (10, 10_000)])
def test_bad_pages_are_refused(retriever, k, offset):
    with pytest.raises(SearchError):
        retriever.search("red", k, offset=offset)
