"""Recall and rank against a plain NumPy reading of their definitions."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.evaluation import EvaluationError, ranking_report, recall_report


def reference(ranks: np.ndarray) -> dict[str, float]:
    recall = {f"R@{k}": round(100 * float(np.mean(ranks <= k)), 2) for k in (1, 5, 10)}
    return recall | {"median_rank": float(np.median(ranks))}


def test_known_matrix() -> None:
    similarity = [[0.9, 0.1], [0.2, 0.3], [0.8, 0.7]]  # the third text's image is the second: ranked 2nd
    report = recall_report(similarity, [0, 1, 1])
    assert report["text_to_image"] == {"R@1": 66.67, "R@5": 100.0, "R@10": 100.0, "median_rank": 1.0}
    assert report["image_to_text"] == {"R@1": 100.0, "R@5": 100.0, "R@10": 100.0, "median_rank": 1.0}


@settings(max_examples=25, deadline=None)
@given(images=st.integers(1, 40), captions=st.integers(1, 10), seed=st.integers(0, 2**32 - 1))
def test_matches_the_definition(images: int, captions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevant = rng.permutation(np.repeat(np.arange(images), captions))
    similarity = rng.integers(-5, 5, size=(len(relevant), images)).astype(np.float32)  # many ties
    position = np.argsort(np.argsort(-similarity, axis=1, kind="stable"), axis=1)
    text_ranks = 1 + position[np.arange(len(relevant)), relevant]
    position = np.argsort(np.argsort(-similarity.T, axis=1, kind="stable"), axis=1)
    image_ranks = np.array([1 + position[i, relevant == i].min() for i in range(images)])
    report = recall_report(similarity, relevant.tolist())
    assert report == {"text_to_image": reference(text_ranks), "image_to_text": reference(image_ranks)}


def test_rankings_of_a_search_may_stop_short() -> None:
    found = [["a", "b"], ["c"], ["d", "e"], []]
    assert ranking_report(found, [{"b"}, {"c", "z"}, {"z"}, {"z"}]) == {
        "R@1": 25.0,
        "R@5": 50.0,
        "R@10": 50.0,
        "median_rank": None,
    }
    assert ranking_report(found[:3], [{"b"}, {"c"}, {"z"}])["median_rank"] == 2.0


@pytest.mark.parametrize(
    ("similarity", "relevant", "message"),
    [
        ([[0.1, 0.2]], [0], "image 1 has no text"),
        ([[0.1, float("nan")]], [0], "NaN"),
        ([[0.1]], [1], "outside"),
        ([[0.1]], [-1], "outside"),
        ([[0.1]], [0, 0], "relevant has shape"),
        ([], [], "at least one"),
    ],
)
def test_unusable_input_is_refused(similarity: list[list[float]], relevant: list[int], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        recall_report(similarity, relevant)


@pytest.mark.parametrize(
    ("rankings", "relevant", "message"),
    [
        ([], [], "no queries"),
        ([["a"]], [], "1 rankings but 0"),
        ([["a"]], [set()], "query 0 has no relevant"),
        ([["a", "a"]], [{"a"}], "names an id twice"),
    ],
)
def test_unusable_rankings_are_refused(rankings: list[list[str]], relevant: list[set[str]], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        ranking_report(rankings, relevant)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(EvaluationError, match=r"sightline\[eval\]"):
        recall_report([[1.0]], [0])
