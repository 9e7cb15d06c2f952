"""Fusion by worth: what evidence counts, what is not known counts for nothing, and images and texts in one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, combinations
from math import exp, log

import numpy as np
import pytest
from numpy.typing import NDArray

from backends import connect
from backends.base import NO_VECTOR, Backend, CollectionSpec, Record
from retrieval import Retriever
from retrieval.relevance.words import QueryWords, WordCounts, text_evidence
from retrieval.search.query import SearchError, Term
from tests.support.sample_engines import LimitedBackend
from tests.support.topics import DIM, TopicEncoder, direction, image_of, text_of, unit

COUNT = 60


def photographs(encoder: TopicEncoder, captions: dict[int, str], names: dict[int, str] | None = None) -> Retriever:
    """Photographs of topics 0 to 59, some with a caption, some with a file name of their own."""
    store = connect("exact://")
    store.create(CollectionSpec("c", DIM, encoder=encoder.fingerprint))
    named = names or {}
    store.upsert(
        "c",
        [
            replace(image_of(encoder, i), text=captions.get(i), uri=f"file:///{named[i]}.jpg" if i in named else None)
            for i in range(COUNT)
        ],
    )
    return Retriever(store, encoder, "c")


def ids(hits: Sequence[Record]) -> list[str]:
    return [hit.id for hit in hits]


def place(found: Sequence[Record], number: int) -> int:
    return ids(found).index(f"image-{number}-0")


@pytest.fixture
def encoder() -> TopicEncoder:
    return TopicEncoder()


# Words


def counts(texts: Sequence[str]) -> list[tuple[WordCounts, int]]:
    found = WordCounts.of(Record(f"t{i}", np.ones(2, np.float32), "text", text) for i, text in enumerate(texts))
    return [(found, len(texts))]


def test_a_match_is_as_improbable_as_independent_words_make_it() -> None:
    # Words of the query in a half, a quarter and an eighth of 64 texts of one length.
    texts = [f"{'a' if i % 2 else 'z'} {'b' if i % 4 == 0 else 'y'} {'c' if i % 8 == 0 else 'x'}" for i in range(64)]
    asked = QueryWords("a b c", counts(texts))
    shares = np.array([32.5, 16.5, 8.5]) / 65
    weights = -np.log(shares)
    chances = {
        chosen: float(np.prod([shares[i] if i in chosen else 1 - shares[i] for i in range(3)]))
        for chosen in chain.from_iterable(combinations(range(3), n) for n in range(4))
    }
    by_total = []
    for chosen in chances:
        found = asked.improbability(" ".join("abc"[i] if i in chosen else f"other{i}" for i in range(3)), None)
        total = weights[list(chosen)].sum()
        tail = sum(p for each, p in chances.items() if weights[list(each)].sum() >= total - 1e-9)
        assert found <= -log(tail) + 1e-6, "Chernoff's bound promises no more than there is"
        by_total.append((total, found))
    values = [found for _, found in sorted(by_total)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(weights.sum(), abs=0.2), "of all words together it is exact"
    assert asked.improbability("nothing of it", None) == 0.0


def test_a_sample_stands_for_its_collection_and_a_word_that_it_lacks_is_rare_only_as_far_as_it_tells() -> None:
    texts = [f"a w{i}" for i in range(100)]
    whole = QueryWords("w5", counts(texts)).improbability("w5 a", None)
    (sample, _), *_ = counts(texts)
    sampled = QueryWords("w5", [(sample, 100_000)]).improbability("w5 a", None)
    assert sampled == pytest.approx(whole, abs=1e-9), "the shares are the same"
    unseen = QueryWords("unseen", [(sample, 100_000)]).improbability("unseen a", None)
    assert whole < unseen < 2 * log(2 * 100)


def test_longer_texts_and_common_words_count_for_less() -> None:
    texts = [f"the w{i} thing" for i in range(50)]
    asked = QueryWords("the w7", counts(texts))
    short = asked.improbability("the w7 thing", None)
    assert short > asked.improbability("the w7 thing " + "and more " * 40, None) > 0
    assert short > 3 * asked.improbability("the", None)
    assert asked.improbability(None, "file:///w7.jpg") > 1, "a file's name counts"


def test_odds_are_neutral_where_nothing_is_known() -> None:
    assert text_evidence(0.0, has_text=False) == 0.0
    assert text_evidence(0.0, has_text=True) == pytest.approx(log((1 + exp(-1)) / 2))
    assert text_evidence(1.0, has_text=True) == pytest.approx(0.0)
    assert text_evidence(30.0, has_text=False) == pytest.approx(29 - log(2))
    empty = QueryWords("word", [(WordCounts(), 0)])
    assert empty.improbability("word", None) >= 0.0


# Fusion


def test_a_photograph_without_a_caption_is_not_last(encoder: TopicEncoder) -> None:
    captions = {i: f"a picture of something, number {1000 + i}" for i in range(0, COUNT, 2)}
    retriever = photographs(encoder, captions)
    for number in range(1, COUNT, 2):
        query = f"topic {number}, a picture of something"
        assert place(retriever.search(query, COUNT, mode="vector"), number) == 0
        assert place(retriever.search(query, COUNT, mode="hybrid"), number) <= 1
    by_rank = [
        place(retriever.search(f"topic {n}, a picture of something", COUNT, mode="hybrid", fusion="ranks"), n)
        for n in range(1, COUNT, 2)
    ]
    assert np.mean(by_rank) > 3, "which is what fusion by rank does"


def test_words_that_the_encoder_does_not_know_decide(encoder: TopicEncoder) -> None:
    people = [f"first{chr(97 + i)} last{chr(97 + i)}" for i in range(12)]
    retriever = photographs(encoder, {i: f"{people[i % 12]} made this one" for i in range(COUNT)})
    for name in people:
        found = retriever.search(name, 5, mode="hybrid")
        right = [hit.text is not None and hit.text.startswith(name) for hit in found]
        assert right[0]
        assert sum(right) >= 4


def test_a_name_of_a_file_decides_where_there_are_no_captions(encoder: TopicEncoder) -> None:
    retriever = photographs(encoder, {}, {i: f"scan_q{i}x" for i in range(COUNT)})
    for number in (3, 17, 44):
        found = retriever.search(f"q{number}x", 5, mode="hybrid")
        assert found[0].id == f"image-{number}-0"


@pytest.mark.parametrize("query", ["topic 7", "ein Hund am Strand", "topic 31 dans la neige"])
def test_words_that_nothing_has_leave_the_order_alone(encoder: TopicEncoder, query: str) -> None:
    retriever = photographs(encoder, {i: f"caption {chr(97 + i % 26)}{i}q" for i in range(0, COUNT, 2)})
    assert ids(retriever.search(query, COUNT, mode="hybrid")) == ids(retriever.search(query, COUNT, mode="vector"))


def test_both_together_find_what_neither_finds_alone(encoder: TopicEncoder) -> None:
    # Look-alikes by vectors (the same topic), and by words (the same place): one photograph is both.
    store = connect("exact://")
    store.create(CollectionSpec("c", DIM, encoder=encoder.fingerprint))
    records = [replace(image_of(encoder, 5, i), id=f"topic-{i}", text=f"harbour w{i}", uri=None) for i in range(12)]
    records += [
        replace(image_of(encoder, 100 + i), id=f"place-{i}", text=f"dresden elbe w{i}", uri=None) for i in range(3)
    ]
    records += [replace(image_of(encoder, 300 + i), id=f"other-{i}", text=f"w{i} thing", uri=None) for i in range(40)]
    records.append(
        replace(
            image_of(encoder, 5, 99), id="both", text="dresden and what there is of it on the elbe at night", uri=None
        )
    )
    store.upsert("c", records)
    retriever = Retriever(store, encoder, "c")
    query = "5 dresden elbe"
    assert retriever.search(query, 3, mode="hybrid")[0].id == "both"
    alone = [ids(retriever.search(query, 20, mode=mode))[0] for mode in ("vector", "keyword")]  # type: ignore[arg-type]
    assert "both" not in alone


def test_an_item_without_a_vector_is_judged_by_its_words(encoder: TopicEncoder) -> None:
    retriever = photographs(encoder, {i: f"caption w{i}" for i in range(COUNT)})
    retriever.backend.upsert("c", [Record("unread", NO_VECTOR, "text", "飞机 zeppelin", None)])
    found = retriever.search("zeppelin", 5, mode="hybrid")
    assert found[0].id == "unread"
    assert found[0].relevance is None


def test_filters_offsets_and_pages_fit(encoder: TopicEncoder) -> None:
    retriever = photographs(encoder, {i: f"a thing w{i % 7}" for i in range(0, COUNT, 2)})
    where = {"n": {"$gte": 10}}
    whole: list[str] = []
    while page := retriever.search("topic 12 w3", 9, offset=len(whole), where=where, mode="hybrid"):
        whole += ids(page)
    assert sorted(whole) == sorted(f"image-{i}-0" for i in range(10, COUNT))
    diverse = retriever.search("topic 12 w3", 9, where=where, mode="hybrid", diversity=0.4)
    assert diverse[0].id == whole[0]
    gated = retriever.search("topic 12 w3", COUNT, mode="hybrid", min_relevance=0.8)
    assert 0 < len(gated) < COUNT


def test_without_calibration_lists_are_merged_by_rank(encoder: TopicEncoder) -> None:
    judged = photographs(encoder, {i: f"a thing w{i % 7}" for i in range(0, COUNT, 2)})
    plain = Retriever(judged.backend, encoder, "c", calibrate=False)
    wanted = ids(judged.search("topic 12 w3", 30, mode="hybrid", fusion="ranks"))
    assert ids(plain.search("topic 12 w3", 30, mode="hybrid")) == wanted
    assert ids(judged.search("topic 12 w3", 30, mode="hybrid")) != wanted
    with pytest.raises(SearchError, match="fusion must be worth or ranks, not 'sum'"):
        judged.search("topic 12", fusion="sum")  # type: ignore[arg-type]


def test_words_are_counted_anew_when_captions_change(encoder: TopicEncoder) -> None:
    retriever = photographs(encoder, {})
    retriever.search("topic 5 thing", 5, mode="hybrid")
    assert retriever.calibrator is not None
    retriever.backend.upsert("c", [replace(image_of(encoder, i), text="a thing") for i in range(COUNT)])
    retriever.calibrator.check_every_s = 0.0
    assert retriever.calibrator.sample().samples["image"].words.texts_with["thing"] == COUNT


# Images and texts in one list


def gain(found: Sequence[Record], number: int) -> float:
    places = [rank for rank, hit in enumerate(found) if hit.metadata["n"] == number]
    return 1 / np.log2(places[0] + 2) if places else 0.0


@pytest.mark.parametrize("gap", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_images_and_texts_are_ordered_as_well_as_if_one_knew_which_to_search(gap: float, metric: str) -> None:
    encoder = TopicEncoder(gap)
    store: Backend = connect("exact://")
    store.create(CollectionSpec("c", DIM, metric, encoder.fingerprint))  # type: ignore[arg-type]
    # Topics that only a picture shows, and others that only a text tells of.
    store.upsert("c", [image_of(encoder, i) if i % 2 else text_of(encoder, i) for i in range(100)])
    retriever = Retriever(store, encoder, "c")
    queries = [(i, f"topic {i}") for i in range(100)]
    by = {
        fusion: np.mean([gain(retriever.search(q, 10, mode="vector", fusion=fusion), i) for i, q in queries])
        for fusion in ("worth", "ranks")
    }
    oracle = np.mean(
        [gain(retriever.search(q, 10, mode="vector", modality="image" if i % 2 else "text"), i) for i, q in queries]
    )
    assert by["worth"] >= 0.95 * oracle
    assert by["worth"] > by["ranks"]
    raw = [sorted(retriever.search(q, 100, mode="vector"), key=lambda hit: -hit.score)[:10] for _, q in queries]
    if gap == 4.0:
        by_score = np.mean([gain(hits, i) for (i, _), hits in zip(queries, raw, strict=True)])
        assert by_score < 0.8 * by["worth"], "the gap is wide: scores as they are put every text first"


def test_an_engine_without_keyword_search_is_searched_by_vectors_and_says_so(encoder: TopicEncoder) -> None:
    limited = LimitedBackend()
    limited.create(CollectionSpec("c", DIM, encoder=encoder.fingerprint))
    limited.upsert("c", [image_of(encoder, i) for i in range(20)])
    retriever = Retriever(limited, encoder, "c")
    found = retriever.search("topic 5", 5, mode="hybrid")
    assert ids(found) == ids(retriever.search("topic 5", 5, mode="vector"))
    (told,) = found.notices
    assert "LimitedBackend has no keyword search, so only vectors were searched" in told
    assert retriever.search([Term("topic 5"), Term("?!", -1.0)], 5, mode="vector").notices == ()
    assert retriever.search("?!", 5, mode="hybrid").notices == ()


def test_worth_does_not_round_to_certainty(encoder: TopicEncoder) -> None:
    from retrieval.relevance.nulls import Null

    null = Null(np.zeros(1), 0.0, 0.0, (0.0, 0.0), 0.0, 1.0, np.zeros(1))
    scores: NDArray[np.float64] = np.array([-1e4, -5.0, 0.0, 5.0, 50.0, 60.0, 1e4])
    worth = null.improbability(scores, 0.0)
    assert np.isfinite(worth).all()
    assert worth[:4] == pytest.approx(-np.log1p(-null.relevance(scores[:4], 0.0)), abs=1e-9)
    assert worth[4:6] == pytest.approx([50, 60])
    assert unit(direction("x")[None]).shape == (1, DIM)
