"""The measurement of languages, and what `compact` must keep of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import encoders, languages, relevance_languages
from benchmarks.encoders import DatasetError, read_dataset
from benchmarks.relevance import GATES, read_queries
from retrieval.encoders import load_encoder
from retrieval.encoders.base import Encoder
from retrieval.relevance.background import BACKGROUND_LANGUAGES, background_texts
from tests.support.toy import PALETTE, ColourEncoder


@pytest.fixture(scope="module")
def compact() -> Encoder:
    return load_encoder("compact", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of one colour each, captioned in English and in a language of the same words."""
    (tmp_path / "images").mkdir()
    names = ["red", "green", "blue", "yellow"]
    for name in names:
        Image.new("RGB", (8, 8), PALETTE[name]).save(tmp_path / f"images/{name}.png")
    rows = [{"file": f"images/{name}.png", "captions": [name, f"{name} paint"]} for name in names]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    others = [{"file": f"images/{name}.png", "lang": "xx", "text": f"{name} farbe"} for name in names[1:]]
    others += [{"file": "images/red.png", "lang": "yy", "text": "blue"}]
    (tmp_path / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others))
    return tmp_path


def test_ranks() -> None:
    items = np.eye(3, dtype=np.float32)
    queries = np.array([[1, 0.5, 0], [0, 0.5, 1], [0, 0, 0]], np.float32)
    assert languages.ranks(queries, items, [0, 1, 2], [0, 1, 2]).tolist() == [1, 2, 3]
    # Of several items of its own the best counts.
    assert languages.ranks(queries[1:2], items, [7], [0, 7, 7]).tolist() == [1]
    assert languages.recalls(np.array([1, 4, 11, 2])) == {"R@1": 25, "R@5": 75, "R@10": 75}


def test_recall_by_language(folder: Path) -> None:
    dataset = read_dataset(folder)
    captions = languages.read_captions(folder / "others.jsonl", dataset)
    found = languages.recall_by_language(ColourEncoder(), dataset, captions)
    assert {name: (row["captions"], row["R@1"]) for name, row in found.items()} == {
        "en": (8, 100),
        "xx": (3, 100),
        "yy": (1, 0),
    }
    assert "| xx | 3 | 100 / 100 / 100 |" in languages.recall_table(found)
    across = languages.across_languages(ColourEncoder(), dataset, captions)
    assert across["xx"]["to"] == across["xx"]["from"] == 100
    assert across["yy"]["to"] == 0


@pytest.mark.parametrize(
    "line", ["no json", '{"file": "images/red.png"}', '{"file": "x", "lang": "a", "text": "b"}', "[]"]
)
def test_a_bad_file_of_captions_is_an_error(folder: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "others.jsonl").write_text(line)
    with pytest.raises(DatasetError, match="file, lang and text"):
        languages.read_captions(folder / "others.jsonl", read_dataset(folder))
    assert relevance_languages.main([str(folder), str(folder / "others.jsonl")]) == 1
    assert "file, lang and text" in capsys.readouterr().err


def test_the_table_of_encoders_has_languages(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recall = {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0, "median_rank": 1}
    measured = {"encoder": "toy", "texts_per_s": 1.0, "images_per_s": 1.0, "peak_rss_bytes": 1}
    measured |= {"text_to_image": recall, "image_to_text": recall}
    monkeypatch.setattr(encoders, "measure_all", lambda *_: [measured])
    monkeypatch.setattr(encoders, "load_encoder", lambda *_, **__: ColourEncoder())
    assert (
        encoders.main([str(folder), "--languages", str(folder / "others.jsonl"), "--json", str(folder / "out.json")])
        == 0
    )
    assert "| yy | 1 | 0 / " in capsys.readouterr().out
    assert json.loads((folder / "out.json").read_text())["results"][0]["languages"]["xx"]["R@1"] == 100


def test_no_english_text_is_read_as_another_language(compact: Encoder) -> None:
    read = compact.text_language  # type: ignore[attr-defined]
    assert [text for text in languages.english_texts() if read(text) != "en"] == []


def test_each_language_is_read(compact: Encoder) -> None:
    routed, meant = languages.routing(compact), languages.meaning(compact)
    assert min(row["other"] for row in routed.values()) > 0.6
    assert min(meant.values()) > 0.5
    for language in ("ar", "ja", "ko", "ru", "th", "zh", "zh-TW"):
        assert routed[language]["other"] == 1
    beyond = languages.others(compact)
    assert min(beyond[language]["unread"] for language in ("vi", "el", "he", "hi", "ur")) > 0.9


def test_chinese_questions_find_chinese_passages(compact: Encoder) -> None:
    assert languages.passages(compact)["R@1"] >= 90
    assert "R@1/5/10: 90" in languages.report(compact)


def test_the_lists_of_queries() -> None:
    english = languages.parallel_english()
    assert len(english) == len(set(english)) == 96
    assert set(english) <= set(background_texts())
    background = {text for language in BACKGROUND_LANGUAGES for text in background_texts(language)}
    absent, present = (read_queries("coco100", f"{which}_zh") for which in ("absent", "present"))
    assert len({row.query for row in absent}) == len(absent) >= 150
    assert len({row.kind for row in absent}) >= 10
    assert not {row.query for row in absent} & background, "the null must not know the test"
    assert not {row.query for row in absent} & {row.query for row in present}
    assert relevance_languages.has_queries("coco100", "zh")
    assert not relevance_languages.has_queries("coco100", "sv")


def test_relevance_by_language(folder: Path) -> None:
    named = folder.parent / "coco100"
    folder.rename(named)
    rows = [{"file": f"images/{name}.png", "lang": "zh", "text": name} for name in ("red", "blue")]
    (named / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    captions = languages.read_captions(named / "others.jsonl", read_dataset(named))
    found = relevance_languages.measure(named, captions, ColourEncoder())
    assert set(found) == {"zh"}
    assert set(found["zh"]) == {"photographs", "captioned"}
    for curve in found["zh"].values():
        assert len(curve["relevance"]["present"]) == 2
        assert len(curve["relevance"]["absent"]) == len(read_queries("coco100", "absent_zh"))
        assert [row["gate"] for row in curve["gates"]] == list(GATES)
