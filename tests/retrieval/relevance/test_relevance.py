"""Relevance: the statistics, the same number everywhere, what is absent, and what becomes of the gate."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from app.core.settings import Settings
from backends import connect
from backends.base import METRICS, Backend
from retrieval import Retriever
from retrieval.relevance.nulls import MIN_BACKGROUND, fit_null
from retrieval.relevance.scorer import RELEVANT, Calibrator, background_texts, query_kind
from retrieval.search.query import Term
from retrieval.search.retriever import SearchError
from tests.support.topics import DIM, TopicEncoder, fill, image_of, topic, unit

PRESENT = [f"topic {number}" for number in range(100)]
ABSENT = [f"topic {number}" for number in range(1000, 3000, 10)]


@pytest.fixture
def encoder() -> TopicEncoder:
    return TopicEncoder()


@pytest.fixture
def backend(encoder: TopicEncoder) -> Backend:
    store = connect("exact://")
    fill(store, encoder, 100, texts=True)
    return store


@pytest.fixture
def retriever(backend: Backend, encoder: TopicEncoder) -> Retriever:
    return Retriever(backend, encoder, "c")


def best(retriever: Retriever, query: object, **narrowed: object) -> float:
    (hit,) = retriever.search(query, 1, **{"modality": "image"} | narrowed)
    assert hit.relevance is not None
    return hit.relevance


# The statistics


def scores_of(m: int, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.2, 0.05, (m, n))


def test_of_unrelated_queries_a_share_r_has_a_best_relevance_below_r() -> None:
    null = fit_null(scores_of(300, 500), 500)
    assert null is not None
    fresh = scores_of(2000, 500, seed=1)
    values = np.array([null.relevance(row.max()[None], null.query_baseline(row))[0] for row in fresh])
    for share in (0.2, 0.5, 0.8, 0.9, 0.95):
        assert np.mean(values < share) == pytest.approx(share, abs=0.05)


def test_scale_and_offset_of_the_scores_change_nothing() -> None:
    table, query = scores_of(100, 200), scores_of(1, 200, seed=2)[0]
    query[0] = 0.4
    for scale, offset in ((1, 0), (100, 0), (1, -5), (0.01, 3), (25, 7)):
        null = fit_null(table * scale + offset, 10_000)
        assert null is not None
        found = null.relevance(query * scale + offset, null.query_baseline(query * scale + offset))
        if scale == 1 and offset == 0:
            expected = found
        assert found == pytest.approx(expected, abs=1e-6)
    assert 0.1 < expected.max() < 0.999


def test_relevance_rises_with_the_score_and_stays_within_bounds() -> None:
    null = fit_null(scores_of(64, 64), 64)
    assert null is not None
    values = null.relevance(np.linspace(-1e6, 1e6, 1001), 0.2)
    assert (np.diff(values) >= 0).all()
    assert values.min() == 0
    assert values.max() == 1


def test_background_queries_that_are_answered_hardly_move_the_null() -> None:
    table = scores_of(300, 400)
    clean = fit_null(table, 400)
    table[np.arange(0, 300, 4), np.arange(0, 300, 4)] = 0.8  # every fourth finds an item of its own
    answered = fit_null(table, 400)
    assert clean is not None
    assert answered is not None
    query = scores_of(1, 400, seed=3)[0]
    a, b = (null.relevance(np.array([0.42]), null.query_baseline(query))[0] for null in (clean, answered))
    assert 0.5 < b <= a + 0.02


def test_an_item_that_is_near_to_everything_answers_nothing() -> None:
    table, fresh = scores_of(300, 100), scores_of(200, 100, seed=4)
    for rows in (table, fresh):
        rows[:, 7] += 0.2
    null = fit_null(table, 100)
    assert null is not None
    values = np.array([null.relevance(row.max()[None], null.query_baseline(row))[0] for row in fresh])
    assert np.mean(values >= 0.8) < 0.3
    # As high a score on any other item is something else.
    other = scores_of(1, 100, seed=5)[0]
    other[3] = fresh.max()
    assert null.relevance(other.max()[None], null.query_baseline(other))[0] > 0.9


def test_the_best_of_many_items_is_expected_to_score_higher() -> None:
    table = scores_of(150, 32_000)
    whole, part = fit_null(table, 32_000), fit_null(table[:, :2000], 32_000)
    uncorrected = fit_null(table[:, :2000], 2000)
    assert whole is not None
    assert part is not None
    assert uncorrected is not None
    shift = whole.location + whole.hubness.mean() - uncorrected.location - uncorrected.hubness.mean()
    assert part.location - uncorrected.location > 0.02
    # The tail of normal scores is lighter than the exponential one that is assumed: more is asked, not less.
    assert whole.location < part.location + shift + 0.05
    fresh = scores_of(50, 32_000, seed=6)
    values = np.array([part.relevance(row.max()[None], part.query_baseline(row[:2000]))[0] for row in fresh])
    assert np.mean(values >= 0.8) <= 0.25
    naive = np.array(
        [uncorrected.relevance(row.max()[None], uncorrected.query_baseline(row[:2000]))[0] for row in fresh]
    )
    assert np.mean(naive >= 0.8) > 0.6


@pytest.mark.parametrize(
    "table",
    [
        np.full((50, 20), 0.3),
        np.zeros((50, 1)),
        np.repeat(scores_of(1, 20), 50, axis=0),
        np.repeat(scores_of(50, 1), 20, axis=1),
        scores_of(MIN_BACKGROUND, 2),
    ],
)
def test_degenerate_scores_give_sane_numbers(table: np.ndarray) -> None:
    null = fit_null(table, 10**9)
    assert null is not None
    assert null.scale > 0
    values = null.relevance(np.array([-1.0, 0.3, 1.0]), null.query_baseline(table[0]))
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (values <= 1).all()


def test_too_little_to_compare_with_is_said() -> None:
    assert fit_null(scores_of(MIN_BACKGROUND - 1, 10), 10) is None
    assert fit_null(np.zeros((50, 0)), 0) is None
    assert fit_null(scores_of(50, 10), 10, np.ones((50, 10), bool)) is None
    assert fit_null(np.full((50, 3), np.nan), 3) is None


# Absent and present


@pytest.mark.parametrize(("topics", "gap"), [(100, 0.0), (100, 1.0), (100, 4.0), (4500, 1.0)])
def test_absent_and_present_topics_are_told_apart(topics: int, gap: float) -> None:
    encoder, store = TopicEncoder(gap), connect("exact://")
    fill(store, encoder, topics)
    found = Retriever(store, encoder, "c")
    absent = [query.replace("topic ", "topic 77") for query in ABSENT[:80]]
    present = np.array([best(found, query) for query in PRESENT[:60]])
    unrelated = np.array([best(found, query) for query in absent])
    assert np.mean(present >= RELEVANT) >= 0.9
    assert np.mean(unrelated >= RELEVANT) <= 0.25
    # Of many items the best is expected to score somewhat higher than it does: the null errs to the safe side.
    assert 0.05 <= np.median(unrelated) <= 0.6


def test_texts_and_images_are_judged_apart(retriever: Retriever) -> None:
    merged = retriever.search("topic 5", 10, mode="vector")
    assert {hit.modality for hit in merged} == {"image", "text"}
    for modality in ("image", "text"):
        own = {hit.id: hit.relevance for hit in retriever.search("topic 5", 10, modality=modality, mode="vector")}
        assert all(hit.relevance == own[hit.id] for hit in merged if hit.modality == modality and hit.id in own)
        assert own[f"{modality}-5-0" if modality == "image" else "text-5"] > RELEVANT


def test_one_photograph_is_enough_to_say_no(encoder: TopicEncoder) -> None:
    store = connect("exact://")
    fill(store, encoder, 1)
    found = Retriever(store, encoder, "c")
    assert best(found, "topic 0") > 0.95
    assert np.mean([best(found, query) >= RELEVANT for query in ABSENT]) < 0.3


def test_pictures_are_judged_by_other_pictures(backend: Backend, encoder: TopicEncoder) -> None:
    backend.upsert("c", [image_of(encoder, 5, copy=1)])
    found = Retriever(backend, encoder, "c")
    twin, *others = found.similar("image-5-0", 100)
    assert twin.id == "image-5-1"
    assert twin.relevance is not None
    assert twin.relevance > RELEVANT
    assert np.median([hit.relevance for hit in others]) < 0.05
    alone = found.similar("image-50-0", 1)[0]
    assert alone.relevance is not None
    assert alone.relevance < twin.relevance


def test_few_pictures_cannot_judge_a_picture(encoder: TopicEncoder) -> None:
    store = connect("exact://")
    fill(store, encoder, MIN_BACKGROUND - 1)
    found = Retriever(store, encoder, "c")
    hits = found.similar("image-0-0", 3, min_relevance=0.99)
    assert [hit.relevance for hit in hits] == [None] * 3, "what cannot be judged is kept"
    assert best(found, "topic 0") > RELEVANT, "words can be judged nevertheless"


def test_composed_queries_are_judged_by_queries_of_their_make(retriever: Retriever) -> None:
    both = [Term("topic 5", 1.0), Term("topic 6", 1.0)]
    neither = [[Term(a, 1.0), Term(b, 1.0)] for a, b in zip(ABSENT[::2], ABSENT[1::2], strict=True)]
    away = [[Term(a, 1.0), Term(b, -0.5)] for a, b in zip(ABSENT[::2], ABSENT[1::2], strict=True)]
    assert best(retriever, both) > RELEVANT
    for queries in (neither, away):
        assert np.mean([best(retriever, query) >= RELEVANT for query in queries]) < 0.3
    assert query_kind(both) == (("words", 1.0), ("words", 1.0))


# The same number everywhere


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("url", ["exact://", "faiss://{dir}", "qdrant-edge://{dir}"])
def test_engines_and_metrics_agree(
    url: str, metric: str, backend: Backend, retriever: Retriever, encoder: TopicEncoder, tmp_path: Path
) -> None:
    if url.startswith("qdrant-edge"):
        pytest.importorskip("qdrant_edge")
    with connect(url.format(dir=tmp_path / "store")) as other:
        fill(other, encoder, 100, metric=metric, texts=True)
        found = Retriever(other, encoder, "c")
        for query in ("topic 5", "topic 5000", "a lighthouse", [Term("topic 5"), Term("topic 70", -0.5)]):
            for modality in ("image", "text"):
                expected = retriever.search(query, 20, modality=modality, mode="vector")
                hits = found.search(query, 20, modality=modality)
                assert [hit.id for hit in hits] == [hit.id for hit in expected]
                assert [hit.relevance for hit in hits] == pytest.approx([hit.relevance for hit in expected], abs=2e-3)
        expected, hits = retriever.similar("image-5-0", 5), found.similar("image-5-0", 5)
        assert [hit.relevance for hit in hits] == pytest.approx([hit.relevance for hit in expected], abs=2e-3)


def test_filters_pages_and_depth_do_not_change_it(retriever: Retriever) -> None:
    whole = {hit.id: hit.relevance for hit in retriever.search("topic 5", 100, modality="image", mode="vector")}
    assert len(whole) == 100
    for narrowed in ({"where": {"n": {"$gte": 40}}}, {"offset": 30}, {"k": 1}):
        for hit in retriever.search("topic 5", **{"k": 20, "modality": "image"} | narrowed):
            assert hit.relevance == whole[hit.id]


def test_hits_found_by_other_means_get_the_same_number(retriever: Retriever, encoder: TopicEncoder) -> None:
    hits = retriever.search("topic 5", 30, mode="vector")
    assert retriever.calibrator is not None
    for metric in METRICS:
        store = connect("exact://")
        fill(store, encoder, 100, metric=metric, texts=True)
        judge = Calibrator(store, encoder, "c").judge(encoder.encode_texts(["topic 5"])[0], (("words", 1.0),))
        by_keyword = store.search_text("c", "topic", 30)
        judged = judge.score_by_stored_vectors(by_keyword)
        assert [(hit.id, hit.score) for hit in judged] == [(hit.id, hit.score) for hit in by_keyword]
        expected = {hit.id: hit.relevance for hit in retriever.search("topic 5", 100, modality="text", mode="vector")}
        assert [hit.relevance for hit in judged] == pytest.approx([expected[hit.id] for hit in judged], abs=1e-4)
        kept = judge.score_by_stored_vectors([*by_keyword, *store.search_text("c", "5", 1)], 0.5)
        assert [hit.id for hit in kept] == [
            hit.id for hit in [*by_keyword, *store.search_text("c", "5", 1)] if expected[hit.id] >= 0.5
        ]
    assert all(hit.relevance is not None for hit in hits)


# The gate


@pytest.mark.parametrize("modality", ["image", "text", None])
def test_the_gate_keeps_all_that_is_relevant_and_pages_fit(retriever: Retriever, modality: str | None) -> None:
    for least in (0.2, 0.5, 0.9):
        whole = retriever.search("topic 5", 200, modality=modality, mode="vector")
        relevant = {hit.id for hit in whole if hit.relevance is not None and hit.relevance >= least}
        assert 0 < len(relevant) < 200
        gated = retriever.search("topic 5", 200, modality=modality, min_relevance=least, mode="vector")
        assert {hit.id for hit in gated} == relevant
        for k in (1, 2, 3):
            pages = [
                hit.id
                for offset in range(0, len(relevant) + k, k)
                for hit in retriever.search(
                    "topic 5", k, modality=modality, offset=offset, min_relevance=least, mode="vector"
                )
            ]
            assert pages == [hit.id for hit in gated]


def test_judging_never_reorders(retriever: Retriever, backend: Backend, encoder: TopicEncoder) -> None:
    plain = Retriever(backend, encoder, "c", calibrate=False)
    for query in ("topic 5", "a lighthouse"):
        hits = retriever.search(query, 50, fusion="ranks", mode="vector")
        assert [(hit.id, hit.score) for hit in hits] == [
            (hit.id, hit.score) for hit in plain.search(query, 50, mode="vector")
        ]
        for modality in ("image", "text"):
            values = [hit.relevance for hit in hits if hit.modality == modality]
            assert values == sorted(values, reverse=True)
    assert all(hit.relevance is None for hit in plain.search("topic 5", mode="vector"))
    with pytest.raises(SearchError, match="calibration"):
        plain.search("topic 5", min_relevance=0.5, mode="vector")


@pytest.mark.parametrize("least", [-0.1, 1.5, float("nan")])
def test_a_threshold_outside_its_range_is_refused(retriever: Retriever, least: float) -> None:
    with pytest.raises(SearchError, match="min_relevance must be from 0 to 1"):
        retriever.search("topic 5", min_relevance=least, mode="vector")


def test_an_empty_collection_has_nothing_to_judge(encoder: TopicEncoder) -> None:
    store = connect("exact://")
    fill(store, encoder, 0)
    found = Retriever(store, encoder, "c")
    assert found.search("topic 5", min_relevance=0.5) == []
    assert found.calibrator is not None
    judge = found.calibrator.judge(encoder.encode_texts(["topic 5"])[0], (("words", 1.0),))
    assert judge.relevance([0.5], "image") == [None]


def test_the_default_gate_is_one_number() -> None:
    assert Settings.load(env={}).min_relevance == RELEVANT


# What is built in


def test_background_queries_are_many_diverse_and_no_ones_test(tmp_path: Path) -> None:
    texts = background_texts()
    assert len(texts) == len({text.lower() for text in texts}) >= 256
    assert all(text.strip() == text and text for text in texts)
    for name in ("coco100", "fsa100"):
        lines = (files("benchmarks") / "data" / f"{name}_absent.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        queries = [row["query"].lower() for row in rows]
        assert len(queries) == len(set(queries)) >= (200 if name == "coco100" else 100)
        assert len({row["kind"] for row in rows}) >= 8
        assert not set(queries) & {text.lower() for text in texts}, "the null must not know the test"


def test_background_vectors_are_computed_once_a_folder(backend: Backend, tmp_path: Path) -> None:
    first, second = TopicEncoder(), TopicEncoder()
    a = best(Retriever(backend, first, "c", samples=tmp_path), "topic 5")
    b = best(Retriever(backend, second, "c", samples=tmp_path), "topic 5")
    assert a == b
    assert first.texts == len(background_texts()) + 1
    assert second.texts == 1
    for path in tmp_path.glob("background-*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    third = TopicEncoder()
    assert best(Retriever(backend, third, "c", samples=tmp_path), "topic 5") == a
    assert third.texts == len(background_texts()) + 1


def test_a_random_network_gives_sane_numbers(tmp_path: Path) -> None:
    """Vectors all in a narrow cone, as an untrained network gives: no crash, and no certainty either."""

    class Cone(TopicEncoder):
        def encode_texts(self, texts):
            return unit(np.ones((len(texts), DIM)) + 1e-3 * super().encode_texts(texts))

    encoder, store = Cone(), connect("exact://")
    fill(store, encoder, 50)
    values = [best(Retriever(store, encoder, "c"), query) for query in ABSENT[:20]]
    assert all(0 <= value <= 1 for value in values)
    assert np.mean(np.array(values) >= RELEVANT) <= 0.5
    assert topic("x").shape == (DIM,)
