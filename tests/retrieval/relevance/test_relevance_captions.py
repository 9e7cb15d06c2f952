"""Relevance where images and texts answer words together: two chances, step-down, and captions as evidence."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from backends import connect
from backends.base import Backend, CollectionSpec, Record
from retrieval import Retriever
from retrieval.relevance import scorer as judging
from retrieval.relevance.captions import CONSULTED, describes, image_of
from retrieval.relevance.nulls import Null, extremal_coefficient, fit_null
from retrieval.relevance.scorer import RELEVANT, query_kind
from retrieval.search.query import Term
from tests.support.topics import DIM, TopicEncoder, direction, fill, text_of, topic, unit
from tests.support.topics import image_of as picture_of

WORDS = (("words", 1.0),)
ABSENT = [f"topic {number}" for number in range(1000, 9000, 20)]


@pytest.fixture
def encoder() -> TopicEncoder:
    return TopicEncoder()


@pytest.fixture
def both(encoder: TopicEncoder) -> Retriever:
    store = connect("exact://")
    fill(store, encoder, 100, texts=True)
    return Retriever(store, encoder, "c")


def photograph(number: int, captions: list[str]) -> list[Record]:
    """A picture that looks like nothing its captions say, and its captions as the indexer stores them."""
    image_id, uri = f"image-{number}", f"file:///{number}.jpg"
    looks = unit(direction(f"looks {number}")[None])[0]
    records = [Record(image_id, looks, "image", "\n".join(captions) or None, uri, {"n": number})]
    for place, caption in enumerate(captions):
        vector = unit((topic(caption) + 0.5 * direction(f"wording {caption} {place}"))[None])[0]
        records.append(Record(f"cap-{number}-{place}", vector, "text", caption, uri, {"image": image_id}))
    return records


@pytest.fixture
def captioned(encoder: TopicEncoder) -> Retriever:
    """40 photographs; those of even numbers have two captions."""
    store = connect("exact://")
    store.create(CollectionSpec("c", DIM, encoder=encoder.fingerprint))
    for number in range(40):
        said = [f"topic {10 * number}", f"again topic {10 * number}"] if number % 2 == 0 else []
        store.upsert("c", photograph(number, said))
    return Retriever(store, encoder, "c")


def null_of(reached: np.ndarray) -> Null:
    return Null(np.zeros(1), 0.0, 0.0, (0.0, 0.0), 0.0, 1.0, reached)


# Two chances


@pytest.mark.parametrize("theta", [1.0, 1.25, 1.6, 2.0])
def test_extremal_coefficient_is_that_of_the_model(theta: float) -> None:
    # The logistic model (Gumbel 1960), by positive stable variables (Chambers, Mallows and Stuck 1976).
    rng, alpha = np.random.default_rng(7), np.log2(theta)
    if alpha:
        angle, wait = rng.uniform(0, np.pi, 20_000), rng.exponential(size=20_000)
        stable = np.sin(alpha * angle) / np.sin(angle) ** (1 / alpha)
        stable *= (np.sin((1 - alpha) * angle) / wait) ** ((1 - alpha) / alpha)
        first, second = (np.exp(-((rng.exponential(size=20_000) / stable) ** alpha)) for _ in range(2))
    else:
        first = second = rng.uniform(size=20_000)
    found = extremal_coefficient(null_of(first), null_of(second))
    assert found == pytest.approx(theta, abs=0.04)
    assert np.mean(np.maximum(first, second) < 0.8) == pytest.approx(0.8**theta, abs=0.02)


def test_extremal_coefficient_stays_within_bounds() -> None:
    assert extremal_coefficient(null_of(np.ones(50)), null_of(np.ones(50))) == 2.0
    assert extremal_coefficient(null_of(np.zeros(50)), null_of(np.zeros(50))) == 1.0
    assert extremal_coefficient(null_of(np.ones(50)), null_of(np.ones(49))) == 2.0, "queries that cannot be paired"


def test_queries_that_both_modalities_answer_hardly_move_the_chances() -> None:
    rng = np.random.default_rng(3)
    tables = [rng.normal(0.2, 0.05, (287, 200)) for _ in range(2)]
    clean = extremal_coefficient(*(fit_null(table, 200) for table in tables))
    for table in tables:
        table[np.arange(0, 287, 4), np.arange(0, 72)] = 0.8
    answered = extremal_coefficient(*(fit_null(table, 200) for table in tables))
    assert 1.7 <= clean <= 2
    assert answered == pytest.approx(clean, abs=0.3)


def test_an_unrelated_query_finds_something_in_either_as_rarely_as_the_gate_says(both: Retriever) -> None:
    reached = np.array([[hit.relevance for hit in both.search(query, 2)] for query in ABSENT]).max(axis=1)
    for gate in (0.5, 0.8, 0.9):
        assert np.mean(reached < gate) >= gate - 0.07
    found = [len(both.search(query, 10, min_relevance=RELEVANT)) for query in ABSENT[:60]]
    assert [n == 0 for n in found] == (reached[:60] < RELEVANT).tolist()
    present = [both.search(f"topic {n}", 1, min_relevance=RELEVANT) for n in range(60)]
    assert np.mean([bool(hits) for hits in present]) >= 0.9


def test_numbers_are_those_of_the_formula(both: Retriever, encoder: TopicEncoder) -> None:
    assert both.calibrator is not None
    sample = both.calibrator.sample()
    nulls = {modality: both.calibrator.null(sample, WORDS, modality) for modality in ("image", "text")}
    theta = extremal_coefficient(nulls["image"], nulls["text"])
    assert 1 < theta <= 2
    stepped = 0
    for query in ["topic 5", "topic 1007", *ABSENT[:20]]:
        vector = encoder.encode_texts([query])
        alone: dict[str, dict[str, float]] = {}
        for modality, null in nulls.items():
            scores = both.calibrator.items(sample, modality).similarities(vector)[0]
            values = null.relevance(scores, null.query_baseline(scores))
            alone[modality] = dict(zip(sample.samples[modality].ids, values, strict=True))
        for hit in both.search(query, 200):
            own = alone[hit.modality][hit.id]
            other = max(alone["image" if hit.modality == "text" else "text"].values())
            assert hit.relevance == pytest.approx(max(own**theta, min(own, other**theta)), abs=1e-4)
            stepped += own - own**theta > 0.01 and hit.relevance is not None and hit.relevance > own**theta + 0.01
    assert stepped, "what is below the best of the other modality counts as it does alone"


def test_one_modality_alone_is_not_corrected(encoder: TopicEncoder) -> None:
    store = connect("exact://")
    fill(store, encoder, 100)
    found = Retriever(store, encoder, "c")
    assert found.calibrator is not None
    sample = found.calibrator.sample()
    null = found.calibrator.null(sample, WORDS, "image")
    assert null is not None
    scores = found.calibrator.items(sample, "image").similarities(encoder.encode_texts(["topic 5000"]))[0]
    expected = null.relevance(np.sort(scores)[::-1], null.query_baseline(scores))
    assert [hit.relevance for hit in found.search("topic 5000", 100)] == pytest.approx(expected.tolist(), abs=1e-4)


def test_pictures_are_judged_as_if_there_were_no_texts(both: Retriever, encoder: TopicEncoder) -> None:
    store = connect("exact://")
    fill(store, encoder, 100)
    alone = Retriever(store, encoder, "c").similar("image-5-0", 20)
    assert [hit.relevance for hit in both.similar("image-5-0", 20)] == [hit.relevance for hit in alone]


def test_filters_depth_and_what_is_searched_change_no_number(captioned: Retriever) -> None:
    for query in ("topic 60", "topic 5000", [Term("topic 60"), Term("topic 80")]):
        whole = {hit.id: hit.relevance for hit in captioned.search(query, 200, mode="vector")}
        for narrowed in (
            {"modality": "image"},
            {"modality": "text"},
            {"where": {"n": {"$gte": 12}}},
            {"offset": 17},
            {"k": 1},
            {"min_relevance": 0.3},
            {"modality": "image", "where": {"n": {"$lt": 9}}, "min_relevance": 0.6},
        ):
            for hit in captioned.search(query, **{"k": 60} | narrowed):
                assert hit.relevance == pytest.approx(whole[hit.id], abs=1e-6)


# Captions as evidence


def test_an_image_is_judged_by_its_captions_too(captioned: Retriever, encoder: TopicEncoder) -> None:
    (hit,) = captioned.search("topic 60", 10, modality="image", min_relevance=0.95, mode="vector")
    assert hit.id == "image-6"
    (caption, *_) = captioned.search("topic 60", 1, modality="text", mode="vector")
    assert caption.metadata["image"] == "image-6"
    assert hit.relevance == pytest.approx(caption.relevance, abs=1e-6)
    (vector,) = captioned.get("image-6", with_vector=True).vector[None]
    assert hit.score == pytest.approx(float(vector @ encoder.encode_texts(["topic 60"])[0]), abs=1e-5)
    assert captioned.search("topic 70", 10, modality="image", min_relevance=0.95, mode="vector") == [], (
        "it has no captions"
    )


def test_filters_hold_for_images_that_captions_found(captioned: Retriever) -> None:
    for where, expected in (({"n": 6}, ["image-6"]), ({"n": {"$ne": 6}}, [])):
        hits = captioned.search("topic 60", 10, modality="image", where=where, min_relevance=0.95, mode="vector")
        assert [hit.id for hit in hits] == expected


def test_only_its_own_captions_speak_for_an_image(captioned: Retriever) -> None:
    store = captioned.backend
    (image,) = store.get("c", ["image-6"], with_vectors=True)
    store.upsert("c", [replace(image, text="something else")])
    assert captioned.search("topic 60", 10, modality="image", min_relevance=0.95, mode="vector") == []
    forged = photograph(99, ["topic 75"])[1]
    store.upsert("c", [replace(forged, metadata={"image": "image-7"})])
    assert captioned.search("topic 75", 10, modality="image", min_relevance=0.95, mode="vector") == []
    assert captioned.search("topic 75", 10, modality="text", min_relevance=0.95, mode="vector")


@pytest.mark.parametrize(
    "metadata", [{}, {"image": ""}, {"image": 7}, {"image": "x" * 600}, {"image": "gone"}, {"image": ["image-1"]}]
)
def test_texts_that_name_no_image_are_no_captions(captioned: Retriever, metadata: dict[str, object]) -> None:
    text = replace(photograph(98, ["topic 85"])[1], metadata=metadata)
    captioned.backend.upsert("c", [text])
    hits = captioned.search("topic 85", 10, min_relevance=0.95, mode="vector")
    assert [hit.id for hit in hits] == [text.id]
    (hit,) = hits
    assert image_of(hit) == ("gone" if metadata.get("image") == "gone" else None)
    assert not describes(hit.text, hit)


@pytest.mark.parametrize("modality", ["image", None])
@pytest.mark.parametrize("mode", ["vector", "hybrid"])
def test_the_gate_leaves_out_nothing_relevant_and_pages_fit(
    captioned: Retriever, modality: str | None, mode: str
) -> None:
    for query in ("topic 60", "topic 64", "topic 5000"):
        for least in (0.1, 0.3, 0.6, 0.9):
            whole = captioned.search(query, 200, modality=modality, mode="vector")
            expected = [hit.id for hit in whole if hit.relevance is not None and hit.relevance >= least]
            gated = captioned.search(query, 200, modality=modality, min_relevance=least, mode=mode)
            if mode == "vector":
                assert {hit.id for hit in gated} == set(expected)
                pictures = [hit.id for hit in gated if hit.modality == "image"]
                assert pictures == [hit.id for hit in whole if hit.id in set(pictures)], "in the plain order"
            assert set(expected) <= {hit.id for hit in gated}
            for k in (1, 2, 5) if mode == "vector" else ():
                pages = [
                    hit.id
                    for offset in range(0, len(gated) + k, k)
                    for hit in captioned.search(
                        query, k, modality=modality, offset=offset, min_relevance=least, mode="vector"
                    )
                ]
                assert pages == [hit.id for hit in gated]


def test_plain_searches_keep_their_order(captioned: Retriever, encoder: TopicEncoder) -> None:
    plain = Retriever(captioned.backend, encoder, "c", calibrate=False)
    for modality in ("image", "text", None):
        hits = captioned.search("topic 60", 60, modality=modality, fusion="ranks", mode="vector")
        expected = plain.search("topic 60", 60, modality=modality, mode="vector")
        assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in expected]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_every_metric_finds_it_alike(captioned: Retriever, encoder: TopicEncoder, metric: str) -> None:
    store = connect("exact://")
    store.create(CollectionSpec("c", DIM, metric, encoder.fingerprint))
    store.upsert("c", [record for page in captioned.backend.scan("c") for record in page.records])
    other = Retriever(store, encoder, "c")
    for least in (0.2, 0.9):
        expected = captioned.search("topic 60", 60, modality="image", min_relevance=least, mode="vector")
        hits = other.search("topic 60", 60, modality="image", min_relevance=least, mode="vector")
        assert [hit.id for hit in hits] == [hit.id for hit in expected]
        assert [hit.relevance for hit in hits] == pytest.approx([hit.relevance for hit in expected], abs=2e-3)
        assert all(a.score >= b.score for a, b in pairwise(hits))


def test_few_searches_are_asked_of_the_engine(captioned: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    captioned.search("topic 60", 5, mode="vector")
    asked, real = [], type(captioned.backend).search

    def counted(self: Backend, *args: object, **kwargs: object) -> object:
        asked.append(args[2])
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(captioned.backend), "search", counted)
    captioned.search("topic 60", 5, modality="image", min_relevance=RELEVANT, mode="vector")
    assert asked == [5, CONSULTED]
    asked.clear()
    captioned.search("topic 60", 5, min_relevance=RELEVANT, mode="vector")
    assert asked == [5, CONSULTED, 5]


# Made ready


def test_what_is_prepared_is_not_done_by_the_first_search(
    both: Retriever, encoder: TopicEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = Retriever(both.backend, encoder, "c")
    fresh.prepare()
    encoded = encoder.texts

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("done by a search")

    monkeypatch.setattr(judging, "fit_null", refuse)
    monkeypatch.setattr(judging, "background_vectors", refuse)
    monkeypatch.setattr(type(both.backend), "scan", refuse)
    assert fresh.search("topic 5", 5, min_relevance=RELEVANT)
    assert encoder.texts == encoded + 1
    with pytest.raises(AssertionError):
        Retriever(both.backend, encoder, "c").search("topic 5", 5)


def test_without_calibration_there_is_nothing_to_prepare(both: Retriever, encoder: TopicEncoder) -> None:
    encoded = encoder.texts
    Retriever(both.backend, encoder, "c", calibrate=False).prepare()
    assert encoder.texts == encoded


def test_an_empty_collection_can_be_prepared(encoder: TopicEncoder) -> None:
    store = connect("exact://")
    fill(store, encoder, 0)
    found = Retriever(store, encoder, "c")
    found.prepare()
    store.upsert("c", [picture_of(encoder, 1), text_of(encoder, 1)])
    found.prepare()
    assert all(hit.relevance is not None for hit in found.search("topic 1", 2))
    assert query_kind([Term("topic 1")]) == WORDS
