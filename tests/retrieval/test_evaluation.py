"""Recall and rank against a plain NumPy reading of their definitions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.encoders import main
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


@pytest.mark.slow
def test_encoder_benchmark_measures_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for index, name in enumerate(("chelsea", "coffee", "rocket")):
        Image.fromarray(getattr(skimage.data, name)()).save(tmp_path / f"{index}.jpg")
        rows.append({"file": f"{index}.jpg", "captions": [f"a photo of a {name}", name]})
    rows[2] = {"file": "2.jpg", "caption": "a rocket on a launch pad"}
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    figures = tmp_path / "figures.json"
    assert main([str(tmp_path), "--device", "cpu", "--repeats", "1", "--json", str(figures)]) == 0
    (result,) = json.loads(figures.read_text())["results"]
    assert result["text_to_image"]["R@5"] == result["image_to_text"]["R@5"] == 100.0
    assert min(result[rate] for rate in ("images_per_s", "texts_per_s", "peak_rss_bytes")) > 0
    assert "| `compact` | " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("", "holds no photographs"),
        ("{", ":1: not JSON"),
        ('{"caption": "a"}', ':1: needs "file"'),
        ('{"file": "a.jpg", "caption": "a"}\n{"file": "b.jpg", "captions": []}', ':2: needs "captions"'),
    ],
)
def test_encoder_benchmark_refuses_a_bad_manifest(
    manifest: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions.jsonl").write_text(manifest)
    assert main([str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 1
